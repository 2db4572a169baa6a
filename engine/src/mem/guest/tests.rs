//! The memory table, its log, and files that shrink.

use super::*;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::shared::SharedError;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;

const PAGE: u64 = 4096;

fn file(bytes: u64) -> OwnedFd {
    let fd = memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, bytes as i64).unwrap();
    fd
}

fn region(guest: u64, user: u64, size: u64, offset: u64) -> Region {
    Region { guest, user, size, offset }
}

/// Two regions of one file, as QEMU cuts memory around the hole below 4 GiB.
fn two() -> (GuestMemory, OwnedFd) {
    let fd = file(8 * PAGE);
    let low = (region(0, 0x7f00_0000_0000, 4 * PAGE, 0), fd.try_clone().unwrap());
    let high = (region(1 << 32, 0x7f00_0000_4000, 4 * PAGE, 4 * PAGE), fd.try_clone().unwrap());
    (GuestMemory::new(&[high, low]).unwrap(), fd)
}

fn read(at: NonNull<u8>) -> u8 {
    // SAFETY: tests pass addresses that a table has just given out.
    unsafe { at.as_ptr().read_volatile() }
}

#[test]
fn guest_and_user_addresses_lead_to_the_same_bytes_of_the_file() {
    let (memory, fd) = two();
    pwrite(&fd, b"low", 5).unwrap();
    pwrite(&fd, b"high", (4 * PAGE + 7) as i64).unwrap();
    let mut hint = 0;
    assert_eq!(read(memory.at(5, 3, &mut hint).unwrap()), b'l');
    let high = memory.at((1 << 32) + 7, 4, &mut hint).unwrap();
    assert_eq!((read(high), hint), (b'h', 1));
    assert_eq!(memory.at_user(0x7f00_0000_4007, 4), Some(high));
    assert_eq!(memory.guest_of(high.as_ptr()), Some((1 << 32) + 7));
    assert_eq!(memory.guest_of((&raw const hint).cast()), None);
    assert_eq!(memory.u16_at_user(0x7f00_0000_4008), Some(u16::from_le_bytes(*b"ig")));
    assert_eq!(memory.u16_at_user(0x7f00_0000_4007), None, "odd");
    let words = memory.words_at_user(0x7f00_0000_4000, 3, 8, 0).unwrap();
    assert_eq!(
        [words(1), words(3)],
        [u16::from_le_bytes(*b"ig"), 0],
        "the second, and none behind the third"
    );
    assert!(memory.words_at_user(0x7f00_0000_4000, 3, 8, 7).is_none(), "odd, and beyond an entry");
    let end = 0x7f00_0000_4000 + 4 * PAGE;
    assert!(memory.words_at_user(end - 16, 2, 8, 6).is_some());
    for (user, count) in [(end - 16, 3), (end - 8, 2), (u64::MAX - 1, 1)] {
        assert!(memory.words_at_user(user, count, 8, 6).is_none(), "{user:#x} {count}");
    }
    let guests: Vec<u64> = memory.regions().map(|region| region.guest).collect();
    assert_eq!(guests, [0, 1 << 32]);
}

#[test]
fn a_range_is_found_only_when_one_region_has_all_of_it() {
    let (memory, _fd) = two();
    let end = 4 * PAGE;
    for hint in [0, 1, 2, usize::MAX] {
        let mut hint = hint;
        let mut found = |guest, len| memory.at(guest, len, &mut hint).is_some();
        assert!(found(0, 1) && found(0, end as u32) && found(end - 1, 1) && found((1 << 32) + end - 4, 4));
        assert!(!found(end - 1, 2) && !found(end, 0) && !found(end, 1) && !found((1 << 32) - 1, 2));
        assert!(!found(0, u32::MAX) && !found(u64::MAX, 1) && !found(u64::MAX - 3, 8));
    }
    // In the VMM the two are neighbours, and still two.
    assert!(memory.at_user(0x7f00_0000_0000 + end - 2, 4).is_none());
    assert!(memory.at_user(u64::MAX, 2).is_none() && memory.at_user(0x7f00_0000_0000, u64::MAX).is_none());
}

#[test]
fn a_region_may_begin_anywhere_in_its_file() {
    let fd = file(8 * PAGE);
    pwrite(&fd, b"!", (3 * PAGE + 100) as i64).unwrap();
    let memory = GuestMemory::new(&[(region(0, 0, PAGE, 3 * PAGE + 100), fd)]).unwrap();
    assert_eq!(read(memory.at(0, PAGE as u32, &mut 0).unwrap()), b'!');
}

