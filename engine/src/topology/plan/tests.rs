use super::super::model::{FilterUse, HUB_BACKLOG};
use super::super::switch::{Mirror, SwitchPort};
use super::*;
use std::collections::VecDeque;

/// A world of ports (odd ids) each joined to a hub port (id + 1) of `hub`.
fn hub_world(n: u64, hub: i32) -> (Topology, Slots) {
    let mut t = Topology::default();
    let mut slots = Slots::default();
    for i in 0..n {
        let (port, hubport) = (ClientId(i * 2 + 1), ClientId(i * 2 + 2));
        let queues = vec![QueueRef { id: i, worker: 0 }];
        t.clients.push(client(port, ClientKind::Port { queues }, Some(hubport)));
        t.clients.push(client(hubport, ClientKind::HubPort { hub, backlog: HUB_BACKLOG }, Some(port)));
        slots.queues.insert(i, i as u32);
    }
    (t, slots)
}

fn client(id: ClientId, kind: ClientKind, peer: Option<ClientId>) -> Client {
    Client { id, kind, link_up: true, connected: true, pads: false, peer, filters: Vec::new() }
}

fn entry(plan: &Plan, slot: usize) -> Entry {
    plan.workers[0].sources[slot].unwrap()
}

/// All ends of a queue's way in the order of the walk, with loops as such.
fn ends(plan: &Plan, slot: usize) -> Vec<(Hop, ClientId)> {
    let part = &plan.workers[0];
    let mut todo = VecDeque::from([entry(plan, slot).node]);
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    while let Some(n) = todo.pop_front() {
        let node = part.nodes[n as usize];
        match node.hop {
            Hop::Hub { hub, .. } if seen.contains(&hub) => {
                out.push((Hop::Discard(Discard::Loop), node.client));
            }
            Hop::Hub { hub, except } => {
                seen.push(hub);
                let Legs { first, count } = part.hubs[hub as usize];
                todo.extend((first..first + count).filter(|l| *l != except));
            }
            end => out.push((end, node.client)),
        }
    }
    out
}

#[test]
fn two_ports_on_a_hub_are_a_pair() {
    let (t, slots) = hub_world(2, 0);
    let plan = build(&t, &slots, 1);
    assert_eq!(entry(&plan, 0).only.map(|o| o.0), Some(Target { worker: 0, slot: 1, queue: 1 }));
    assert!(!entry(&plan, 0).filtered);
}

#[test]
fn short_frames_are_padded_on_the_way_to_a_hub_alone() {
    let (mut t, slots) = hub_world(2, 0);
    t.clients[0].pads = true;
    let plan = build(&t, &slots, 1);
    assert_eq!([0, 1].map(|slot| entry(&plan, slot).pads), [true, false]);
    (t.clients[0].peer, t.clients[2].peer) = (Some(ClientId(3)), Some(ClientId(1)));
    assert!(!entry(&build(&t, &slots, 1), 0).pads, "two ports without a hub");
}

#[test]
fn a_hub_floods_newest_port_first_and_never_back() {
    let (t, slots) = hub_world(3, 7);
    let plan = build(&t, &slots, 1);
    let to = |queue| Hop::Port(Target { worker: 0, slot: queue as u32, queue });
    let ports = |slot| ends(&plan, slot).into_iter().map(|e| e.0).collect::<Vec<_>>();
    assert_eq!(ports(0), vec![to(2), to(1)]);
    assert_eq!(ports(2), vec![to(1), to(0)]);
    assert_eq!(entry(&plan, 0).legs, 2);
    assert_eq!(entry(&plan, 0).only, None);
}

#[test]
fn hubs_joined_in_a_ring_deliver_once_and_drop_the_loop() {
    let (mut t, slots) = hub_world(2, 0);
    // The second port moves to hub 1; hubs 0 and 1 are joined by two cables.
    t.clients[3].kind = ClientKind::HubPort { hub: 1, backlog: HUB_BACKLOG };
    for cable in 0..2 {
        let (a, b) = (ClientId(100 + cable * 2), ClientId(101 + cable * 2));
        t.clients.push(client(a, ClientKind::HubPort { hub: 0, backlog: HUB_BACKLOG }, Some(b)));
        t.clients.push(client(b, ClientKind::HubPort { hub: 1, backlog: HUB_BACKLOG }, Some(a)));
    }
    let plan = build(&t, &slots, 1);
    let all = ends(&plan, 0);
    let ports = all.iter().filter(|h| matches!(h.0, Hop::Port(_))).count();
    assert_eq!(ports, 1, "a frame enters a hub once: {all:?}");
    assert!(all.iter().any(|h| h.0 == Hop::Discard(Discard::Loop)));
    let e = entry(&plan, 0);
    assert!(e.only.is_some() && !e.direct, "a pair that also drops loops");
}

