//! A ring whose other side writes what it likes, wherever it may. Whatever that is, a side of ours names only memory that lies inside of
//! the guest's, hands out only what it has, and says why it stops. The writes come from proptest or from a fuzzer.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)] // it fails by panicking

use super::packed::{PackedDevice, PackedDriver};
use super::split::{SplitDevice, SplitDriver};
use super::testing::{Format, GUEST, Rig};
use super::{
    Access, CHAIN_SEGMENTS, CHAINS, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, DriverRing, DriverSeg,
    F_INDIRECT_DESC, Found, Position, oracle,
};
use std::collections::HashSet;

/// Bytes for buffers and indirect tables.
const BUFFERS: usize = 1 << 14;
/// Operations of a run at most.
const OPS: usize = 2048;

/// One operation; the numbers choose places and values.
pub type Op = [u8; 5];

/// The other side.
struct Other {
    rig: Rig,
    format: Format,
    size: u16,
    /// What it has published.
    at: u16,
    wrap: bool,
}

impl Other {
    fn new(setup: oracle::Setup) -> Self {
        let features = setup.features | F_INDIRECT_DESC;
        let mut rig = Rig::new(setup.format, setup.size, features, BUFFERS).unwrap();
        let (at, wrap) = match setup.format {
            Format::Split => (setup.start, true),
            Format::Packed => (setup.start % setup.size, (setup.start / setup.size).is_multiple_of(2)),
        };
        rig.config.position = Position { avail: at, used: at, avail_wrap: wrap, used_wrap: wrap };
        Self { rig, format: setup.format, size: setup.size, at, wrap }
    }

    /// Guest addresses of the three parts.
    fn parts(&self) -> [u64; 3] {
        let config = &self.rig.config;
        [config.desc, config.avail, config.used].map(|part| self.rig.guest(part.as_ptr()))
    }

    /// Bytes anywhere: most often where the ring is.
    fn scribble(&self, [_, a, b, c, d]: Op) {
        let [desc, avail, used] = self.parts();
        let near = u64::from(b) | u64::from(c & 0x0f) << 8;
        let at = match a % 4 {
            0 => desc + near % (16 * u64::from(self.size)),
            1 => avail + near % (used - avail),
            2 => used + near % 64,
            _ => self.rig.buffer(usize::from(b) * 16),
        };
        self.rig.write(at, &vec![d; 1 + usize::from(c >> 4)]);
    }

    /// A number that ends up in an address or a length: small, at an edge, or anything.
    fn address(&self, how: u8, value: u8) -> u64 {
        match how % 8 {
            0..=4 => self.rig.buffer(usize::from(value) * 32),
            5 => self.rig.end() - u64::from(value),
            6 => GUEST + u64::from(value),
            _ => u64::MAX - u64::from(value),
        }
    }

    /// A buffer made available: one descriptor, right or wrong, in the ring or in a table.
    fn offer(&mut self, [kind, a, b, c, d]: Op, access: Access) {
        let [desc, avail, _] = self.parts();
        let write = if access == Access::Write { DESC_WRITE } else { 0 };
        let flags = match a % 8 {
            0..=3 => write,
            4 => write | DESC_NEXT,
            5 => write | DESC_INDIRECT,
            6 => write ^ DESC_WRITE,
            _ => u16::from(c) % 8,
        };
        let (addr, len) = (self.address(b, c), if d == 0xff { u32::MAX } else { u32::from(d) * 4 });
        if kind & 0x80 != 0 {
            // A descriptor of an indirect table, which is there when another names it.
            self.rig.write_desc(
                self.rig.buffer(usize::from(c) * 32),
                u16::from(a / 8),
                addr,
                len,
                [flags, u16::from(d)],
            );
            return;
        }
        match self.format {
            Format::Split => {
                let head = u16::from(d) % self.size;
                self.rig.write_desc(desc, head, addr, len, [flags, u16::from(b) % self.size]);
                let entry = avail + 4 + 2 * u64::from(self.at % self.size);
                self.rig.write(entry, &if kind & 0x40 == 0 { head } else { u16::from(c) << 8 }.to_le_bytes());
                self.at = self.at.wrapping_add(1);
                self.rig.write(avail + 2, &self.at.to_le_bytes());
            }
            Format::Packed => {
                let wrap = if self.wrap { 1 << 7 } else { 1 << 15 };
                self.rig.write_desc(desc, self.at, addr, len, [u16::from(d), flags | wrap]);
                self.at += 1;
                if self.at == self.size {
                    (self.at, self.wrap) = (0, !self.wrap);
                }
            }
        }
    }

