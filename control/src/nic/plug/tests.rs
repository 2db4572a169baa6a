use super::super::control::Control;
use super::super::features::{MOST_PAIRS, NicProperties};
use super::*;
use crate::apply::fake::{FakeBackends, FakePlane, Log};
use crate::model::Netdev;
use crate::reactor::{Part, Reactor, Token};
use engine::virtq::testing::{Format, Rig};
use nix::sys::eventfd::EventFd;
use serde_json::Map;
use std::rc::Rc;

/// A nic, and what it needs to run.
struct Bench {
    net: Net,
    binding: Binding,
    nic: NicState,
    client: ClientId,
    log: Arc<Log>,
}

impl Bench {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        let plane = Box::new(FakePlane::new(log.clone()));
        let binding = Binding::new(plane, Arc::new(FakeBackends(log.clone()))).unwrap();
        let mut net = Net::new();
        let dev = Netdev { driver: "nic", queues: Vec::new(), info: Vec::new(), connected: false };
        let client = net.add_nic("n0", dev, None, Map::new()).unwrap();
        let reactor = Rc::new(Reactor::new().unwrap());
        let nic = NicState {
            properties: NicProperties::new([2, 0, 0, 0, 0, 1], MOST_PAIRS, &Map::new()),
            accepted: None,
            kept: 0,
            stopped: None,
            pairs: std::iter::repeat_with(QueuePair::default).take(usize::from(MOST_PAIRS)).collect(),
            wake: Arc::new(EventFd::new().unwrap().into()),
            mtu: None,
            rarp: None,
            standby: false,
            waits: None,
            control: Control::new([2, 0, 0, 0, 0, 1], reactor, Token::new(Part::Nic, 0, 0)),
        };
        Self { net, binding, nic, client, log }
    }

    /// Does something with the plug; the commits that it cost.
    fn commits(&mut self, what: impl FnOnce(&mut Plug<'_>)) -> usize {
        let before = self.log.committed();
        let Self { net, binding, nic, client, .. } = self;
        what(&mut Plug { client: *client, nic, net, binding });
        self.log.committed() - before
    }

    fn running(&self) -> usize {
        self.nic.pairs.iter().filter(|pair| pair.runs()).count()
    }
}

fn config() -> RingConfig {
    Rig::new(Format::Split, 8, 0, 64).unwrap().config
}

#[test]
fn many_rings_cost_one_commit_and_few_more_when_they_change() {
    let mut bench = Bench::new();
    let config = config();
    let rings = 128;
    let begin = |plug: &mut Plug<'_>| {
        (0..rings).for_each(|ring| plug.start(ring, config.clone()).unwrap());
        assert_eq!(plug.settle(), Ok(()));
    };
    assert_eq!((bench.commits(begin), bench.running()), (1, 64));
    assert_eq!(bench.commits(|plug| assert_eq!(plug.settle(), Ok(()))), 0);
    // Each ring changes: each pair stops once, and all start together.
    let change = |plug: &mut Plug<'_>| {
        for ring in 0..rings {
            assert_eq!(plug.stop(ring), Some(config.position));
            plug.start(ring, config.clone()).unwrap();
        }
        assert_eq!(plug.settle(), Ok(()));
    };
    assert_eq!((bench.commits(change), bench.running()), (65, 64));
    // All stop, as for another memory table.
    let stop = |plug: &mut Plug<'_>| {
        plug.stop_all();
        (0..rings).for_each(|ring| assert_eq!(plug.stop(ring), Some(config.position)));
        assert_eq!(plug.settle(), Ok(()));
    };
    assert_eq!((bench.commits(stop), bench.running()), (1, 0));
    assert_eq!(bench.commits(begin), 1);
    assert_eq!((bench.commits(|plug| plug.clear()), bench.running()), (1, 0));
}

#[test]
fn a_ring_that_gets_company_stops_for_it() {
    let mut bench = Bench::new();
    let config = config();
    let mut start = |ring| {
        bench.commits(|plug| {
            plug.start(ring, config.clone()).unwrap();
            assert_eq!(plug.settle(), Ok(()));
        })
    };
    assert_eq!((start(0), start(1)), (1, 2));
    assert_eq!(bench.nic.pairs[0].sizes(), [Some(8), Some(8)]);
}

#[test]
fn what_the_engine_refuses_is_said() {
    let mut bench = Bench::new();
    let config = config();
    bench.log.refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    bench.commits(|plug| {
        plug.start(3, config).unwrap();
        assert_eq!(plug.settle(), Err((2, "worker 0 hangs".to_owned())));
    });
    assert_eq!(bench.running(), 0);
    assert!(bench.nic.pairs[64].rings.iter().all(Option::is_none));
    assert!(bench.commits(|plug| assert!(plug.start(256, self::config()).is_err())) == 0);
}

#[test]
fn a_nic_joined_to_a_device_offers_the_offloads_that_it_carries_and_those_that_its_guest_had() {
    let mut bench = Bench::new();
    let all = bench.nic.properties.features;
    assert_ne!(all & NetFeatures::HOST_TSO6, 0);
    let offered = |bench: &mut Bench| {
        let mut bits = 0;
        bench.commits(|plug| bits = plug.features());
        bits
    };
    assert_eq!(offered(&mut bench), all);
    let dev = Netdev { driver: "vhost-vdpa", queues: Vec::new(), info: Vec::new(), connected: true };
    let device = bench.net.add_netdev("v", dev, true, Map::new()).unwrap();
    // MQ and what else the device has are no offloads: the nic's own stay.
    let few = NetFeatures::CSUM | NetFeatures::HOST_TSO4 | NetFeatures::GUEST_CSUM;
    bench.net.client_mut(device).unwrap().carries = Some(few | NetFeatures::MQ);
    assert_eq!(offered(&mut bench), all, "it is not joined to it");
    bench.net.set_peer(bench.client, Some("v")).unwrap();
    assert_eq!(offered(&mut bench), all & !NetFeatures::OFFLOADS | few);
    bench.net.set_peer(bench.client, None).unwrap();
    bench.commits(|plug| plug.set_features(few | NetFeatures::HOST_TSO6));
    bench.net.set_peer(bench.client, Some("v")).unwrap();
    assert_eq!(offered(&mut bench), all & !NetFeatures::OFFLOADS | few | NetFeatures::HOST_TSO6);
}