#[test]
fn a_way_ends_by_name_where_nothing_can_arrive() {
    let (mut t, slots) = hub_world(3, 0);
    t.clients[2].link_up = false;
    t.clients[4].connected = false;
    let plan = build(&t, &slots, 1);
    let why = |w| (Hop::Discard(w), ClientId(if w == Discard::LinkDown { 3 } else { 5 }));
    assert_eq!(ends(&plan, 0), vec![why(Discard::NotConnected), why(Discard::LinkDown)]);
    t.clients[0].link_up = false;
    let plan = build(&t, &slots, 1);
    assert_eq!(ends(&plan, 0), vec![(Hop::Discard(Discard::LinkDown), ClientId(1))]);
    t.clients[0].link_up = true;
    t.clients[0].peer = None;
    let plan = build(&t, &slots, 1);
    assert_eq!(ends(&plan, 0), vec![(Hop::Discard(Discard::NoPeer), ClientId(1))]);
}

#[test]
fn sent_frames_walk_filters_forward_and_received_ones_backward() {
    let (mut t, mut slots) = hub_world(2, 0);
    for i in 0..3 {
        slots.filters.insert(FilterId(i), i as u32);
    }
    let chain =
        |ids: &[u64]| ids.iter().map(|i| FilterUse { id: FilterId(*i), rx: true, tx: true }).collect();
    t.clients[0].filters = chain(&[0, 1]);
    t.clients[1].filters = chain(&[2]);
    let plan = build(&t, &slots, 1);
    let order = |slot| {
        let part = &plan.workers[0];
        let mut all = Vec::new();
        let mut todo = vec![entry(&plan, slot).node];
        while let Some(n) = todo.pop() {
            let node = part.nodes[n as usize];
            let range = node.step as usize..(node.step + node.steps) as usize;
            all.extend(part.steps[range].iter().map(|s| (s.filter.0, s.toward)));
            if let Hop::Hub { hub, except } = node.hop {
                let Legs { first, count } = part.hubs[hub as usize];
                todo.extend((first..first + count).filter(|l| *l != except));
            }
        }
        all
    };
    assert_eq!(order(0), vec![(0, false), (1, false), (2, true)]);
    assert_eq!(order(1), vec![(2, false), (1, true), (0, true)]);
    assert!(entry(&plan, 0).filtered);
}

#[test]
fn a_source_prefers_the_receivers_queue_on_its_own_worker() {
    let (mut t, mut slots) = hub_world(2, 0);
    t.clients[2].kind =
        ClientKind::Port { queues: vec![QueueRef { id: 1, worker: 1 }, QueueRef { id: 9, worker: 0 }] };
    slots.queues.insert(9, 5);
    let plan = build(&t, &slots, 2);
    assert_eq!(entry(&plan, 0).only.map(|o| o.0), Some(Target { worker: 0, slot: 5, queue: 9 }));
}

