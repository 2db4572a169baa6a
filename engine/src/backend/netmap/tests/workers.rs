//! Ring pairs of ports with several, spread over workers.

use super::super::testing::{Fake, Slots};
use super::{Regions, plain, try_open};
use crate::backend::netmap::abi::NS_BUF_CHANGED;
use crate::backend::pair::QueuePair;
use crate::backend::testing::{World, frame};
use crate::port::Turn;
use std::sync::{Arc, Barrier};

const RINGS: u16 = 4;
const WORKERS: usize = 2;
/// Frames of each ring, many times its slots.
const FRAMES: usize = 400;

/// The frames that come to a ring of a port: no two are alike, in length or mark.
fn coming(port: usize, ring: usize) -> Vec<Vec<u8>> {
    (0..FRAMES).map(|n| frame(60 + n, (port * usize::from(RINGS) + ring) as u8 * 31)).collect()
}

/// Moves frames both ways between two ports' pairs until those that came to each have left by the other; what left, by port and ring.
fn work(
    fake: &Arc<Fake>,
    mut pairs: Vec<(usize, [QueuePair; 2])>,
    begin: &Barrier,
) -> Vec<(usize, usize, Slots)> {
    let mut world = World::new();
    for queue in pairs.iter_mut().flat_map(|(_, ends)| ends) {
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        queue.rx.start(&mut turn);
        queue.tx.start(&mut turn);
    }
    begin.wait();
    let mut left = Vec::new();
    let mut idle = false;
    while !idle {
        idle = true;
        for (_, [one, two]) in &mut pairs {
            for (from, to) in [(&mut *one.rx, &mut *two.tx), (&mut *two.rx, &mut *one.tx)] {
                idle &= world.hop(from, to).0 == 0;
            }
        }
    }
    for (ring, _) in &pairs {
        left.extend([0, 1].map(|port| (port, *ring, fake.sent(port, *ring))));
    }
    left
}

#[test]
fn ring_pairs_run_on_several_workers_at_once_and_swap_buffers_of_one_region() {
    let (fake, regions) = (Fake::new(), Regions::default());
    fake.state().rings = (RINGS, RINGS);
    let ports = ["netmap:a", "netmap:b"].map(|name| try_open(&fake, &regions, name).unwrap().queues);
    assert_eq!(ports.each_ref().map(Vec::len), [usize::from(RINGS); 2], "a pair for each ring");
    assert_eq!(fake.state().maps, 1, "all share the mapping");
    for port in 0..2 {
        (0..RINGS.into()).for_each(|ring| fake.send(port, ring, plain(&coming(port, ring))));
    }
    let [a, b] = ports;
    let mut shares: [Vec<_>; WORKERS] = Default::default();
    for (ring, (a, b)) in a.into_iter().zip(b).enumerate() {
        shares[ring % WORKERS].push((ring, [a, b]));
    }
    let begin = Barrier::new(WORKERS);
    let left: Vec<_> = std::thread::scope(|scope| {
        let workers = shares.map(|share| scope.spawn(|| work(&fake, share, &begin)));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(left.len(), 2 * usize::from(RINGS));
    for (port, ring, slots) in left {
        assert!(
            slots.iter().all(|(flags, _)| flags & NS_BUF_CHANGED != 0),
            "port {port}, ring {ring}: a copy"
        );
        let bytes: Vec<_> = slots.into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(bytes, coming(1 - port, ring), "port {port}, ring {ring}");
    }
    fake.census();
    // Each ring was shown to the kernel by calls of its own.
    let state = fake.state();
    for port in &state.ports {
        let least = FRAMES.div_ceil(state.slots as usize) * usize::from(RINGS);
        assert!(port.syncs.0 >= least && port.syncs.1 >= least, "{}: {:?}", port.name, port.syncs);
    }
}