#[test]
fn hugepages_are_mapped_whole_and_go_whole() {
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("memfd:huge-guest");
    let Ok(fd) = memfd_create("huge-guest", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB) else {
        eprintln!("skipped: no hugepages on this machine");
        return;
    };
    ftruncate(&fd, 4 << 20).unwrap();
    let memory = GuestMemory::new(&[(region(0, 0, (2 << 20) + 100, (1 << 20) + 8), fd)]).unwrap();
    let at = memory.at((2 << 20) + 99, 1, &mut 0).unwrap();
    // Without a free hugepage this is a fault that zero memory answers.
    assert_eq!(read(at), 0);
    drop(memory);
    assert!(!mapped());
}

#[test]
fn regions_that_cannot_be_are_refused() {
    type Error = MemoryError;
    let new = |regions: &[Region]| {
        let all: Vec<_> = regions.iter().map(|region| (*region, file(4 * PAGE))).collect();
        GuestMemory::new(&all).unwrap_err()
    };
    let base = region(PAGE, 0x10_0000, PAGE, 0);
    assert!(matches!(new(&[Region { size: 0, ..base }]), Error::Range { .. }));
    assert!(matches!(new(&[Region { guest: u64::MAX - 5, ..base }]), Error::Range { .. }));
    assert!(matches!(new(&[Region { user: u64::MAX - 5, ..base }]), Error::Range { .. }));
    let inside = region(PAGE + 5, 0x20_0000, 1, 0);
    assert_eq!(new(&[base, inside]), Error::Overlap(PAGE, PAGE + 5));
    let user = region(9 * PAGE, 0x10_0fff, PAGE, 0);
    assert_eq!(new(&[user, base]), Error::Overlap(9 * PAGE, PAGE));
    let short = SharedError::Short { file: 4 * PAGE, wanted: 5 * PAGE };
    assert_eq!(new(&[Region { offset: 4 * PAGE, ..base }]), Error::Map { guest: PAGE, error: short });
    let error = new(&[Region { offset: u64::MAX - 8, ..base }]);
    assert!(matches!(error, Error::Map { error: SharedError::Range { .. }, .. }), "{error}");
    let error = new(&[Region { size: 1 << 63, ..base }]);
    assert!(matches!(error, Error::Map { error: SharedError::Range { .. }, .. }), "{error}");
}

#[test]
fn what_is_no_shared_memory_is_named_with_its_remedy() {
    let (_, pipe) = nix::unistd::pipe().unwrap();
    let device = std::fs::File::options().read(true).write(true).open("/dev/zero").unwrap().into();
    let program = std::fs::File::open("/proc/self/exe").unwrap().into();
    for fd in [pipe, device, program] {
        let error = GuestMemory::new(&[(region(0, 0, PAGE, 0), fd)]).unwrap_err();
        assert_eq!(error, MemoryError::Map { guest: 0, error: SharedError::NotMemory });
        assert!(error.to_string().contains("memory-backend-memfd,share=on"), "{error}");
    }
    let fd = file(PAGE);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let readable: OwnedFd = std::fs::File::open(path).unwrap().into();
    let error = GuestMemory::new(&[(region(0, 0, PAGE, 0), readable)]).unwrap_err();
    assert_eq!(error, MemoryError::Map { guest: 0, error: SharedError::Map(Errno::EACCES) });
}

#[test]
fn a_changed_table_shares_the_mappings_of_the_old_one() {
    let (memory, fd) = two();
    let at = memory.at(0, 1, &mut 0);
    let third = region(1 << 40, 0x1000, PAGE, 0);
    let more = memory.with_region(&third, &fd).unwrap();
    assert_eq!((more.regions().count(), more.at(0, 1, &mut 0)), (3, at));
    assert!(matches!(more.with_region(&third, &fd), Err(MemoryError::Overlap(..))));
    let less = more.without_region(&region(0, 0x7f00_0000_0000, 4 * PAGE, 77)).unwrap();
    drop((memory, more));
    assert_eq!(less.at(0, 1, &mut 0), None);
    assert_eq!(read(less.at(1 << 40, 1, &mut 0).unwrap()), 0);
    let absent = region(1 << 40, 0x1000, PAGE - 1, 0);
    assert!(matches!(less.without_region(&absent), Err(MemoryError::Absent { .. })));
}