    /// A buffer handed back: one that there is, or any other.
    fn hand_back(&mut self, [kind, _, b, c, d]: Op) {
        let [desc, _, used] = self.parts();
        let id = if kind & 0x80 == 0 { u32::from(b) % u32::from(self.size) } else { u32::from(b) << 8 };
        match self.format {
            Format::Split => {
                let entry = used + 4 + 8 * u64::from(self.at % self.size);
                self.rig.write(entry, &[id.to_le_bytes(), u32::from(c).to_le_bytes()].concat());
                self.at = self.at.wrapping_add(if d == 0xff { 0x4000 } else { 1 });
                self.rig.write(used + 2, &self.at.to_le_bytes());
            }
            Format::Packed => {
                let flags = if self.wrap { 1 << 7 | 1 << 15 } else { 0 };
                self.rig.write_desc(desc, self.at, 0, u32::from(c), [id as u16, flags]);
                let step = 1 + u16::from(d % 4);
                self.at += step;
                if self.at >= self.size {
                    (self.at, self.wrap) = ((self.at - self.size) % self.size, !self.wrap);
                }
            }
        }
    }
}

/// Everything that a look found lies inside of the guest's memory.
fn inside(other: &Other, found: &Found, access: Access) {
    assert!(found.chains().len() <= CHAINS);
    for chain in found.chains() {
        let segs = found.segs(chain);
        assert!((1..=CHAIN_SEGMENTS).contains(&segs.len()), "{} segments", segs.len());
        assert!((1..=other.size).contains(&chain.slots), "{} slots of {}", chain.slots, other.size);
        let mut sum = 0;
        for seg in segs {
            let guest = other.rig.guest(seg.ptr());
            assert!(!seg.is_empty() && other.rig.at(guest, seg.len()).is_some(), "{guest:#x}+{}", seg.len());
            if access == Access::Write {
                other.rig.write(guest, &[1]);
                other.rig.write(guest + seg.len() as u64 - 1, &[1]);
            }
            sum += seg.len();
        }
        assert_eq!(sum, chain.len as usize);
    }
}

fn device<D: DeviceRing>(setup: oracle::Setup, ops: &[Op]) {
    let mut other = Other::new(setup);
    let mut device = D::new(&other.rig.config).unwrap();
    let mut found = Found::new();
    for &op in ops.iter().take(OPS) {
        match op[0] % 8 {
            0..=2 => other.offer(op, setup.access),
            3 => other.scribble(op),
            4 => {
                let looked = device.look(usize::from(op[1]) % (CHAINS + 8), setup.access, &mut found);
                inside(&other, &found, setup.access);
                if looked.is_err() && found.chains().is_empty() {
                    break; // whoever runs it stops it now
                }
            }
            5 => {
                let many = usize::from(op[1]) % CHAINS;
                device.give_all(found.chains().iter().take(many).map(|chain| (chain, u32::from(op[2]))));
                found.clear();
                device.publish();
            }
            6 => {
                device.want_kicks(op[1] % 2 == 0);
                let _ = device.available(usize::from(op[2]));
            }
            _ => {
                device.publish();
                let mut config = other.rig.config.clone();
                config.position = device.position();
                device = D::new(&config).expect("a position that it had itself");
                found.clear();
            }
        }
    }
    device.publish();
    let mut config = other.rig.config.clone();
    config.position = device.position();
    assert!(D::new(&config).is_ok(), "it stopped where no ring can stand");
}

