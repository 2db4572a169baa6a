use super::{Change, ClientId, Direction, FilterOptions, Insert, Kind, Net, NetError, Netdev, QueueRef};
use engine::topology::model::{ClientKind, HUB_BACKLOG};
use proptest::prelude::*;
use serde_json::Map;

fn tap(queues: u64) -> Netdev {
    let queues = (0..queues).map(|id| QueueRef { id, worker: 0 }).collect();
    Netdev { driver: "tap", queues, info: Vec::new(), connected: true }
}

fn add_tap(net: &mut Net, name: &str, queues: u64) -> ClientId {
    net.add_netdev(name, tap(queues), true, Map::new()).unwrap()
}

fn add_port(net: &mut Net, name: &str, hub: i32, netdev: Option<&str>) -> Result<Change, NetError> {
    net.add_hubport(name, hub, netdev, true, Map::new()).map(|(_, change)| change)
}

fn filter(netdev: &str, position: &str, insert: Insert) -> FilterOptions {
    FilterOptions {
        netdev: netdev.into(),
        queue: Direction::All,
        on: true,
        position: position.into(),
        insert,
    }
}

fn add_filter(net: &mut Net, name: &str, netdev: &str, position: &str) -> Result<(), NetError> {
    let options = filter(netdev, position, Insert::Behind);
    let place = net.place(&options)?;
    net.insert_filter(name, "filter-dump", place, options, Map::new()).unwrap();
    Ok(())
}

fn chain(net: &Net, client: &str) -> Vec<String> {
    let client = net.netdev(client).unwrap();
    client.filters.iter().map(|id| net.filter(*id).unwrap().name.clone()).collect()
}

#[test]
fn a_hub_is_made_by_its_first_port_and_stays() {
    let mut net = Net::new();
    assert_eq!(add_port(&mut net, "h1", -5, None), Ok(Change::Nothing));
    assert_eq!(add_port(&mut net, "h2", 7, None), Ok(Change::Nothing));
    assert!(net.remove("h1").is_ok());
    let hubs: Vec<(i32, usize)> = net.hubs().map(|h| (h.number, h.ports.len())).collect();
    assert_eq!(hubs, [(7, 1), (-5, 0)]);
}

#[test]
fn a_port_without_peer_needs_no_plan_until_frames_can_enter_its_hub() {
    let mut net = Net::new();
    assert_eq!(add_port(&mut net, "h1", 1, None), Ok(Change::Nothing));
    add_tap(&mut net, "t", 1);
    assert_eq!(add_port(&mut net, "h2", 1, Some("t")), Ok(Change::Plan));
    assert_eq!(add_port(&mut net, "h3", 1, None), Ok(Change::Plan));
    assert_eq!(net.remove("h3").unwrap().change, Change::Plan);
    assert_eq!(net.remove("h2").unwrap().change, Change::Plan);
    assert_eq!(net.remove("h1").unwrap().change, Change::Nothing);
}

#[test]
fn peers_are_refused_in_words() {
    let mut net = Net::new();
    let generic = |text: &str| Err(NetError::Generic(text.into()));
    assert_eq!(add_port(&mut net, "h1", 1, Some("nope")), generic("netdev 'nope' not found"));
    assert_eq!(net.hubs().count(), 0);
    add_tap(&mut net, "t", 1);
    assert!(add_port(&mut net, "h1", 1, Some("t")).is_ok());
    assert_eq!(add_port(&mut net, "h2", 1, Some("t")), generic("netdev 't' is already in use"));
    assert_eq!(add_port(&mut net, "h2", 1, Some("h1")), generic("netdev 'h1' is already in use"));
    assert_eq!(add_port(&mut net, "t", 1, None), generic("Duplicate ID 't'"));
    assert_eq!(net.remove("nope").unwrap_err(), NetError::NotFound("nope".into()));
    assert!(add_port(&mut net, "h3", 2, None).is_ok());
    assert!(add_port(&mut net, "h4", 1, Some("h3")).is_ok());
}

#[test]
fn a_reserved_name_is_taken_but_not_there() {
    let mut net = Net::new();
    net.reserve("t").unwrap();
    assert_eq!(net.reserve("t"), Err(NetError::Generic("Duplicate ID 't'".into())));
    assert!(net.netdev("t").is_none());
    net.unreserve("t");
    add_tap(&mut net, "t", 1);
}

