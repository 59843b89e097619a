//! Transactions and dumps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rulecast_bundle::name;
use rulecast_bundle::nft::Family;
use rulecast_netlink::{Batch, Connection, Error, Key, Params, Value, Verdict};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::layout::{FAMILIES, add_elements, add_layout, addr, chains, endpoint, flow, sets};
use crate::namespace::{in_namespace, listing};

const V4: Family = Family::V4;

fn layout(connection: &mut Connection) {
    let mut batch = Batch::new();
    for family in FAMILIES {
        add_layout(&mut batch, family);
        add_elements(&mut batch, family);
    }
    connection.commit(batch).unwrap();
}

/// A set's elements as key, end of range, data, verdict.
type Elements = BTreeMap<(Vec<u8>, bool), (Vec<u8>, Vec<u8>, Option<String>)>;

fn elements(connection: &mut Connection, family: Family, set: &str) -> Elements {
    connection
        .elements(family, set, Elements::new, |all, e| {
            let value = (e.key_end.to_vec(), e.data.to_vec(), e.verdict.map(str::to_owned));
            assert!(all.insert((e.key.to_vec(), e.ends_range), value).is_none(), "told twice");
        })
        .unwrap()
}

#[test]
fn elements_come_back_as_they_went() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        for family in FAMILIES {
            let bytes = |key: Key| key.as_bytes().to_vec();
            let told = elements(&mut connection, family, "service-ips");
            let expected: Elements = [
                ((bytes(flow(family, 1)), false), (vec![], vec![], Some("lb-3".to_owned()))),
                ((bytes(flow(family, 2)), false), (vec![], vec![], Some("drop".to_owned()))),
            ]
            .into();
            assert_eq!(told, expected);

            let told = elements(&mut connection, family, "endpoints");
            let expected: Elements = (0..3)
                .map(|i| {
                    let data = bytes(endpoint(family, 100 + i));
                    ((bytes(flow(family, 1).index(i)), false), (vec![], data, None))
                })
                .collect();
            assert_eq!(told, expected);

            let told = elements(&mut connection, family, "firewall");
            let (from, to) =
                (flow(family, 1).addr(addr(family, 0x100)), flow(family, 1).addr(addr(family, 0x1ff)));
            assert_eq!(told, [((bytes(from), false), (bytes(to), vec![], None))].into());

            let told = elements(&mut connection, family, "cidrs");
            let (from, behind) = (Key::new().addr(addr(family, 0x100)), Key::new().addr(addr(family, 0x200)));
            let nothing = (vec![], vec![], None);
            let expected = [((bytes(from), false), nothing.clone()), ((bytes(behind), true), nothing)];
            assert_eq!(told, expected.into());
        }
    });
}

#[test]
fn elements_and_ranges_can_be_deleted() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        for family in FAMILIES {
            let a = |last| addr(family, last);
            let largest = match family {
                Family::V4 => "255.255.255.255".parse().unwrap(),
                Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            };
            let single = |last| Key::new().addr(a(last));
            let mut batch = Batch::new();
            batch.delete_element(family, "service-ips", &flow(family, 1));
            batch.delete_element(family, "endpoints", &flow(family, 1).index(1));
            batch.delete_range(
                family,
                "firewall",
                &flow(family, 1).addr(a(0x100)),
                &flow(family, 1).addr(a(0x1ff)),
            );
            batch.delete_range(family, "cidrs", &single(0x100), &single(0x1ff));
            batch.add_range(family, "cidrs", &single(0x300), &Key::new().addr(largest));
            connection.commit(batch).unwrap();
            assert_eq!(elements(&mut connection, family, "service-ips").len(), 1);
            assert_eq!(elements(&mut connection, family, "endpoints").len(), 2);
            assert_eq!(elements(&mut connection, family, "firewall").len(), 0);
            assert_eq!(elements(&mut connection, family, "cidrs").len(), 1);

            let mut batch = Batch::new();
            batch.delete_range(family, "cidrs", &single(0x300), &Key::new().addr(largest));
            connection.commit(batch).unwrap();
            assert_eq!(elements(&mut connection, family, "cidrs").len(), 0);
        }
    });
}

