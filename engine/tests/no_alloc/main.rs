//! A worker's turn allocates nothing: counted by the global allocator, on the worker's own thread, under traffic over
//! pairs, floods, switches, links between workers, rings in shared memory with a driver's side and a device's side of ours, a
//! stream connection, datagrams, and chains of filters.

mod filters;

use af_xdp::testing::Kernel;
use engine::backend::af_xdp::testing::{TestQueue, queue, umem};
use engine::backend::datagram::{self, DatagramOptions};
use engine::backend::driver::{self, WANTED};
use engine::backend::nic::{self, Mode, Published, RxFilter};
use engine::backend::stream;
use engine::port::testing::{Outside, port};
use engine::port::{Caps, Queue};
use engine::topology::model::{Client, ClientId, ClientKind, HUB_BACKLOG, QueueRef, Topology};
use engine::topology::switch::SwitchPort;
use engine::virtq::F_RING_PACKED;
use engine::wire::vnet_hdr::VnetHdr;
use engine::{Attachments, Config, Engine};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts what the two worker threads ask for.
struct Counting;

static WORKERS: [AtomicI32; 2] = [AtomicI32::new(0), AtomicI32::new(0)];
static ARMED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

fn note() {
    if ARMED.load(Ordering::Relaxed) {
        // SAFETY: gettid has no precondition.
        let tid = unsafe { libc::gettid() };
        if WORKERS.iter().any(|w| w.load(Ordering::Relaxed) == tid) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Threads of this process whose name begins with `prefix`.
fn threads(prefix: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|t| t.unwrap().path());
    tasks
        .filter(|t| std::fs::read_to_string(t.join("comm")).is_ok_and(|c| c.starts_with(prefix)))
        .map(|t| t.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

fn join(topology: &mut Topology, queue: &Queue, worker: usize, hub: i32) {
    join_to(topology, queue, worker, ClientKind::HubPort { hub, backlog: HUB_BACKLOG });
}

fn join_to(topology: &mut Topology, queue: &Queue, worker: usize, port: ClientKind) {
    let id = queue.id.0;
    let (a, b) = (ClientId(id * 2), ClientId(id * 2 + 1));
    let client = |id, kind, peer| Client {
        id,
        kind,
        link_up: true,
        connected: true,
        pads: false,
        peer: Some(peer),
        filters: vec![],
    };
    topology.clients.push(client(a, ClientKind::Port { queues: vec![QueueRef { id, worker }] }, b));
    topology.clients.push(client(b, port, a));
}

/// What the `n`th port of a switch sends: the first to everybody, the others to the first; the last with a tag of VLAN 1.
fn switched(n: u8) -> Vec<u8> {
    let to = if n == 0 { [0xff; 6] } else { [2, 0, 0, 0, 0, 0] };
    let mut bytes = [to, [2, 0, 0, 0, 0, n]].concat();
    bytes.extend(if n == 2 { [0x81, 0, 0, 1] } else { [0x88, 0xb5, 0, 0] });
    bytes.resize(60, n);
    bytes
}

/// A burst of frames that takes longer will never arrive.
const LIMIT: Duration = Duration::from_secs(120);

/// Sends `frames` frames and waits for them at all of `to`.
fn pump(from: &Outside, to: &[&Outside], frames: u32) {
    let (mut sent, mut got) = (0, 0);
    let deadline = Instant::now() + LIMIT;
    while got < frames as usize * to.len() {
        // A hub's leg drops what a starved worker does not fetch: few frames are under way at a time.
        let under_way = sent as usize * to.len() - got;
        if sent < frames
            && under_way < 32 * to.len()
            && let Some(bytes) = from.used.pop()
        {
            match from.sent.push((VnetHdr::NONE, bytes)) {
                Ok(()) => sent += 1,
                Err((_, bytes)) => drop(from.used.push(bytes)),
            }
        }
        for outside in to {
            while let Some((_, bytes)) = outside.received.pop() {
                got += 1;
                let _ = outside.spare.push(bytes);
            }
        }
        assert!(Instant::now() < deadline, "{got} of {sent} frames (to {} ports) came out", to.len());
        std::thread::yield_now();
    }
}

/// Two AF_XDP queues of one UMEM and a port, joined by a hub: frames move, and frames are copied, both into pool buffers and into chunks.
fn wire(
    engine: &mut Engine,
    topology: &mut Topology,
    hub: i32,
) -> (Vec<(usize, Queue)>, [Kernel; 2], Outside) {
    let shared = umem().unwrap();
    let mut queues = Vec::new();
    let kernels = [0; 2].map(|_| {
        let TestQueue { rx, tx, kernel } = queue(&shared).unwrap();
        queues.push(Queue { id: engine.queue_id(), rx, tx, counters: Arc::default(), fd: -1 });
        kernel
    });
    let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
    while outside.spare.push(Vec::with_capacity(2048)).is_ok() {}
    queues.push(queue);
    for queue in &queues {
        join(topology, queue, 0, hub);
    }
    (queues.into_iter().map(|queue| (0, queue)).collect(), kernels, outside)
}

/// Frames from one kernel end to the other, and to the port.
fn carry([from, to]: &mut [Kernel; 2], outside: &Outside, frames: usize) {
    let (mut sent, mut moved, mut got) = (0, 0, 0);
    let deadline = Instant::now() + LIMIT;
    while moved < frames || got < frames {
        if sent < frames && sent - moved.min(got) < 32 && from.receive(&[7; 60]) {
            sent += 1;
        }
        moved += to.transmit(64).len();
        to.complete(64);
        while let Some((_, bytes)) = outside.received.pop() {
            got += 1;
            let _ = outside.spare.push(bytes);
        }
        assert!(Instant::now() < deadline, "{moved} and {got} of {sent} frames came out");
        std::thread::yield_now();
    }
}

/// A port, a `vhost-user` netdev, the nic that serves its rings and takes only what is for it, and another port: queues with their
/// workers, all of them joined. What the two ports send has these first bytes.
fn line(
    engine: &mut Engine,
    topology: &mut Topology,
    hub: i32,
    features: u64,
    marks: [u8; 2],
    workers: usize,
) -> (Vec<(usize, Queue)>, [Outside; 2]) {
    let wake: Arc<OwnedFd> = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into());
    let mut opened = driver::open(&driver::Shape::new(features, 1), false, &wake, None).unwrap();
    let driver = opened.pairs.remove(0);
    let mut filter = RxFilter::new([marks[1]; 6]);
    filter.set_mode(Mode::Promiscuous, false);
    let asked = Arc::new(Published::new(&filter, u64::MAX));
    let device = nic::pair(Some(&opened.rings[1]), Some(&opened.rings[0]), &wake, &asked).unwrap();
    let queue = |rx, tx| Queue { id: engine.queue_id(), rx, tx, counters: Arc::default(), fd: -1 };
    let rings = [queue(driver.rx, driver.tx), queue(device.rx, device.tx)];
    let mut outsides = Vec::new();
    let mut queues = Vec::new();
    for (n, (ring, mark)) in rings.into_iter().zip(marks).enumerate() {
        let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
        for i in 0..32 {
            // Every fourth takes several buffers.
            outside.used.push(vec![mark; if i % 4 == 0 { 5000 } else { 60 }]).unwrap();
        }
        while outside.spare.push(Vec::with_capacity(8192)).is_ok() {}
        let worker = n % workers;
        for queue in [queue, ring] {
            join(topology, &queue, worker, hub + n as i32);
            queues.push((worker, queue));
        }
        outsides.push(outside);
    }
    (queues, outsides.try_into().ok().unwrap())
}

/// Two ports, each beside one end of a wire of datagrams, which are connected UDP sockets.
fn tunnel(engine: &mut Engine, topology: &mut Topology, hub: i32) -> (Vec<(usize, Queue)>, [Outside; 2]) {
    let sockets = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let mut queues = Vec::new();
    let mut hubs = hub..;
    let outsides = [0, 1].map(|end: usize| {
        sockets[end].connect(addresses[1 - end]).unwrap();
        let options = DatagramOptions::Given(sockets[end].try_clone().unwrap().into());
        let wire = datagram::open(options, &engine.arena()).unwrap().queue;
        let wire =
            Queue { id: engine.queue_id(), rx: wire.rx, tx: wire.tx, counters: Arc::default(), fd: wire.fd };
        let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
        for i in 0..32 {
            // Runs of one length, and others.
            outside.used.push(vec![7; if i % 8 == 0 { 1500 } else { 60 }]).unwrap();
        }
        while outside.spare.push(Vec::with_capacity(2048)).is_ok() {}
        let hub = hubs.next().unwrap();
        for queue in [queue, wire] {
            join(topology, &queue, 0, hub);
            queues.push((0, queue));
        }
        outside
    });
    (queues, outsides)
}

/// Two ports with a stream connection between them, each end on a worker: queues with their workers.
fn stretch(
    engine: &mut Engine,
    topology: &mut Topology,
    hub: i32,
    workers: usize,
) -> (Vec<(usize, Queue)>, [Outside; 2]) {
    let wake: Arc<OwnedFd> = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into());
    let (near, far) = UnixStream::pair().unwrap();
    let mut queues = Vec::new();
    let mut outsides = Vec::new();
    for (n, socket) in [near, far].into_iter().enumerate() {
        let stream = stream::open(socket.into(), &wake, &engine.arena()).unwrap();
        let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
        let stream =
            Queue { id: engine.queue_id(), rx: stream.rx, tx: stream.tx, counters: Arc::default(), fd: -1 };
        for i in 0..32 {
            // Some are copied, some are named.
            outside.used.push(vec![n as u8; if i % 4 == 0 { 5000 } else { 60 }]).unwrap();
        }
        while outside.spare.push(Vec::with_capacity(8192)).is_ok() {}
        let worker = n % workers;
        for queue in [queue, stream] {
            join(topology, &queue, worker, hub + n as i32);
            queues.push((worker, queue));
        }
        outsides.push(outside);
    }
    (queues, outsides.try_into().ok().unwrap())
}

#[test]
fn a_turn_allocates_and_frees_nothing() {
    let cores: Vec<usize> = engine::worker::place::allowed().into_iter().take(2).collect();
    let workers = cores.len();
    let mut engine = Engine::start(&Config { cores, yield_empty: true, ..Config::default() }).unwrap();
    let mut topology = Topology::default();
    let mut outsides = Vec::new();
    let mut queues = Vec::new();
    // Ports 0 and 1: a pair on one worker. 2 and 3: a pair across workers. 4, 5, 6: a hub on both workers.
    for (n, (worker, hub)) in [(0, 0), (0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 2)].into_iter().enumerate()
    {
        let worker = worker % workers;
        let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
        for _ in 0..32 {
            outside.used.push(vec![n as u8; 60]).unwrap();
        }
        while outside.spare.push(Vec::with_capacity(2048)).is_ok() {}
        join(&mut topology, &queue, worker, hub);
        queues.push((worker, queue));
        outsides.push(outside);
    }
    // Rings of both formats, the two sides on different workers.
    let mut lines = Vec::new();
    for (hub, features) in [(10, WANTED & !F_RING_PACKED), (20, WANTED | F_RING_PACKED)] {
        let (more, outsides) = line(&mut engine, &mut topology, hub, features, [2, 4], workers);
        queues.extend(more);
        lines.push(outsides);
    }
    let (more, tunnel) = tunnel(&mut engine, &mut topology, 40);
    queues.extend(more);
    let (more, mut kernels, beside) = wire(&mut engine, &mut topology, 30);
    queues.extend(more);
    let (more, streams) = stretch(&mut engine, &mut topology, 50, workers);
    queues.extend(more);
    // A switch on both workers, whose last port is a trunk: tags are put on and taken off.
    let mut switch = Vec::new();
    for n in 0..3u8 {
        let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
        for _ in 0..32 {
            outside.used.push(switched(n)).unwrap();
        }
        while outside.spare.push(Vec::with_capacity(2048)).is_ok() {}
        let mut rules = SwitchPort::access(u16::from(n != 2));
        if n == 2 {
            rules.tagged.add(1);
        }
        let worker = usize::from(n) % workers;
        join_to(&mut topology, &queue, worker, ClientKind::SwitchPort { switch: 1, port: Box::new(rules) });
        queues.push((worker, queue));
        switch.push(outside);
    }
    let mut chain = filters::Chain::new(&mut engine, &mut topology, 60, workers, &mut queues);
    drop(engine.commit(&topology, Attachments { queues, filters: chain.instances() }).unwrap());
    for (slot, tid) in WORKERS.iter().zip(threads("netdevd/w")) {
        slot.store(tid, Ordering::Relaxed);
    }
    let o: Vec<&Outside> = outsides.iter().collect();
    pump(o[0], &[o[1]], 100);
    chain.greet();

    ARMED.store(true, Ordering::Relaxed);
    pump(o[0], &[o[1]], 1_000);
    pump(o[2], &[o[3]], 1_000);
    pump(o[4], &[o[5], o[6]], 500);
    let s: Vec<&Outside> = switch.iter().collect();
    pump(s[0], &[s[1], s[2]], 500);
    pump(s[1], &[s[0]], 1_000);
    pump(s[2], &[s[0]], 1_000);
    for [near, far] in lines.iter().chain([&streams]) {
        pump(near, &[far], 1_000);
        pump(far, &[near], 1_000);
    }
    carry(&mut kernels, &beside, 3_000);
    pump(&tunnel[0], &[&tunnel[1]], 3_000);
    pump(&tunnel[1], &[&tunnel[0]], 3_000);
    chain.carry();
    chain.change(&mut engine, &mut topology);
    chain.carry();
    let removed = chain.remove(&mut engine, &mut topology);
    ARMED.store(false, Ordering::Relaxed);
    drop(removed);
    assert_eq!(COUNT.load(Ordering::Relaxed), 0, "allocations and releases on worker threads");
    chain.worked();
}
