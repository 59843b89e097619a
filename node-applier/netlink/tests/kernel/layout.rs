//! A layout with every statement and every field.

use std::net::IpAddr;
use std::time::Duration;

use rulecast_bundle::name;
use rulecast_bundle::nft::{ChainDef, ChainKind, Data, Family, Field, Hook, HookPoint, SetDef, Statement};
use rulecast_netlink::{Batch, Key, Params, Value, Verdict};

use Field::{DestAddr, DestPort, OriginalDestAddr, OriginalDestPort, Proto, RandomIndex, SourceAddr};

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const FLOW: [Field; 3] = [DestAddr, Proto, DestPort];
const ORIGINAL: [Field; 3] = [OriginalDestAddr, Proto, OriginalDestPort];
const ENDPOINT: [Field; 2] = [DestAddr, DestPort];

/// An address of the family that ends in `last`.
pub(crate) fn addr(family: Family, last: u32) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((0x0a60_0000 + last).into()),
        Family::V6 => IpAddr::V6(((0xfd00_0096_u128 << 96) + u128::from(last)).into()),
    }
}

/// The key of a Service's port 80/tcp.
pub(crate) fn flow(family: Family, last: u32) -> Key {
    Key::new().addr(addr(family, last)).proto(6).port(80)
}

pub(crate) fn endpoint(family: Family, last: u32) -> Key {
    Key::new().addr(addr(family, last)).port(8080)
}

fn set(word: &'static str, key: &[Field], data: Data) -> SetDef {
    SetDef { name: name(word), key: key.to_vec(), data, interval: false, dynamic: false, size: 0 }
}

pub(crate) fn sets() -> Vec<SetDef> {
    let sticky = [&[SourceAddr], &ORIGINAL[..]].concat();
    vec![
        set("service-ips", &FLOW, Data::Verdict),
        SetDef { size: 1_000_000, ..set("endpoints", &[&FLOW[..], &[RandomIndex]].concat(), to_endpoint()) },
        set("remember", &ORIGINAL, Data::Verdict),
        SetDef { dynamic: true, size: 65536, ..set("affinity", &sticky, to_endpoint()) },
        set("members", &[&ORIGINAL[..], &ENDPOINT].concat(), Data::None),
        set("hairpin", &[&[SourceAddr], &FLOW[..]].concat(), Data::None),
        SetDef { interval: true, ..set("firewall", &[&FLOW[..], &[SourceAddr]].concat(), Data::None) },
        set("node-ips", &[DestAddr], Data::None),
        SetDef { interval: true, ..set("cidrs", &[SourceAddr], Data::None) },
        set("ports", &[Proto, DestPort], Data::Verdict),
        // The widest key: 56 bytes for IPv6.
        set("widest", &[SourceAddr, DestAddr, OriginalDestAddr, Proto, DestPort], Data::None),
    ]
}

fn to_endpoint() -> Data {
    Data::Fields(ENDPOINT.to_vec())
}

