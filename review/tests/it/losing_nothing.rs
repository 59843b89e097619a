//! Whatever records say, the description says: two sets of records with one description are equal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use rulecast_bundle::nft::Family;
use rulecast_bundle::{
    Bundle, Change, Empty, Group, GroupId, GroupKind, HealthCheck, Key, LaneKey, Mode, Part, Proto, Shape,
    Value, name,
};
use rulecast_review::{ServiceDescription, describe, diff};

/// From few values, so that records meet each other.
fn addr() -> impl Strategy<Value = IpAddr> {
    proptest::sample::select(vec!["10.0.0.1", "10.0.0.2", "fd00::1"]).prop_map(|a| a.parse().unwrap())
}

fn proto() -> impl Strategy<Value = Proto> {
    proptest::sample::select(vec![Proto::Tcp, Proto::Udp])
}

fn group_id() -> impl Strategy<Value = GroupId> {
    let kind = proptest::sample::select(vec![GroupKind::Cluster, GroupKind::Local]);
    (addr(), 80u16..82, proto(), kind).prop_map(|(addr, port, proto, kind)| GroupId {
        addr,
        port,
        proto,
        kind,
    })
}

fn record() -> impl Strategy<Value = (Key, Value)> {
    let key = (0u8..10, proptest::option::of(addr()), 80u16..83);
    let keys = proptest::collection::btree_set(
        key.prop_map(|(lane, addr, port)| LaneKey { lane, addr, port }),
        0..6,
    );
    let group = (group_id(), "[ab]?", proptest::option::of(1u32..3), keys).prop_map(
        |(id, port_name, affinity, keys)| {
            let keys = keys
                .into_iter()
                .filter(|k| k.addr.is_none_or(|a| a.is_ipv4() == id.addr.is_ipv4()))
                .collect();
            let group = Group { owner: "a/b".to_owned(), port_name, empty: Empty::Reject, affinity, keys };
            (Key::Group(id), Value::Group(group))
        },
    );
    let set = proptest::sample::select(vec!["firewall-ips", "firewall-ranges", "other"]);
    let element = (set, any::<bool>(), addr(), proto(), 80u16..82, proptest::option::of((addr(), 31u8..33)))
        .prop_map(|(set, v4, addr, proto, port, range)| {
            let family = if v4 { Family::V4 } else { Family::V6 };
            let mut parts = vec![Part::Addr(addr), Part::Proto(proto), Part::Port(port)];
            parts.extend(range.map(|(addr, len)| Part::Prefix(addr, len)));
            (Key::Element { family, set: name(set), parts }, Value::Element { owner: "a/b".to_owned() })
        });
    let check = (1u16..4, proptest::collection::btree_set(group_id(), 0..3)).prop_map(|(port, groups)| {
        let check = HealthCheck { owner: "a/b".to_owned(), groups: groups.into_iter().collect() };
        (Key::HealthCheck(port), Value::HealthCheck(check))
    });
    prop_oneof![4 => group, 2 => element, 1 => check]
}

fn records() -> impl Strategy<Value = BTreeMap<Key, Value>> {
    proptest::collection::vec(record(), 1..7).prop_map(|records| records.into_iter().collect())
}

fn shape(records: &BTreeMap<Key, Value>) -> Shape {
    let changes: Vec<Change> =
        records.iter().map(|(key, value)| Change { key: key.clone(), value: Some(value.clone()) }).collect();
    let mut bundle = Bundle::default();
    let _final = bundle.apply(&changes).unwrap();
    Shape::from_records(Mode::Nftables, bundle).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_other_records_are_another_description(from in records(), to in records()) {
        let of = |records: &BTreeMap<Key, Value>| {
            let list: Vec<_> = records.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            ServiceDescription::of(&list)
        };
        prop_assert_eq!(from == to, of(&from) == of(&to));
        let difference = diff(&shape(&from), &shape(&to));
        prop_assert_eq!(from == to, difference.is_empty());
        prop_assert!(difference.services.iter().all(|change| !change.fields.is_empty()));
    }

    /// The smallest change there is: one record more, less, or other.
    #[test]
    fn one_record_is_enough(mut records in records(), change in record()) {
        let before = shape(&records);
        if records.get(&change.0) == Some(&change.1) {
            records.remove(&change.0);
        } else {
            records.insert(change.0, change.1);
        }
        let after = shape(&records);
        prop_assert_ne!(describe(&before), describe(&after));
        let difference = diff(&before, &after);
        prop_assert_eq!(difference.services.len(), 1);
        prop_assert!(!difference.services[0].fields.is_empty());
        prop_assert!(difference.summary()[0].len() > "a/b: ".len());
    }
}

/// The one thing of a Service's records that is passed over, because it is no part of a shape: what a group does when it is
/// empty follows from the endpoints elsewhere.
#[test]
fn what_an_empty_group_does_is_membership() {
    let id =
        GroupId { addr: "10.0.0.1".parse().unwrap(), port: 80, proto: Proto::Tcp, kind: GroupKind::Local };
    let group = |empty| {
        let group = Group {
            owner: "a/b".to_owned(),
            port_name: String::new(),
            empty,
            affinity: None,
            keys: Vec::new(),
        };
        vec![(Key::Group(id), Value::Group(group))]
    };
    assert_eq!(ServiceDescription::of(&group(Empty::Drop)), ServiceDescription::of(&group(Empty::Reject)));
}
