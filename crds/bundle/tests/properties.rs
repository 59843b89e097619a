//! The promises of the bundle format, over generated records.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use rulecast_bundle::{
    Bundle, Change, Checkpoint, ChunkId, DecodeError, Delta, Digest, Empty, FamilyOptions, Group, GroupId,
    GroupKind, Head, HealthCheck, Index, IpvsOptions, Key, LaneKey, Member, Mode, Name, NodeFact,
    NodePortAddresses, Part, Pods, Proto, Scope, Settings, Tag, Value, frame, nft::Family,
};

fn addr(v4: bool) -> BoxedStrategy<IpAddr> {
    if v4 {
        (0u32..2000).prop_map(|n| IpAddr::from((0x0a00_0000 + n * 7).to_be_bytes())).boxed()
    } else {
        (0u128..2000).prop_map(|n| IpAddr::from(((0xfd00_u128 << 112) + n * 7).to_be_bytes())).boxed()
    }
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)]
}

fn group_id() -> impl Strategy<Value = GroupId> {
    let kind = prop_oneof![Just(GroupKind::Cluster), Just(GroupKind::Local)];
    (any::<bool>().prop_flat_map(addr), 1u16..20, proto(), kind)
        .prop_map(|(addr, port, proto, kind)| GroupId { addr, port, proto, kind })
}

fn group_value(v4: bool) -> impl Strategy<Value = Group> {
    let lane = (0u8..7, proptest::option::of(addr(v4)), any::<u16>());
    let keys = proptest::collection::btree_set(
        lane.prop_map(|(lane, addr, port)| LaneKey { lane, addr, port }),
        0..5,
    );
    ("[a-z]{1,8}/[a-z]{1,8}", "[a-z]{0,5}", any::<bool>(), proptest::option::of(1u32..86_400), keys).prop_map(
        |(owner, port_name, drop, affinity, keys)| Group {
            owner,
            port_name,
            empty: if drop { Empty::Drop } else { Empty::Reject },
            affinity,
            keys: keys.into_iter().collect(),
        },
    )
}

fn record() -> impl Strategy<Value = (Key, Value)> {
    let group = group_id().prop_flat_map(|id| {
        group_value(id.addr.is_ipv4()).prop_map(move |g| (Key::Group(id), Value::Group(g)))
    });
    let scope = prop_oneof![
        Just(Scope::All),
        (0u64..5).prop_map(|t| Scope::Zone(Tag(t))),
        (0u64..5).prop_map(|t| Scope::Node(Tag(t))),
        Just(Scope::Serving)
    ];
    let member = (group_id(), scope, 1u16..4, 0u32..5, any::<bool>()).prop_flat_map(
        |(group, scope, port, node, t)| {
            addr(group.addr.is_ipv4()).prop_map(move |addr| {
                (Key::Member { group, scope, port, addr }, Value::Member(Member { node, terminating: t }))
            })
        },
    );
    let element = (addr(true), proto(), any::<u16>(), 0u8..33, "[a-z]{1,9}").prop_map(
        |(addr, proto, port, len, owner)| {
            let parts = vec![Part::Addr(addr), Part::Proto(proto), Part::Port(port), Part::Prefix(addr, len)];
            let set = Name::new("firewall-ranges").unwrap();
            (Key::Element { family: Family::V4, set, parts }, Value::Element { owner })
        },
    );
    let node = (any::<u64>(), addr(true), addr(false), any::<[bool; 2]>()).prop_map(
        |(tag, v4, v6, [draining, next])| {
            let fact = NodeFact {
                name: format!("node-{tag}"),
                zone: Some(Tag(tag | 1)),
                addrs: vec![v4, v6],
                pod_cidrs: vec![(v4, 24)],
                draining,
                next,
            };
            (Key::Node(Tag(tag)), Value::Node(fact))
        },
    );
    let check = (any::<u16>(), "[a-z]{1,9}", proptest::collection::btree_set(group_id(), 0..4)).prop_map(
        |(port, owner, groups)| {
            let groups = groups.into_iter().collect();
            (Key::HealthCheck(port), Value::HealthCheck(HealthCheck { owner, groups }))
        },
    );
    prop_oneof![4 => group, 10 => member, 2 => element, 2 => node, 1 => check, 1 => settings(), 1 => options()]
}