#[test]
fn what_is_deleted_can_be_added_again_in_the_same_transaction() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        let before = listing();

        // One element, with another value and back.
        let key = flow(V4, 1).index(0);
        for last in [50, 100] {
            let mut batch = Batch::new();
            batch.delete_element(V4, "endpoints", &key);
            batch.add_element(V4, "endpoints", &key, Value::Bytes(&endpoint(V4, last)));
            connection.commit(batch).unwrap();
            let told = &elements(&mut connection, V4, "endpoints")[&(key.as_bytes().to_vec(), false)];
            assert_eq!(told.1, endpoint(V4, last).as_bytes());
        }
        // One verdict.
        let mut batch = Batch::new();
        batch.delete_element(V4, "service-ips", &flow(V4, 1));
        batch.add_element(V4, "service-ips", &flow(V4, 1), Value::Verdict(Verdict::Drop));
        batch.delete_element(V4, "service-ips", &flow(V4, 1));
        batch.add_element(V4, "service-ips", &flow(V4, 1), Value::Verdict(Verdict::Goto("lb-3")));
        connection.commit(batch).unwrap();
        assert_eq!(listing(), before);

        // All but the dynamic map, whose contents stay.
        let mut batch = Batch::new();
        for family in FAMILIES {
            batch.flush_table_rules(family);
            for def in sets().iter().filter(|def| !def.dynamic) {
                batch.delete_set(family, def.name.as_str());
            }
            for chain in chains(family) {
                batch.delete_chain(family, chain.name.as_str());
            }
            add_layout(&mut batch, family);
        }
        connection.commit(batch).unwrap();
        for family in FAMILIES {
            assert_eq!(elements(&mut connection, family, "affinity").len(), 1);
            assert_eq!(elements(&mut connection, family, "endpoints").len(), 0);
        }

        // The tables.
        let mut batch = Batch::new();
        for family in FAMILIES {
            batch.delete_table(family);
            add_layout(&mut batch, family);
            add_elements(&mut batch, family);
        }
        connection.commit(batch).unwrap();
        assert_eq!(listing(), before);

        // Adding it all again changes nothing but the rules.
        let mut batch = Batch::new();
        for family in FAMILIES {
            batch.flush_table_rules(family);
            add_layout(&mut batch, family);
            add_elements(&mut batch, family);
        }
        connection.commit(batch).unwrap();
        assert_eq!(listing(), before);
    });
}

#[test]
fn an_error_names_its_operation_and_changes_nothing() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        let before = listing();
        let mut refuse = |fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            batch.add_chain(V4, "new", None);
            batch.add_element(V4, "node-ips", &Key::new().addr(addr(V4, 200)), Value::None);
            fill(&mut batch);
            let error = connection.commit(batch).unwrap_err();
            assert_eq!(listing(), before);
            (error.to_string(), error)
        };

        let (text, error) = refuse(&|batch| {
            batch.delete_element(V4, "service-ips", &flow(V4, 1));
            batch.delete_element(V4, "service-ips", &flow(V4, 99));
        });
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(
            text,
            "the kernel refused to delete elements of set service-ips, table ip rulecast, \
             element 0a600063 06000000 00500000: No such file or directory (os error 2)"
        );

        let goto = Value::Verdict(Verdict::Goto("missing"));
        let (text, _) =
            refuse(&|batch| batch.add_element(Family::V6, "service-ips", &flow(Family::V6, 9), goto));
        assert!(
            text.contains("add elements of set service-ips, table ip6 rulecast, element fd000096"),
            "{text}"
        );
        let (text, error) = refuse(&|batch| batch.delete_chain(V4, "lb-3"));
        assert!(text.contains("delete chain lb-3, table ip rulecast: Device or resource busy"), "{text}");
        assert_eq!(error.errno(), Some(16));
        let rule = chains(V4).into_iter().find(|chain| chain.name == name("lb-3")).unwrap().rules.remove(1);
        let (text, _) = refuse(&|batch| batch.add_rule(V4, "lb-3", &rule, Params::default()));
        assert!(text.contains("add rule of chain lb-3, table ip rulecast"), "{text}");

        // The connection goes on working.
        let mut batch = Batch::new();
        batch.add_chain(V4, "new", None);
        connection.commit(batch).unwrap();
        let missing = connection.elements(V4, "nowhere", || (), |(), _| ()).unwrap_err();
        assert!(missing.is_not_found());
        assert!(missing.to_string().contains("list the elements of set nowhere"), "{missing}");
    });
}

#[test]
fn a_batch_that_comes_too_late_is_refused() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let generation = connection.generation().unwrap();
        let mut batch = Batch::with_generation(generation);
        batch.add_table(V4);
        let first = connection.commit(batch).unwrap();
        assert_eq!(first.generation, generation + 1);

        let mut foreign = Batch::new();
        foreign.add_chain(V4, "foreign", None);
        Connection::open().unwrap().commit(foreign).unwrap();
        let before = listing();
        let mut batch = Batch::with_generation(first.generation);
        batch.add_chain(V4, "late", None);
        assert!(matches!(connection.commit(batch), Err(Error::Changed)));
        assert_eq!(listing(), before);

        let mut batch = Batch::with_generation(connection.generation().unwrap());
        batch.add_chain(V4, "late", None);
        connection.commit(batch).unwrap();
    });
}

