use super::*;

/// A station by its last byte.
fn station(n: u8, vlan: u16) -> Station {
    Station::of([2, 0, 0, 0, 0, n], vlan)
}

fn hear(table: &Table, station: Station, port: u32, now: u64) -> Learned {
    let at = table.place(station);
    table.learn(at, station, table.find(at, station), (port, u32::MAX), (now, 10))
}

#[cfg(not(loom))]
mod alone {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn port_of(table: &Table, station: Station) -> Option<u32> {
        table.find(table.place(station), station).map(|found| found.value.port())
    }

    #[test]
    fn an_address_and_a_vlan_fit_one_word() {
        let s = Station::of([0xfe, 1, 2, 3, 4, 5], 4094);
        assert_eq!((s.mac(), s.vlan(), s.is_one()), ([0xfe, 1, 2, 3, 4, 5], 4094, true));
        assert!(!Station::of([0xff; 6], 1).is_one() && !Station::of([0; 6], 1).is_one());
        assert!(!Station::of([1, 0, 0, 0, 0, 0], 1).is_one());
    }

    #[test]
    fn stations_are_known_by_vlan_and_follow_what_is_heard() {
        let table = Table::new(8, 4, 1);
        assert_eq!(hear(&table, station(1, 7), 2, 0), Learned::New);
        assert_eq!(hear(&table, station(1, 7), 2, 1), Learned::Known);
        assert_eq!((port_of(&table, station(1, 7)), port_of(&table, station(1, 8))), (Some(2), None));
        assert_eq!(hear(&table, station(1, 7), 3, 1), Learned::Moved);
        assert_eq!((table.at_port(2), table.at_port(3), table.used()), (0, 1, 1));
    }

    #[test]
    fn a_full_table_keeps_those_it_knows() {
        let table = Table::new(8, 2, 3);
        for n in 0..8 {
            assert_eq!(hear(&table, station(n, 1), 0, 0), Learned::New);
        }
        for n in 8..=255 {
            assert_eq!(hear(&table, station(n, 1), 1, 0), Learned::Full);
        }
        assert!((0..8).all(|n| port_of(&table, station(n, 1)) == Some(0)));
        assert_eq!((table.used(), table.at_port(1)), (8, 0));
    }

    #[test]
    fn a_table_holds_nearly_as_many_as_it_may_however_they_are_numbered() {
        let by_low = |n: u16| [2, 0, 1, 0, (n >> 8) as u8, n as u8];
        let by_high = |n: u16| [2, n as u8, (n >> 8) as u8, 0, 0, 1];
        for seed in [1, 0xdead_beef, u64::MAX / 7] {
            for address in [by_low, by_high] {
                let table = Table::new(8192, 1, seed);
                let refused =
                    (0..8192).filter(|n| hear(&table, Station::of(address(*n), 1), 0, 0) != Learned::New);
                assert!(refused.count() < 8, "{seed}");
            }
        }
    }

    #[test]
    fn a_port_has_no_more_than_it_may() {
        let table = Table::new(64, 2, 3);
        let hear = |n, port| {
            let s = station(n, 1);
            let at = table.place(s);
            table.learn(at, s, table.find(at, s), (port, 2), (0, 10))
        };
        assert_eq!([hear(1, 0), hear(2, 0), hear(3, 0)], [Learned::New, Learned::New, Learned::Limit]);
        // Nor by a station that comes from elsewhere.
        assert_eq!([hear(3, 1), hear(3, 0)], [Learned::New, Learned::Limit]);
        assert_eq!((table.at_port(0), table.at_port(1)), (2, 1));
    }