fn options() -> impl Strategy<Value = (Key, Value)> {
    let prefix = || proptest::collection::vec((any::<[u8; 4]>(), 0u8..=32), 0..3);
    let v4 = |list: Vec<([u8; 4], u8)>| list.into_iter().map(|(a, len)| (a.into(), len)).collect();
    let name =
        ("[a-zA-Z0-9_.@-]{1,15}", any::<bool>()).prop_map(|(name, prefix)| Pods::Interface { name, prefix });
    let pods = prop_oneof![
        Just(Pods::Unknown),
        Just(Pods::NodeCidr),
        name,
        prefix().prop_map(move |list| Pods::Prefixes(v4(list))),
    ];
    let addresses = proptest::option::of(
        (any::<bool>(), prefix())
            .prop_map(move |(primary, list)| NodePortAddresses { primary, prefixes: v4(list) }),
    );
    let ipvs = ("[a-z]{1,15}", any::<bool>(), prefix(), any::<[u32; 3]>()).prop_map(
        move |(scheduler, strict_arp, exclude, [tcp_timeout, tcp_fin_timeout, udp_timeout])| IpvsOptions {
            scheduler,
            strict_arp,
            exclude: v4(exclude),
            tcp_timeout,
            tcp_fin_timeout,
            udp_timeout,
        },
    );
    (0u32..32, any::<[bool; 3]>(), pods, addresses, proptest::option::of(ipvs)).prop_map(
        |(bit, [masquerade_all, liberal, localhost_node_ports], pods, node_port_addresses, ipvs)| {
            let options = FamilyOptions {
                mark: 1 << bit,
                masquerade_all,
                liberal,
                pods,
                node_port_addresses,
                localhost_node_ports,
                ipvs,
            };
            (Key::Options(Family::V4), Value::Options(Box::new(options)))
        },
    )
}

fn settings() -> impl Strategy<Value = (Key, Value)> {
    let number = || proptest::option::of(1u32..);
    let timeouts = (number(), number(), number(), number());
    (number(), number(), proptest::option::of(any::<bool>()), timeouts).prop_map(
        |(conntrack_max_per_core, conntrack_min, tcp_be_liberal, (a, b, c, d))| {
            let settings = Settings {
                conntrack_max_per_core,
                conntrack_min,
                tcp_be_liberal,
                tcp_established_timeout: a,
                tcp_close_wait_timeout: b,
                udp_timeout: c,
                udp_stream_timeout: d,
            };
            (Key::Settings, Value::Settings(settings))
        },
    )
}

fn records() -> impl Strategy<Value = BTreeMap<Key, Value>> {
    proptest::collection::vec(record(), 0..60).prop_map(|list| list.into_iter().collect())
}

fn bundle_of<'a>(records: impl IntoIterator<Item = (&'a Key, &'a Value)>) -> Bundle {
    let mut bundle = Bundle::default();
    for (key, value) in records {
        let _ = bundle.apply(&[Change { key: key.clone(), value: Some(value.clone()) }]).unwrap();
    }
    bundle
}

fn delta_of(changes: Vec<Change>) -> Delta {
    Delta { from: 6, to: 7, previous: Some(ChunkId::of(b"x")), changes }
}

