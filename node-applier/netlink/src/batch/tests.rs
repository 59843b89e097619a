//! The bytes of batches.

use std::net::IpAddr;

use rulecast_bundle::name;
use rulecast_bundle::nft::{Data, Field, HookPoint};

use super::*;
use crate::attr::messages;
use crate::key::hex;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One message of each kind, one a line, as an independent encoder (the Python prototype that the layout was measured
/// with) writes it on a little-endian machine.
const GOLDEN: &str = include_str!("golden.hex");

#[test]
#[cfg(target_endian = "little")]
fn bytes_are_those_of_the_prototype() {
    const V4: Family = Family::V4;
    let flow = [Field::DestAddr, Field::Proto, Field::DestPort, Field::RandomIndex];
    let endpoints = SetDef {
        name: name("endpoints"),
        key: flow[..3].to_vec(),
        data: Data::Fields(vec![Field::DestAddr, Field::DestPort]),
        interval: false,
        dynamic: false,
        size: 100,
    };
    let hook = Hook { kind: ChainKind::Nat, point: HookPoint::Prerouting, priority: -100 };
    let pick = [Statement::Dnat { key: flow.to_vec(), map: name("endpoints") }];
    let key = Key::new().addr(ip("10.96.0.1")).proto(6).port(80);

    let mut batch = Batch::with_generation(7);
    batch.add_table(V4);
    batch.add_set(V4, &endpoints);
    batch.add_chain(V4, "lb-3", None);
    batch.add_chain(V4, "pre", Some(hook));
    batch.add_rule(V4, "lb-3", &pick, Params { members: 3, ..Params::default() });
    for (i, endpoint) in (0..).zip(["10.1.0.1", "10.1.0.2"]) {
        let endpoint = Key::new().addr(ip(endpoint)).port(8080);
        batch.add_element(V4, "endpoints", &key.index(i), Value::Bytes(&endpoint));
    }
    batch.add_element(V4, "ips", &key, Value::Verdict(Verdict::Goto("lb-3")));
    batch.delete_element(V4, "ips", &key);
    assert_eq!(batch.messages(), GOLDEN.lines().count() - 2);
    let announced = batch.bytes();

    let sealed = batch.seal().unwrap();
    assert_eq!(sealed.bytes().len(), announced);
    let mut rest = sealed.bytes();
    for (number, golden) in GOLDEN.lines().enumerate() {
        let (message, behind) = rest.split_at(golden.len() / 2);
        assert_eq!(hex(message).replace(' ', ""), golden, "message {number}");
        rest = behind;
    }
    assert_eq!(rest, []);
}

#[test]
fn elements_share_messages_until_the_set_the_family_or_the_operation_changes() {
    let key = Key::new().addr(ip("10.0.0.1"));
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    for (family, set) in [(Family::V4, "a"), (Family::V4, "a"), (Family::V4, "ab"), (Family::V6, "ab")] {
        batch.add_element(family, set, &key, Value::None);
    }
    batch.delete_element(Family::V6, "ab", &key);
    batch.add_element(Family::V6, "ab", &key, Value::None);
    batch.add_table(Family::V6);
    batch.add_element(Family::V6, "ab", &key, Value::None);
    assert_eq!(batch.messages(), 7);
    let sealed = batch.seal().unwrap();
    let kinds: Vec<u16> = messages(sealed.bytes()).map(|(_, m)| m.kind & 0xff).collect();
    assert_eq!(kinds, [16, 12, 12, 12, 14, 12, 0, 12, 17]);
}

#[test]
fn long_runs_are_split_before_the_list_overflows() {
    let mut batch = Batch::new();
    for i in 0..10_000 {
        batch.add_element(Family::V4, "a", &Key::new().index(i), Value::None);
    }
    let sealed = batch.seal().unwrap();
    let lists = messages(sealed.bytes()).filter(|(_, m)| m.kind == NFT_MSG_NEWSETELEM);
    let counts: Vec<_> =
        lists.map(|(_, m)| m.attributes().nest(NFTA_SET_ELEM_LIST_ELEMENTS).iter().count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 10_000);
    assert_eq!(counts.len(), 3, "{counts:?}");
}

#[test]
fn a_message_that_cannot_be_encoded_is_not_sent() {
    let mut batch = Batch::new();
    batch.delete_set(Family::V4, &"x".repeat(70_000));
    assert!(matches!(batch.seal(), Err(Error::TooLarge { .. })));
}