    #[test]
    fn static_stations_never_move_and_never_age() {
        let table = Table::new(8, 4, 9);
        assert_eq!(hear(&table, station(1, 1), 0, 0), Learned::New);
        assert!(table.fix(station(1, 1), 3, 0) && table.fix(station(2, 1), 3, 0));
        assert_eq!(hear(&table, station(1, 1), 0, 0), Learned::Static);
        assert_eq!(hear(&table, station(1, 1), 3, 0), Learned::Known);
        assert_eq!(table.sweep(0, usize::MAX / 2, 1 << 20, 1).0, 0);
        assert_eq!((port_of(&table, station(1, 1)), table.at_port(0), table.at_port(3)), (Some(3), 0, 2));
        table.remove(|value, _| value.port() == 3 && !value.is_static());
        assert_eq!(table.used(), 2);
        table.remove(|value, _| value.port() == 3);
        assert_eq!((table.used(), table.at_port(3), table.stations().count()), (0, 0, 0));
    }

    #[test]
    fn a_static_station_makes_room_for_itself() {
        let table = Table::new(8, 2, 5);
        for n in 0..=255 {
            hear(&table, station(n, 1), 0, 0);
        }
        for n in 0..4 {
            assert!(table.fix(station(n, 2), 1, 0), "{n}");
        }
        assert_eq!(table.at_port(1), 4);
    }

    #[test]
    fn what_is_old_is_taken_out_in_steps() {
        let table = Table::new(64, 1, 5);
        for n in 0..20 {
            hear(&table, station(n, 1), 0, u64::from(n));
        }
        let (mut from, mut gone) = (0, 0);
        loop {
            let (some, next) = table.sweep(from, 3, 20, 10);
            (gone, from) = (gone + some, next);
            if from == 0 {
                break;
            }
        }
        // 0 to 9 are older than 10.
        assert_eq!((gone, table.used()), (10, 10));
        assert_eq!(table.sweep(0, 1000, 1000, 0), (0, 0), "0: never");
    }

    /// What is done to the table.
    #[derive(Debug, Clone)]
    enum Op {
        Hear { n: u8, vlan: u16, port: u32, later: u64 },
        Fix { n: u8, port: u32 },
        Gone { port: u32 },
        Sweep,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..48u8, 1..3u16, 0..4u32, 0..3u64)
                .prop_map(|(n, vlan, port, later)| Op::Hear { n, vlan, port, later }),
            1 => (0..4u8, 0..4u32).prop_map(|(n, port)| Op::Fix { n, port }),
            1 => (0..4u32).prop_map(|port| Op::Gone { port }),
            1 => Just(Op::Sweep),
        ]
    }

    const MOST: u32 = 10;
    const ALL: u32 = 24;
    const AGEING: u64 = 20;

    proptest! {
        /// The table against a map.
        #[test]
        fn the_table_is_a_map_with_bounds(ops in proptest::collection::vec(op(), 0..400), seed: u64) {
            let table = Table::new(ALL, 4, seed);
            let mut map: HashMap<(u8, u16), (u32, u64, bool)> = HashMap::new();
            let mut now = 0;
            let at = |map: &HashMap<_, (u32, u64, bool)>, port| map.values().filter(|v| v.0 == port).count() as u32;
            for op in ops {
                match op {
                    Op::Hear { n, vlan, port, later } => {
                        now += later;
                        let s = station(n, vlan);
                        let place = table.place(s);
                        let is = table.learn(place, s, table.find(place, s), (port, MOST), (now, AGEING));
                        let room = at(&map, port) < MOST;
                        let expected = match map.get(&(n, vlan)) {
                            Some((at, ..)) if *at == port => Learned::Known,
                            Some((_, _, true)) => Learned::Static,
                            Some(_) | None if map.len() as u32 >= ALL && !map.contains_key(&(n, vlan)) => Learned::Full,
                            Some(_) | None if !room => Learned::Limit,
                            Some(_) => Learned::Moved,
                            None => Learned::New,
                        };
                        if is == Learned::Full && expected == Learned::New {
                            // Both buckets are taken: allowed, if they are.
                            let taken = |index: u32| table.buckets[index as usize].keys.iter()
                                .all(|key| key.load(Ordering::Relaxed) != 0);
                            prop_assert!(taken(place.first) && taken(place.second));
                            continue;
                        }
                        if is == Learned::New && table.used() as usize <= map.len() {
                            // An old one in the bucket made room.
                            map.retain(|(n, vlan), _| port_of(&table, station(*n, *vlan)).is_some());
                        }
                        prop_assert_eq!(is, expected);
                        match is {
                            Learned::New | Learned::Moved => drop(map.insert((n, vlan), (port, now, false))),
                            Learned::Known => {
                                if let Some(known) = map.get_mut(&(n, vlan)) {
                                    known.1 = now;
                                }
                            }
                            Learned::Static | Learned::Limit | Learned::Full => {}
                        }
                    }
                    Op::Fix { n, port } => {
                        if table.fix(station(n, 1), port, now) {
                            map.insert((n, 1), (port, now, true));
                            map.retain(|(n, vlan), _| port_of(&table, station(*n, *vlan)).is_some());
                        }
                    }
                    Op::Gone { port } => {
                        table.remove(|value, _| value.port() == port);
                        map.retain(|_, v| v.0 != port);
                    }
                    Op::Sweep => {
                        table.sweep(0, 1 << 20, now, AGEING);
                        map.retain(|_, v| v.2 || now - v.1 <= AGEING);
                    }
                }
                prop_assert_eq!(table.used() as usize, map.len());
                for port in 0..4 {
                    prop_assert_eq!(table.at_port(port), at(&map, port));
                }
            }
            for ((n, vlan), (port, ..)) in &map {
                prop_assert_eq!(port_of(&table, station(*n, *vlan)), Some(*port));
            }
            prop_assert_eq!(table.stations().count(), map.len());
        }
    }
}