proptest! {
    #[test]
    fn keys_and_values_round_trip_and_sort_as_their_encoding((a, va) in record(), (b, _) in record()) {
        prop_assert_eq!(&Key::decode(&a.encode()).unwrap(), &a);
        prop_assert_eq!(&Value::decode(&a, &va.encode(&a)).unwrap(), &va);
        prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
    }

    #[test]
    fn any_order_of_arrival_gives_the_same_bytes(records in records(), detour in record()) {
        let forward = bundle_of(&records);
        let mut backward = bundle_of(records.iter().rev());
        if !records.contains_key(&detour.0) {
            let (key, value) = detour;
            let _ = backward.apply(&[Change { key: key.clone(), value: Some(value) }]).unwrap();
            let _ = backward.apply(&[Change { key, value: None }]).unwrap();
        }
        prop_assert_eq!(forward.root(), backward.root());
        let (a, b) = (Checkpoint::encode(1, &forward), Checkpoint::encode(1, &backward));
        prop_assert_eq!(a.chunks, b.chunks);
        prop_assert_eq!(forward.len(), records.len());
    }

    #[test]
    fn applying_the_difference_gives_the_target(a in records(), b in records()) {
        let (mut from, to) = (bundle_of(&a), bundle_of(&b));
        let delta = delta_of(from.diff(&to));
        let sent = Delta::decode(&delta.encode()).unwrap();
        prop_assert_eq!(&sent, &delta);
        let before = from.root();
        let undo = from.apply(&sent.changes).unwrap();
        prop_assert_eq!(from.root(), to.root());
        prop_assert_eq!(from.records(), to.records());
        from.revert(undo);
        prop_assert_eq!(from.root(), before);
    }

    #[test]
    fn checkpoints_round_trip(records in records()) {
        let bundle = bundle_of(&records);
        let checkpoint = Checkpoint::encode(9, &bundle);
        let index = Index::decode(&checkpoint.index.encode()).unwrap();
        prop_assert_eq!(&index, &checkpoint.index);
        let raw = Checkpoint::frame(&index, &checkpoint.chunks).unwrap();
        prop_assert_eq!(Bundle::load(frame::Decoder::new(&raw).unwrap()).unwrap().root(), bundle.root());
    }

    #[test]
    fn a_flipped_bit_is_refused(records in records(), at in any::<prop::sample::Index>()) {
        let bundle = bundle_of(&records);
        let changes = Bundle::default().diff(&bundle);
        let delta = delta_of(changes);
        let bytes = delta.encode();
        let bit = at.index(bytes.len() * 8);
        // It may be another delta, which does not lead to the head's digest; it is never the same one.
        prop_assert_ne!(Delta::decode(&flip(&bytes, bit)), Ok(delta), "delta bit {}", bit);

        let checkpoint = Checkpoint::encode(9, &bundle);
        let bit = at.index(checkpoint.chunks[0].len() * 8);
        let chunks = [flip(&checkpoint.chunks[0], bit)];
        prop_assert!(Checkpoint::frame(&checkpoint.index, &chunks).is_err(), "chunk bit {}", bit);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Delta::decode(&bytes);
        let _ = Index::decode(&bytes);
        let _ = Key::decode(&bytes);
        let _ = frame::Decoder::new(&bytes).map(|d| d.take(10_000).count());
    }

    #[test]
    fn frames_accept_one_encoding_only(records in records(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = frame::encode(records.iter().map(|(k, v)| (k, Some(v))));
        let mut other = good.clone();
        let position = at.index(other.len());
        other[position] = byte;
        let decoded: Result<Vec<Change>, DecodeError> = frame::Decoder::new(&other).and_then(Iterator::collect);
        if let Ok(changes) = decoded {
            let again = frame::encode(changes.iter().map(|c| (&c.key, c.value.as_ref())));
            prop_assert_eq!(again, other);
        }
    }
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn every_part_of_the_head_is_under_the_digest() {
    let root = Digest::of(&[b"content"]);
    let head = Head {
        format: 1,
        min_applier: 1,
        mode: Mode::Nftables,
        epoch: 0,
        sequence: 7,
        digest: String::new(),
        checkpoint: String::new(),
        delta: String::new(),
    };
    let digest = head.expected_digest("default", root);
    let altered = [
        Head { format: 2, ..head.clone() },
        Head { min_applier: 2, ..head.clone() },
        Head { mode: Mode::Ipvs, ..head.clone() },
        Head { epoch: 1, ..head.clone() },
        Head { sequence: 8, ..head.clone() },
    ];
    for other in altered {
        assert_ne!(other.expected_digest("default", root), digest, "{other:?}");
    }
    assert_ne!(head.expected_digest("other-pool", root), digest);
    assert_ne!(head.expected_digest("default", Digest::default()), digest);
}

#[test]
fn claims_of_size_are_checked_before_memory_is_taken() {
    let huge = Index { sequence: 1, raw_size: usize::MAX >> 1, chunks: vec![] };
    assert!(matches!(Index::decode(&huge.encode()), Err(DecodeError::TooLarge { .. })));
    // Four billion changes claimed in ten bytes.
    assert!(frame::Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0]).is_err());
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 19).unwrap();
    let index = Index { sequence: 1, raw_size: 1000, chunks: vec![ChunkId::of(&bomb)] };
    assert!(Checkpoint::frame(&index, &[bomb]).is_err());
}

#[test]
fn chunk_names_are_strict() {
    let id = ChunkId::of(b"bytes");
    assert_eq!(id.to_string().len(), 32);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!(id.to_string().to_uppercase().parse::<ChunkId>().is_err());
    assert!("".parse::<ChunkId>().is_err());
}
