//! Every kind of filter on the way of frames: they pass, are copied, held, changed, taken away and put in again, while settings and expressions change.

use super::{join, pump};
use engine::filter::bpf;
use engine::filter::buffer::Buffer;
use engine::filter::dump::DumpFile;
use engine::filter::limit::{Limit, Limits};
use engine::filter::matching::{self, Action};
use engine::filter::mirror::{Mirror, MirrorOptions, Outdev};
use engine::filter::rewriter::Rewriter;
use engine::filter::{Filter, Handle, Settings};
use engine::port::testing::{Outside, port};
use engine::port::{Caps, Queue};
use engine::topology::model::{ClientId, FilterId, FilterUse, Topology};
use engine::{Attachments, Engine, Retired};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP segment between a client (10.0.0.1:4000) and a guest (10.0.0.2:80), 64 bytes.
fn segment(to_guest: bool, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let (ends, ports) = if to_guest { ([1, 2], [4000, 80]) } else { ([2, 1], [80, 4000u16]) };
    let mut f = vec![2, 0, 0, 0, 0, ends[1], 2, 0, 0, 0, 0, ends[0], 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6];
    f.extend([0, 0, 10, 0, 0, ends[0], 10, 0, 0, ends[1]]);
    ports.iter().for_each(|port| f.extend(port.to_be_bytes()));
    f.extend(seq.to_be_bytes());
    f.extend(ack.to_be_bytes());
    f.extend([0x50, flags, 255, 255, 0, 0, 0, 0]);
    f.resize(64, 7);
    f
}

/// A filter in force.
struct Held {
    id: FilterId,
    name: &'static str,
    handle: Box<dyn Handle>,
}

/// Two pairs of ports. The netdev of the first one has a chain of everything that lets frames go on; that of the second gives them away to a chardev, from
/// which its peer puts them in.
pub(super) struct Chain {
    ends: [Outside; 2],
    apart: [Outside; 2],
    held: Vec<Held>,
    instances: Vec<(FilterId, Vec<Box<dyn Filter>>)>,
    /// Nobody reads what is mirrored: it costs copies only.
    _unread: UnixStream,
    _file: tempfile::TempDir,
}

fn settings() -> Settings {
    Settings::new(true, true, true)
}

