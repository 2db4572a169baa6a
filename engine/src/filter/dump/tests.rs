use super::*;
use crate::burst::{Burst, Mask, Seg};
use crate::filter::{Direction, Handle};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::Pool;
use crate::port::Turn;
use crate::uring::FdIo;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;
use std::time::Duration;

fn dump(path: &std::path::Path, maxlen: u32, frames: &[Vec<u8>]) -> DumpCounters {
    let (file, mut instances) = DumpFile::open(path, maxlen, None, 0, 1).unwrap();
    let arena = Arena::new(&ArenaConfig::default()).unwrap();
    let mut pool = Pool::set(1, &arena).unwrap().remove(0);
    let (mut io, _) = FdIo::new(None).unwrap();
    for bytes in frames {
        let mut bytes = bytes.clone();
        let mut burst = Burst::new();
        #[allow(unsafe_code)]
        // SAFETY: `bytes` lives as long as the burst.
        let seg = unsafe { Seg::new(NonNull::new(bytes.as_mut_ptr()).unwrap(), bytes.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
        let mut turn = Turn { now: 1_500_000, io: &mut io, pool: &mut pool };
        let kept = instances[0].frames(&mut turn, Direction::Rx, &burst, burst.all());
        assert_eq!(kept, Mask(1), "a dump lets everything pass");
    }
    drop(instances);
    let counters = file.counters();
    file.finish(Duration::from_secs(5));
    counters
}

#[test]
fn a_capture_holds_every_frame_cut_to_maxlen() {
    let path = std::env::temp_dir().join(format!("netdevd-dump-{}", std::process::id()));
    let frames: Vec<Vec<u8>> =
        (0..5000u32).map(|i| (0..20 + i % 230).map(|at| (at + i) as u8).collect()).collect();
    let counters = dump(&path, 150, &frames);
    assert_eq!(counters, DumpCounters { seen: 5000, captured: 5000, lost: 0 });
    let file = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(file[..24], pcap::file_header(150));
    let mut at = 24;
    for frame in &frames {
        let kept = frame.len().min(150);
        let header = &file[at..at + 16];
        assert_eq!(header[8..12], (kept as u32).to_ne_bytes());
        assert_eq!(header[12..16], (frame.len() as u32).to_ne_bytes());
        assert_eq!(file[at + 16..at + 16 + kept], frame[..kept]);
        at += 16 + kept;
    }
    assert_eq!(at, file.len());
}

#[test]
fn a_file_that_takes_no_more_loses_captured_frames_only() {
    let frames: Vec<Vec<u8>> = (0..20_000).map(|_| vec![7; 1000]).collect();
    let counters = match std::fs::metadata("/dev/full") {
        Ok(_) => DumpFile::open(std::path::Path::new("/dev/full"), 65536, None, 0, 1).map(|_| ()),
        Err(e) => Err(e),
    };
    assert!(counters.is_err(), "the header itself does not fit");
    let path = std::env::temp_dir().join(format!("netdevd-lost-{}", std::process::id()));
    let counters = dump(&path, 65536, &frames);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(counters.captured + counters.lost, 20_000);
}