#[test]
fn as_many_regions_fit_as_a_vmm_has_slots() {
    let fd = file(PAGE);
    let nth = |n: u64| region(n * PAGE, n * PAGE, PAGE, 0);
    let all: Vec<_> = (0..MAX_REGIONS as u64).map(|n| (nth(n), fd.try_clone().unwrap())).collect();
    let memory = GuestMemory::new(&all).unwrap();
    let mut hint = 0;
    for n in (0..MAX_REGIONS as u64).rev() {
        assert!(memory.at(n * PAGE + 1, 8, &mut hint).is_some());
        assert_eq!(hint as u64, n);
    }
    let over = MAX_REGIONS + 1;
    assert_eq!(memory.with_region(&nth(over as u64), &fd).unwrap_err(), MemoryError::Count(over));
    let mut more = all;
    more.push((nth(over as u64), fd));
    assert_eq!(GuestMemory::new(&more).unwrap_err(), MemoryError::Count(over));
}

#[test]
fn a_part_of_the_arena_can_play_a_guest() {
    let config = ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false };
    let part = Arc::new(Arena::new(&config).unwrap().take(8192, 4096).unwrap());
    let memory = GuestMemory::of_part(part.clone(), 0x4000_0000);
    assert_eq!(memory.at(0x4000_0000, 8192, &mut 0), Some(part.ptr()));
    assert_eq!(memory.at(0x4000_0001, 8192, &mut 0), None);
    assert!(!memory.lost());
}

#[test]
fn each_page_written_has_its_bit_and_no_other_has() {
    let fd = file(PAGE);
    let log = Arc::new(DirtyLog::new(&fd, 16, 8).unwrap());
    let (memory, _guest) = two();
    assert!(!memory.logs());
    memory.mark(0, PAGE);
    let memory = memory.with_log(Some(log));
    assert!(memory.logs());
    let bits = || {
        let mut bytes = [0; 24];
        pread(&fd, &mut bytes, 8).unwrap();
        pwrite(&fd, &[0; 24], 8).unwrap();
        assert_eq!((&bytes[..8], &bytes[16..]), (&[0; 8][..], &[0; 8][..]), "outside of the log");
        u64::from_le_bytes(bytes[8..16].try_into().unwrap())
    };
    let marked = |from: u64, len: u64| {
        memory.mark(from, len);
        bits()
    };
    assert_eq!(marked(0, 0), 0);
    assert_eq!(marked(0, 1), 1);
    assert_eq!(marked(PAGE - 1, 2), 0b11);
    assert_eq!(marked(7 * PAGE + 5, PAGE), 0b11 << 7);
    assert_eq!(marked(3 * PAGE, 20 * PAGE), 0xf_ffff << 3);
    assert_eq!(marked(0, 64 * PAGE), u64::MAX);
    assert_eq!(marked(63 * PAGE, PAGE), 1 << 63);
    assert_eq!(marked(63 * PAGE, 9 * PAGE), 1 << 63, "cut at the log's end");
    assert_eq!(marked(64 * PAGE, PAGE), 0);
    assert_eq!(marked(u64::MAX - 1, 2) | marked(u64::MAX, u64::MAX), 0);
}

#[test]
fn a_table_keeps_its_log_when_regions_come_and_go() {
    let (memory, fd) = two();
    let log = Arc::new(DirtyLog::new(&file(PAGE), 0, PAGE).unwrap());
    let memory = memory.with_log(Some(log)).with_region(&region(1 << 40, 0x1000, PAGE, 0), &fd).unwrap();
    assert!(memory.logs());
    let memory = memory.without_region(&region(1 << 40, 0x1000, PAGE, 0)).unwrap();
    assert!(memory.logs() && !memory.with_log(None).logs());
}

#[test]
fn a_file_that_shrinks_under_us_reads_as_zero_and_is_noted() {
    let (memory, fd) = two();
    let (other, _fd) = two();
    pwrite(&fd, b"here", 0).unwrap();
    let at = memory.at(0, 4, &mut 0).unwrap();
    let (near, far) = (at, memory.at((1 << 32) + 5, 1, &mut 0).unwrap());
    assert_eq!(read(near), b'h');
    ftruncate(&fd, 0).unwrap();
    assert!(!memory.lost(), "nobody touched it yet");
    assert_eq!(read(far), 0);
    assert!(memory.lost() && !other.lost());
    assert_eq!(read(near), 0);
    // What stands in can be written, too.
    // SAFETY: the address is one that the table gave out.
    unsafe { near.as_ptr().write_volatile(9) };
    assert_eq!(read(near), 9);
}

#[test]
fn a_log_that_shrinks_under_us_is_noted() {
    let fd = file(PAGE);
    let log = DirtyLog::new(&fd, 0, PAGE).unwrap();
    ftruncate(&fd, 0).unwrap();
    log.mark(0, 1);
    let (memory, _guest) = two();
    assert!(log.lost() && memory.with_log(Some(Arc::new(log))).lost());
}