#[test]
fn an_empty_batch_is_not_sent() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let generation = connection.generation().unwrap();
        let committed = connection.commit(Batch::new()).unwrap();
        assert_eq!((committed.generation, committed.messages), (generation, 0));
    });
}

#[test]
fn ten_thousand_services_with_ten_endpoints_are_one_send() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let start = Instant::now();
        let mut batch = Batch::new();
        add_layout(&mut batch, V4);
        for service in 0..10_000 {
            batch.add_element(V4, "service-ips", &flow(V4, service), Value::Verdict(Verdict::Goto("lb-3")));
        }
        for service in 0..10_000 {
            for i in 0..10 {
                let key = flow(V4, service).index(i);
                let endpoint = endpoint(V4, 0x10_0000 + service * 10 + i);
                batch.add_element(V4, "endpoints", &key, Value::Bytes(&endpoint));
            }
        }
        let encoding = start.elapsed();
        let committed = connection.commit(batch).unwrap();
        println!("encoding {encoding:?}, {committed:?}");
        assert!(committed.bytes > 4_000_000 && committed.messages < 250, "{committed:?}");
        assert!(committed.kernel < Duration::from_secs(2), "{committed:?}");

        let keys = connection
            .elements(V4, "endpoints", BTreeSet::new, |keys, e| {
                keys.insert(e.key.to_vec());
            })
            .unwrap();
        assert_eq!(keys.len(), 100_000);

        // What a change of one endpoint takes on top, and the whole again after the elements are gone.
        let key = flow(V4, 77).index(3);
        let mut batch = Batch::new();
        batch.delete_element(V4, "endpoints", &key);
        batch.add_element(V4, "endpoints", &key, Value::Bytes(&endpoint(V4, 1)));
        println!("one endpoint: {:?}", connection.commit(batch).unwrap());
        let mut batch = Batch::new();
        for service in 0..10_000 {
            for i in 0..10 {
                batch.delete_element(V4, "endpoints", &flow(V4, service).index(i));
            }
        }
        println!("all endpoints away: {:?}", connection.commit(batch).unwrap());
        assert_eq!(elements(&mut connection, V4, "endpoints").len(), 0);
    });
}

/// A dump of several pieces, while others commit all the time, begins anew and is given up; never is it wrong.
#[test]
fn a_disturbed_dump_is_whole_or_refused() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let mut other = Connection::open().unwrap();
        let mut batch = Batch::new();
        add_layout(&mut batch, V4);
        for i in 0..5_000 {
            batch.add_element(V4, "endpoints", &flow(V4, 1).index(i), Value::Bytes(&endpoint(V4, i)));
        }
        connection.commit(batch).unwrap();
        let done = AtomicBool::new(false);
        let interrupted = std::thread::scope(|scope| {
            scope.spawn(|| {
                let key = Key::new().addr(addr(V4, 1));
                while !done.load(Ordering::Relaxed) {
                    let mut batch = Batch::new();
                    batch.add_element(V4, "node-ips", &key, Value::None);
                    other.commit(batch).unwrap();
                    let mut batch = Batch::new();
                    batch.delete_element(V4, "node-ips", &key);
                    other.commit(batch).unwrap();
                }
            });
            let mut interrupted = 0;
            for _ in 0..30 {
                let mut starts = 0;
                let start = || {
                    starts += 1;
                    0
                };
                match connection.elements(V4, "endpoints", start, |count, _| *count += 1) {
                    Ok(count) => assert_eq!(count, 5_000),
                    Err(Error::Interrupted) => {
                        assert_eq!(starts, 3);
                        interrupted += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            done.store(true, Ordering::Relaxed);
            interrupted
        });
        assert!(interrupted > 0, "nothing was disturbed");
        assert_eq!(elements(&mut connection, V4, "endpoints").len(), 5_000, "after the noise");
    });
}

#[test]
fn a_missing_capability_is_named() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = Connection::open().unwrap_err();
        assert!(matches!(error, Error::Permission), "{error:?}");
        assert!(error.to_string().starts_with("CAP_NET_ADMIN is missing"));
        let mut batch = Batch::new();
        batch.add_table(V4);
        assert!(matches!(connection.commit(batch), Err(Error::Permission)));
    });
}