fn driver<V: DriverRing>(setup: oracle::Setup, ops: &[Op]) {
    let mut other = Other::new(setup);
    let mut driver = V::new(&other.rig.config).unwrap();
    let (mut tokens, mut under_way) = (0, HashSet::new());
    for &op in ops.iter().take(OPS) {
        match op[0] % 8 {
            0 | 1 => {
                let segs: Vec<DriverSeg> = (0..=op[1] % 4)
                    .map(|i| DriverSeg {
                        addr: other.rig.buffer(usize::from(op[2]) + usize::from(i)),
                        len: 1 + u32::from(op[3]),
                    })
                    .collect();
                let readable = if setup.access == Access::Read { segs.len() } else { 0 };
                let fits = driver.room() >= segs.len();
                assert_eq!(driver.add(&segs, readable, tokens), fits);
                if fits {
                    under_way.insert(tokens);
                    tokens += 1;
                }
            }
            2 => {
                driver.publish();
            }
            3 | 4 => other.hand_back(op),
            5 => other.scribble(op),
            6 => driver.want_calls(op[1] % 2 == 0),
            _ => match driver.used() {
                Ok(Some((token, _))) => assert!(under_way.remove(&token), "{token} came back unsent"),
                Ok(None) => {}
                Err(_) => break,
            },
        }
        assert!(driver.room() <= usize::from(setup.size));
    }
}

/// Which ring, from four numbers, whatever they are.
fn setup(format: Format, [size, features, low, high]: [u8; 4]) -> oracle::Setup {
    let sizes: Vec<u16> = oracle::SIZES.iter().filter(|(f, _)| *f == format).map(|(_, size)| *size).collect();
    let mut setup = oracle::setup(0, features, u16::from_le_bytes([low, high]));
    // The longest is long enough to be slow here and shows nothing else.
    let size = sizes[usize::from(size) % (sizes.len() - 1)];
    (setup.format, setup.size) = (format, size);
    setup
}

/// The device's side under a driver that writes what it likes.
///
/// # Panics
/// It did what no driver may make it do.
pub fn run_device(format: Format, head: [u8; 4], ops: &[Op]) {
    match format {
        Format::Split => device::<SplitDevice>(setup(format, head), ops),
        Format::Packed => device::<PackedDevice>(setup(format, head), ops),
    }
}

/// The driver's side under a device that writes what it likes.
///
/// # Panics
/// It did what no device may make it do.
pub fn run_driver(format: Format, head: [u8; 4], ops: &[Op]) {
    match format {
        Format::Split => driver::<SplitDriver>(setup(format, head), ops),
        Format::Packed => driver::<PackedDriver>(setup(format, head), ops),
    }
}

/// A side of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours is the device.
    Device,
    /// Ours is the driver.
    Driver,
}

/// A run as a fuzzer's bytes describe it: beside the model ([`oracle`]), or under another side that keeps no rule.
///
/// # Panics
/// Something is wrong with the ring.
pub fn fuzz_ring(format: Format, side: Side, data: &[u8]) {
    let Some((&[mode, a, b, c, d], rest)) = data.split_first_chunk() else { return };
    if mode % 4 == 0 {
        let ops: Vec<oracle::Op> = rest.as_chunks().0.iter().take(OPS).copied().collect();
        oracle::run(setup(format, [a, b, c, d]), &ops);
        return;
    }
    let ops: Vec<Op> = rest.as_chunks().0.iter().take(OPS).copied().collect();
    match side {
        Side::Device => run_device(format, [a, b, c, d], &ops),
        Side::Driver => run_driver(format, [a, b, c, d], &ops),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_driver_leads_a_device_out_of_memory(
            packed: bool, head: [u8; 4], ops in proptest::collection::vec(any::<Op>(), 0..200),
        ) {
            run_device(if packed { Format::Packed } else { Format::Split }, head, &ops);
        }

        #[test]
        fn no_device_makes_a_driver_hand_out_what_it_has_not(
            packed: bool, head: [u8; 4], ops in proptest::collection::vec(any::<Op>(), 0..200),
        ) {
            run_driver(if packed { Format::Packed } else { Format::Split }, head, &ops);
        }
    }
}