#[cfg(loom)]
mod together {
    use super::*;
    use crate::sync::Arc;

    /// A place changes hands while somebody looks: nobody is ever told another station's port.
    #[test]
    fn a_look_never_finds_anothers_port() {
        loom::model(|| {
            let table = Arc::new(Table::new(2, 3, 0));
            let (a, b) = (station(1, 1), station(2, 1));
            hear(&table, a, 1, 0);
            let other = table.clone();
            let writer = loom::thread::spawn(move || {
                other.remove(|value, _| value.port() == 1);
                hear(&other, b, 2, 0);
            });
            let seen = table.find(table.place(a), a);
            assert!(seen.is_none_or(|found| found.value.port() == 1));
            writer.join().unwrap();
            assert_eq!((table.used(), table.at_port(1), table.at_port(2)), (1, 0, 1));
        });
    }

    /// One worker moves a station, another one takes out what is at its old port: it is counted once, where it is.
    #[test]
    fn a_station_that_moves_while_its_port_goes_is_counted_once() {
        loom::model(|| {
            let table = Arc::new(Table::new(2, 3, 0));
            let a = station(1, 1);
            hear(&table, a, 1, 0);
            let other = table.clone();
            let remover = loom::thread::spawn(move || other.remove(|value, _| value.port() == 1));
            hear(&table, a, 2, 0);
            remover.join().unwrap();
            hear(&table, a, 2, 0);
            assert_eq!(table.at_port(1), 0);
            assert_eq!((table.used(), table.at_port(2)), (1, 1));
        });
    }

    /// What control makes static stays, although a worker finds it too old at the same moment.
    #[test]
    fn a_sweep_does_not_take_what_became_static() {
        loom::model(|| {
            let table = Arc::new(Table::new(2, 3, 0));
            let a = station(1, 1);
            hear(&table, a, 1, 0);
            let other = table.clone();
            let sweeper = loom::thread::spawn(move || other.sweep(0, 1 << 10, 100, 10));
            let fixed = table.fix(a, 2, 100);
            sweeper.join().unwrap();
            let found = table.find(table.place(a), a);
            assert!(fixed && found.is_some_and(|found| found.value.port() == 2));
        });
    }
}