#[test]
fn a_link_follows_to_a_nic_only_and_never_back() {
    let mut net = Net::new();
    add_tap(&mut net, "t", 2);
    let nic = Netdev { driver: "nic", queues: Vec::new(), info: Vec::new(), connected: true };
    net.add_nic("n", nic, Some("t"), Map::new()).unwrap();
    let up = |net: &Net, name: &str| net.named(name).next().unwrap().link_up;
    assert_eq!(net.set_link("n", false), Ok(true));
    assert!(up(&net, "t") && !up(&net, "n"));
    assert_eq!(net.set_link("n", true), Ok(true));
    assert_eq!(net.set_link("t", false), Ok(true));
    assert!(!up(&net, "t") && !up(&net, "n"));
    assert_eq!(net.set_link("n", true), Ok(true));
    assert!(!up(&net, "t") && up(&net, "n"));
    assert_eq!(net.set_link("n", true), Ok(false));
    assert_eq!(net.set_link("x", true), Err(NetError::NotFound("x".into())));

    add_tap(&mut net, "u", 1);
    assert!(add_port(&mut net, "h", 1, Some("u")).is_ok());
    net.set_link("u", false).unwrap();
    assert!(up(&net, "h"));
}

#[test]
fn a_nic_loses_its_link_with_its_netdev_and_may_share_the_name() {
    let mut net = Net::new();
    add_tap(&mut net, "t", 1);
    let nic = Netdev { driver: "nic", queues: Vec::new(), info: Vec::new(), connected: true };
    net.add_nic("t", nic, Some("t"), Map::new()).unwrap();
    assert_eq!(net.named("t").count(), 2);
    net.remove("t").unwrap();
    let nic = net.named("t").next().unwrap();
    assert!(nic.is_nic() && !nic.link_up && nic.peer.is_none());
    assert!(net.netdev("t").is_none());
    add_tap(&mut net, "t", 1);
    assert!(net.netdev("t").unwrap().peer.is_none());
}