#[test]
fn queues_of_peers_are_joined_by_number_also_across_a_hub() {
    let (mut t, mut slots) = hub_world(2, 0);
    let queues = |first: u64| (0..4).map(|i| QueueRef { id: first + i, worker: i as usize % 2 }).collect();
    (t.clients[0].kind, t.clients[2].kind) =
        (ClientKind::Port { queues: queues(10) }, ClientKind::Port { queues: queues(20) });
    for i in 0..4 {
        slots.queues.extend([(10 + i, i as u32), (20 + i, 4 + i as u32)]);
    }
    let check = |t: &Topology, to: &dyn Fn(usize) -> u64, why: &str| {
        let plan = build(t, &slots, 2);
        for i in 0..4usize {
            let part = &plan.workers[i % 2];
            let (target, node) = part.sources[i].unwrap().only.unwrap();
            let queue = to(i);
            assert_eq!(target, Target { worker: (i % 2) as u32, slot: queue as u32 - 16, queue }, "{why}");
            assert_eq!(part.nodes[node as usize].hop, Hop::Port(target));
            assert_eq!(part.nodes[node as usize].client, ClientId(3));
        }
    };
    check(&t, &|i| 20 + i as u64, "across a hub");
    let ClientKind::Port { queues } = &mut t.clients[2].kind else { unreachable!() };
    queues.truncate(2);
    check(&t, &|i| 20 + i as u64 % 2, "fewer queues");
    // Without the hub.
    (t.clients[0].peer, t.clients[2].peer) = (Some(ClientId(3)), Some(ClientId(1)));
    check(&t, &|i| 20 + i as u64 % 2, "a pair");
}

/// Adds a port of switch 5 that is joined to the client `peer`.
fn switch_port(t: &mut Topology, slots: &mut Slots, id: u64, peer: u64, rules: SwitchPort) {
    let number = slots.switch_ports.len() as u32;
    slots.switch_ports.insert(ClientId(id), number);
    let kind = ClientKind::SwitchPort { switch: 5, port: Box::new(rules) };
    t.clients.push(client(ClientId(id), kind, Some(ClientId(peer))));
    t.clients.iter_mut().find(|c| c.id == ClientId(peer)).unwrap().peer = Some(ClientId(id));
}

#[test]
fn a_switch_has_a_leg_a_port_and_is_no_pair() {
    let (mut t, mut slots) = hub_world(2, 0);
    for n in 0..2 {
        let queues = vec![QueueRef { id: 10 + n, worker: 0 }];
        t.clients.push(client(ClientId(100 + n), ClientKind::Port { queues }, None));
        slots.queues.insert(10 + n, 10 + n as u32);
        switch_port(&mut t, &mut slots, 200 + n, 100 + n, SwitchPort::access(1));
    }
    let plan = build(&t, &slots, 1);
    let part = &plan.workers[0];
    let from = entry(&plan, 10);
    assert_eq!((from.only, from.legs, from.direct), (None, 2, false), "a switch holds nobody up");
    assert_eq!(part.nodes[from.node as usize].hop, Hop::Switch { switch: 0, port: 0 });
    assert_eq!(part.nodes[from.node as usize].client, ClientId(200), "drops are the port's");
    let legs: Vec<_> =
        part.switches[0].ports.iter().flatten().map(|p| part.nodes[p.node as usize].hop).collect();
    let port = |n: u64| Hop::Port(Target { worker: 0, slot: n as u32, queue: n });
    assert_eq!(legs, [port(10), port(11)]);
    // A hub that leads to it is no pair either.
    t.clients.push(client(ClientId(300), ClientKind::HubPort { hub: 0, backlog: HUB_BACKLOG }, None));
    switch_port(&mut t, &mut slots, 202, 300, SwitchPort::access(1));
    t.clients.retain(|c| c.id != ClientId(1));
    assert_eq!(entry(&build(&t, &slots, 1), 1).only, None);
}

#[test]
fn mirrors_are_known_at_the_ports_that_they_copy() {
    let (mut t, mut slots) = (Topology::default(), Slots::default());
    for (n, mirror) in [(0, None), (1, Some((true, false))), (2, Some((true, true)))] {
        let queues = vec![QueueRef { id: n, worker: 0 }];
        t.clients.push(client(ClientId(100 + n), ClientKind::Port { queues }, None));
        slots.queues.insert(n, n as u32);
        let mirror = mirror.map(|(rx, tx)| Mirror { of: ClientId(200), rx, tx });
        switch_port(&mut t, &mut slots, 200 + n, 100 + n, SwitchPort { mirror, ..SwitchPort::access(1) });
    }
    let plan = build(&t, &slots, 1);
    let port = plan.workers[0].switches[0].port(0).unwrap();
    let sorted = |mut all: Vec<u32>| {
        all.sort_unstable();
        all
    };
    assert_eq!((sorted(port.copies_rx.clone()), sorted(port.copies_tx.clone())), (vec![1, 2], vec![2]));
}