impl Chain {
    pub(super) fn new(
        engine: &mut Engine,
        topology: &mut Topology,
        hub: i32,
        workers: usize,
        queues: &mut Vec<(usize, Queue)>,
    ) -> Self {
        let mut clients = Vec::new();
        let mut outsides = Vec::new();
        // The ends of a pair are on different workers, and behind a hub each: what a filter puts in crosses.
        for (n, hub) in [hub, hub, hub + 1, hub + 2].into_iter().enumerate() {
            let (queue, outside) = port(engine.queue_id(), 64, Caps::NONE);
            while outside.spare.push(Vec::with_capacity(2048)).is_ok() {}
            join(topology, &queue, n % workers, hub);
            clients.push(ClientId(queue.id.0 * 2));
            queues.push((n % workers, queue));
            outsides.push(outside);
        }
        let [a, b, c, d] = outsides.try_into().unwrap_or_else(|_| unreachable!("four ends"));
        // The secondary's numbers begin 4,000 before the primary's, which the client knows.
        let data = |seq| segment(true, ACK, seq, 5001 + 4000);
        let _ = a.used.push(segment(true, SYN, 1000, 0));
        (0..31u32).for_each(|i| drop(a.used.push(data(1001 + i))));
        let _ = b.used.push(segment(false, SYN | ACK, 5000, 1001));
        (0..31u32).for_each(|i| drop(b.used.push(segment(false, ACK, 5001 + i, 1001))));
        (0..32).for_each(|_| drop(c.used.push(data(1))));

        let (ours, unread) = UnixStream::pair().unwrap();
        let file = tempfile::tempdir().unwrap();
        let mut chain = Self {
            ends: [a, b],
            apart: [c, d],
            held: Vec::new(),
            instances: Vec::new(),
            _unread: unread,
            _file: file,
        };
        let arena = engine.arena();
        let options = |steals, indev, outdev| MirrorOptions {
            steals,
            indev,
            outdev,
            vnet: true,
            on: true,
            rx: true,
            tx: !indev,
        };
        let wakers = engine.wakers();
        let mut mirror =
            |client: usize, steals, indev, outdev, property: &'static str, socket: UnixStream, name| {
                socket.set_nonblocking(true).unwrap();
                let home = client % workers;
                let waker = wakers.get(home).cloned();
                let made = Mirror::open(&options(steals, indev, outdev), &arena, workers, home, waker);
                let (handle, instances) = made.unwrap();
                handle.link(property).unwrap().connect(socket.into());
                chain.add(topology, clients[client], name, handle, instances);
            };
        mirror(0, false, false, Some(Outdev::Stream), "outdev", ours, "mirror");
        let (from, to) = UnixStream::pair().unwrap();
        mirror(2, true, false, Some(Outdev::Stream), "outdev", from, "redirector away");
        mirror(3, true, true, None, "indev", to, "redirector in");
        let path = chain._file.path().join("capture");
        let (dump, instances) = DumpFile::open(&path, 65536, None, 0, workers).unwrap();
        chain.add(topology, clients[0], "dump", dump, instances);
        if let Ok(program) = bpf::compile("udp") {
            let (matching, instances) = matching::open(program, Action::Drop, workers);
            chain.add(topology, clients[0], "match", matching, instances);
        }
        let (buffer, instances) = Buffer::open(settings(), 300, &arena, workers).unwrap();
        chain.add(topology, clients[0], "buffer", buffer, instances);
        let limits = Limits { bps: 1_000_000, queue: 1000, ..Limits::default() };
        let (limit, instances) = Limit::open(settings(), limits, &arena, workers).unwrap();
        chain.add(topology, clients[0], "limit", limit, instances);
        let (rewriter, instances) = Rewriter::open(settings(), &arena, workers).unwrap();
        chain.add(topology, clients[0], "rewriter", rewriter, instances);
        chain
    }

    fn add(
        &mut self,
        topology: &mut Topology,
        client: ClientId,
        name: &'static str,
        handle: impl Handle + 'static,
        instances: Vec<Box<dyn Filter>>,
    ) {
        let id = FilterId(self.held.len() as u64);
        let client = topology.clients.iter_mut().find(|c| c.id == client).unwrap();
        client.filters.push(FilterUse { id, rx: true, tx: true });
        self.held.push(Held { id, name, handle: Box::new(handle) });
        self.instances.push((id, instances));
    }

    /// For the commit that puts them in force.
    pub(super) fn instances(&mut self) -> Vec<(FilterId, Vec<Box<dyn Filter>>)> {
        std::mem::take(&mut self.instances)
    }

    /// The beginning of a connection, one segment after the other.
    pub(super) fn greet(&self) {
        let [a, b] = &self.ends;
        pump(a, &[b], 1);
        pump(b, &[a], 1);
        pump(a, &[b], 1);
    }

    /// Frames both ways through all filters, and by way of the chardev.
    pub(super) fn carry(&self) {
        let [a, b] = &self.ends;
        pump(a, &[b], 1_000);
        pump(b, &[a], 1_000);
        pump(&self.apart[0], &[&self.apart[1]], 1_000);
    }

    /// Settings and an expression change, and some filters are off and on again, each in force before the next.
    pub(super) fn change(&self, engine: &mut Engine, topology: &mut Topology) {
        for held in &self.held {
            held.handle.tune("interval", 200);
            held.handle.tune("bps", 2_000_000);
            if held.name == "match" {
                held.handle.select(bpf::compile("udp dst port 53").ok());
            }
            for on in [false, true] {
                if held.name != "redirector away" && held.name != "redirector in" {
                    held.handle.set(on, true, true);
                }
                let uses = topology.clients.iter_mut().flat_map(|c| &mut c.filters);
                // What holds nothing is not shown frames while it is off; the others know by themselves.
                uses.filter(|f| f.id == held.id && ["dump", "match"].contains(&held.name))
                    .for_each(|f| (f.rx, f.tx) = (on, on));
                drop(engine.commit(topology, Attachments::default()).unwrap());
                pump(&self.ends[0], &[&self.ends[1]], 50);
            }
        }
    }

    /// Takes them out, once they hold nothing.
    pub(super) fn remove(&self, engine: &mut Engine, topology: &mut Topology) -> Retired {
        let holds = || self.held.iter().any(|held| held.handle.held() != 0);
        while holds() {
            std::thread::yield_now();
        }
        topology.clients.iter_mut().for_each(|client| client.filters.clear());
        let retired = engine.commit(topology, Attachments::default()).unwrap();
        pump(&self.ends[0], &[&self.ends[1]], 100);
        retired
    }

    /// Each has done what it is for.
    pub(super) fn worked(&self) {
        for held in &self.held {
            let counters = held.handle.counters();
            let count = |name: &str| counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
            let done = match held.name {
                "mirror" | "redirector away" => count("sent"),
                "redirector in" => count("injected"),
                "dump" => count("captured"),
                "match" => count("seen"),
                "rewriter" => count("rewritten"),
                _ => count("released"),
            };
            // Of what is mirrored a socket that nobody reads takes the first only.
            let least = if held.name == "mirror" { 50 } else { 500 };
            assert!(done > least, "{}: {counters:?}", held.name);
            held.handle.finish(Duration::from_secs(5));
        }
    }
}