#[test]
fn filters_keep_the_order_that_was_asked_for() {
    let mut net = Net::new();
    add_tap(&mut net, "t", 1);
    add_tap(&mut net, "u", 1);
    add_filter(&mut net, "f1", "t", "tail").unwrap();
    add_filter(&mut net, "f2", "t", "tail").unwrap();
    add_filter(&mut net, "f3", "t", "head").unwrap();
    add_filter(&mut net, "f4", "t", "id=f1").unwrap();
    let before = filter("t", "id=f1", Insert::Before);
    let place = net.place(&before).unwrap();
    net.insert_filter("f5", "filter-dump", place, before, Map::new()).unwrap();
    assert_eq!(chain(&net, "t"), ["f3", "f5", "f1", "f4", "f2"]);
    net.remove_filter("f1").unwrap();
    assert_eq!(chain(&net, "t"), ["f3", "f5", "f4", "f2"]);

    let refused = |net: &mut Net, netdev: &str, position: &str| match add_filter(net, "x", netdev, position) {
        Err(NetError::Generic(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut net, "nope", "zz"), "Parameter 'netdev' expects a network backend id");
    assert_eq!(refused(&mut net, "t", "zz"), "Parameter 'position' expects 'head', 'tail' or 'id=<id>'");
    assert_eq!(refused(&mut net, "t", "id=t"), "filter 't' not found");
    assert_eq!(refused(&mut net, "u", "id=f2"), "filter 'f2' belongs to a different netdev");
    add_tap(&mut net, "m", 2);
    add_filter(&mut net, "q", "m", "tail").expect("several queues are no hindrance");

    let removed = net.remove("t").unwrap();
    assert_eq!(removed.filters.len(), 4);
    assert!(net.filter_named("f2").is_none());
}

#[test]
fn the_engine_is_told_of_links_peers_hubs_and_filter_directions() {
    let mut net = Net::new();
    add_tap(&mut net, "t", 2);
    assert!(add_port(&mut net, "h", 3, Some("t")).is_ok());
    net.set_link("h", false).unwrap();
    add_filter(&mut net, "f", "h", "tail").unwrap();
    net.filter_mut("f").unwrap().options.queue = Direction::Rx;
    let topology = net.topology();
    let [tap, port] = &topology.clients[..] else { panic!() };
    assert!(matches!(&tap.kind, ClientKind::Port { queues } if queues.len() == 2));
    assert_eq!(port.kind, ClientKind::HubPort { hub: 3, backlog: HUB_BACKLOG });
    assert_eq!((tap.peer, port.peer), (Some(port.id), Some(tap.id)));
    assert!(tap.link_up && !port.link_up);
    assert!(port.filters[0].rx && !port.filters[0].tx);
    net.filter_mut("f").unwrap().options.on = false;
    let off = &net.topology().clients[1].filters[0].clone();
    assert!(!off.rx && !off.tx);
}

#[test]
fn taps_pad_on_the_way_to_a_hub_unless_a_passt_is_on_it() {
    let mut net = Net::new();
    add_tap(&mut net, "t", 1);
    add_tap(&mut net, "alone", 1);
    assert!(add_port(&mut net, "h0", 0, Some("t")).is_ok());
    let pads =
        |net: &Net| net.topology().clients.iter().map(|client| client.pads).take(2).collect::<Vec<_>>();
    assert_eq!(pads(&net), [true, false]);
    net.add_netdev("p", Netdev { driver: "passt", ..tap(1) }, true, Map::new()).unwrap();
    assert_eq!(pads(&net), [true, false]);
    assert!(add_port(&mut net, "h1", 0, Some("p")).is_ok());
    assert_eq!(pads(&net), [false, false]);
    net.remove("p").unwrap();
    assert_eq!(pads(&net), [true, false]);
}

/// One command out of a small world of names, so that they meet.
#[derive(Debug, Clone)]
enum Op {
    Tap(u8),
    Nic(u8, u8),
    Port(u8, i32, Option<u8>),
    Remove(u8),
    Link(u8, bool),
    Filter(u8, u8, u8),
    DropFilter(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..6u8;
    prop_oneof![
        name().prop_map(Op::Tap),
        (name(), name()).prop_map(|(a, b)| Op::Nic(a, b)),
        (name(), 0..3i32, proptest::option::of(name())).prop_map(|(a, h, b)| Op::Port(a, h, b)),
        name().prop_map(Op::Remove),
        (name(), any::<bool>()).prop_map(|(a, up)| Op::Link(a, up)),
        (name(), name(), name()).prop_map(|(a, b, c)| Op::Filter(a, b, c)),
        name().prop_map(Op::DropFilter),
    ]
}

/// Runs an operation as the commands do; a refusal is as good as a success.
fn run(net: &mut Net, op: &Op) {
    let name = |n: u8| format!("n{n}");
    match op {
        Op::Tap(n) => drop(net.add_netdev(&name(*n), tap(1), true, Map::new())),
        Op::Nic(n, peer) => {
            let nic = Netdev { driver: "nic", queues: Vec::new(), info: Vec::new(), connected: true };
            drop(net.add_nic(&format!("nic{n}"), nic, Some(&name(*peer)), Map::new()));
        }
        Op::Port(n, hub, peer) => drop(add_port(net, &name(*n), *hub, peer.map(name).as_deref())),
        Op::Remove(n) => drop(net.remove(&name(*n))),
        Op::Link(n, up) => drop(net.set_link(&name(*n), *up)),
        Op::Filter(n, netdev, other) => {
            let position = if other % 2 == 0 { "head".to_owned() } else { format!("id=f{other}") };
            if net.filter_named(&format!("f{n}")).is_none() {
                drop(add_filter(net, &format!("f{n}"), &name(*netdev), &position));
            }
        }
        Op::DropFilter(n) => drop(net.remove_filter(&format!("f{n}"))),
    }
}

fn check(net: &Net) {
    for client in net.clients() {
        if let Some(peer) = client.peer {
            let peer = net.client(peer).expect("a peer exists");
            assert_eq!(peer.peer, Some(client.id), "peers are symmetric");
            let queues = |c: &super::Client| !matches!(c.kind, Kind::HubPort { .. });
            let both_netdevs = queues(client) && queues(peer) && !client.is_nic() && !peer.is_nic();
            assert!(!both_netdevs, "two netdevs never peer");
        }
        assert!(net.named(&client.name).any(|c| c.id == client.id), "a client is found by its name");
        if let Kind::HubPort { hub } = client.kind {
            assert!(net.hub(hub).unwrap().ports.contains(&client.id), "a hub knows its ports");
        }
        for id in &client.filters {
            assert_eq!(net.filter(*id).unwrap().client, client.id, "a chain holds its own filters");
        }
    }
    for filter in net.filters() {
        assert!(net.client(filter.client).unwrap().filters.contains(&filter.id), "a filter is in its chain");
        assert_eq!(net.filter_named(&filter.name).unwrap().id, filter.id);
    }
    for hub in net.hubs() {
        let joined = hub.ports.iter().filter(|id| net.client(**id).unwrap().peer.is_some()).count();
        assert_eq!(hub.joined(), joined, "a hub counts its joined ports");
    }
    let ids: Vec<ClientId> = net.topology().clients.iter().map(|c| c.id).collect();
    assert!(ids.is_sorted(), "the engine gets clients in creation order");
}

proptest! {
    #[test]
    fn any_commands_leave_a_whole_network(ops in proptest::collection::vec(op(), 1..60)) {
        let mut net = Net::new();
        for op in &ops {
            run(&mut net, op);
            check(&net);
        }
        let names: Vec<String> = net.clients().filter(|c| !c.is_nic()).map(|c| c.name.clone()).collect();
        for name in names {
            net.remove(&name).unwrap();
            check(&net);
        }
        prop_assert!(net.clients().all(|c| c.is_nic() && c.peer.is_none()));
        prop_assert_eq!(net.filters().count(), 0);
    }
}