/// All chains.
pub(crate) fn chains(family: Family) -> Vec<ChainDef> {
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let in_set = |key: &[Field], set, negate| Statement::InSet { key: key.to_vec(), set: name(set), negate };
    let vmap = |key: &[Field], map| Statement::VerdictMap { key: key.to_vec(), map: name(map) };
    let dnat = |key: &[Field], map| Statement::Dnat { key: key.to_vec(), map: name(map) };
    let prefix = |field, negate, addr: [&str; 2], len: [u8; 2]| {
        let i = usize::from(family == Family::V6);
        Statement::InPrefix { field, negate, addr: addr[i].parse().unwrap(), len: len[i] }
    };
    let services = vec![
        vec![vmap(&FLOW, "service-ips")],
        vec![
            in_set(&[DestAddr], "node-ips", false),
            Statement::IsLocal { field: DestAddr, negate: false },
            vmap(&[Proto, DestPort], "ports"),
        ],
    ];
    let filter = vec![
        vec![prefix(SourceAddr, false, ["10.0.0.0", "fd00::"], [8, 8]), Statement::Accept],
        vec![prefix(SourceAddr, true, ["10.244.0.0", "fd00:244::"], [14, 45]), Statement::Return],
        vec![prefix(DestAddr, false, ["10.96.0.1", "fd00:96::1"], [32, 128]), Statement::Drop],
        vec![prefix(DestAddr, true, ["0.0.0.0", "::"], [0, 0]), Statement::Drop],
        vec![Statement::IsLocal { field: SourceAddr, negate: true }, Statement::Return],
        vec![in_set(&[SourceAddr], "cidrs", true), Statement::Drop],
        vec![in_set(&[&FLOW[..], &[SourceAddr]].concat(), "firewall", false), Statement::Accept],
        vec![in_set(&[&FLOW[..], &[SourceAddr]].concat(), "firewall", true), Statement::Return],
        vec![in_set(&[SourceAddr, DestAddr, OriginalDestAddr, Proto, DestPort], "widest", false)],
        vec![Statement::MarkIs { bits: 0x8000, set: true }, Statement::Drop],
        vec![Statement::StateNew, Statement::StatusDnat, vmap(&ORIGINAL, "remember")],
        vec![Statement::Jump(name("reject-all"))],
        vec![Statement::Goto(name("reject-all"))],
    ];
    let masquerade = vec![
        vec![in_set(&[&[SourceAddr], &FLOW[..]].concat(), "hairpin", false), Statement::Masquerade],
        vec![Statement::MarkIs { bits: 0x4000, set: false }, Statement::Return],
        vec![Statement::MarkXor(0x4000), Statement::Masquerade],
    ];
    let pick = vec![dnat(&[&FLOW[..], &[RandomIndex]].concat(), "endpoints")];
    let remember = vec![
        vec![in_set(&[&ORIGINAL[..], &ENDPOINT].concat(), "members", true), Statement::Drop],
        vec![Statement::Remember {
            key: [&[SourceAddr], &ORIGINAL[..]].concat(),
            data: ENDPOINT.to_vec(),
            map: name("affinity"),
        }],
    ];
    let sticky = vec![vec![dnat(&[&[SourceAddr], &FLOW[..]].concat(), "affinity")], pick.clone()];
    let chain = |word, hook, rules| ChainDef { name: name(word), hook, rules };
    vec![
        chain("reject-all", None, vec![vec![Statement::Reject]]),
        chain("mark-for-masquerade", None, vec![vec![Statement::MarkOr(0x4000)]]),
        chain("lb-3", None, vec![vec![Statement::Jump(name("mark-for-masquerade"))], pick]),
        chain("sticky-3", None, sticky),
        chain("remember-10800", None, remember),
        chain("prerouting", hook(ChainKind::Nat, HookPoint::Prerouting, -100), services.clone()),
        chain("output", hook(ChainKind::Nat, HookPoint::Output, -100), services),
        chain("postrouting", hook(ChainKind::Nat, HookPoint::Postrouting, 100), masquerade),
        chain("forward", hook(ChainKind::Filter, HookPoint::Forward, 0), filter),
        chain("input", hook(ChainKind::Filter, HookPoint::Input, -5), Vec::new()),
    ]
}

/// Table, sets, chains and rules.
pub(crate) fn add_layout(batch: &mut Batch, family: Family) {
    batch.add_table(family);
    for def in sets() {
        batch.add_set(family, &def);
    }
    let chains = chains(family);
    for chain in &chains {
        batch.add_chain(family, chain.name.as_str(), chain.hook);
    }
    let params = Params { members: 3, timeout: Duration::from_hours(3) };
    for chain in &chains {
        for rule in &chain.rules {
            batch.add_rule(family, chain.name.as_str(), rule, params);
        }
    }
}

/// A few elements in every set.
pub(crate) fn add_elements(batch: &mut Batch, family: Family) {
    let a = |last| addr(family, last);
    let ports = Key::new().proto(17).port(30053);
    batch.add_element(family, "service-ips", &flow(family, 1), Value::Verdict(Verdict::Goto("lb-3")));
    batch.add_element(family, "service-ips", &flow(family, 2), Value::Verdict(Verdict::Drop));
    for i in 0..3 {
        let key = flow(family, 1).index(i);
        batch.add_element(family, "endpoints", &key, Value::Bytes(&endpoint(family, 100 + i)));
    }
    batch.add_element(family, "remember", &flow(family, 1), Value::Verdict(Verdict::Goto("remember-10800")));
    let client = Key::new().addr(a(9)).addr(a(1)).proto(6).port(80);
    batch.add_element(family, "affinity", &client, Value::Bytes(&endpoint(family, 100)));
    batch.add_element(family, "members", &flow(family, 1).addr(a(100)).port(8080), Value::None);
    let own = Key::new().addr(a(100)).addr(a(100)).proto(6).port(8080);
    batch.add_element(family, "hairpin", &own, Value::None);
    let (from, to) = (flow(family, 1).addr(a(0x100)), flow(family, 1).addr(a(0x1ff)));
    batch.add_range(family, "firewall", &from, &to);
    batch.add_element(family, "node-ips", &Key::new().addr(a(7)), Value::None);
    batch.add_range(family, "cidrs", &Key::new().addr(a(0x100)), &Key::new().addr(a(0x1ff)));
    batch.add_element(family, "ports", &ports, Value::Verdict(Verdict::Goto("lb-3")));
    let widest = Key::new().addr(a(1)).addr(a(2)).addr(a(3)).proto(6).port(80);
    batch.add_element(family, "widest", &widest, Value::None);
}
