//! A worker's turn allocates nothing: counted by the global allocator, on the worker's own thread, under traffic over
//! pairs, floods and links between workers.

use engine::port::testing::{Outside, port};
use engine::port::{Caps, Queue};
use engine::topology::model::{Client, ClientId, ClientKind, HUB_BACKLOG, QueueRef, Topology};
use engine::wire::vnet_hdr::VnetHdr;
use engine::{Attachments, Config, Engine};
use std::alloc::{GlobalAlloc, Layout, System};
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
    let id = queue.id.0;
    let (a, b) = (ClientId(id * 2), ClientId(id * 2 + 1));
    let client = |id, kind, peer| Client {
        id,
        kind,
        link_up: true,
        connected: true,
        peer: Some(peer),
        filters: vec![],
    };
    topology.clients.push(client(a, ClientKind::Port { queues: vec![QueueRef { id, worker }] }, b));
    topology.clients.push(client(b, ClientKind::HubPort { hub, backlog: HUB_BACKLOG }, a));
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
    drop(engine.commit(&topology, Attachments { queues, filters: vec![] }).unwrap());
    for (slot, tid) in WORKERS.iter().zip(threads("netdevd/w")) {
        slot.store(tid, Ordering::Relaxed);
    }
    let o: Vec<&Outside> = outsides.iter().collect();
    pump(o[0], &[o[1]], 100);

    ARMED.store(true, Ordering::Relaxed);
    pump(o[0], &[o[1]], 1_000);
    pump(o[2], &[o[3]], 1_000);
    pump(o[4], &[o[5], o[6]], 500);
    ARMED.store(false, Ordering::Relaxed);
    assert_eq!(COUNT.load(Ordering::Relaxed), 0, "allocations and releases on worker threads");
}
