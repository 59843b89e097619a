//! The nftables backend against the real kernel, each test in a network namespace of its own. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::sched::CloneFlags;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rulecast_bundle::nft::{Data, Family};
use rulecast_bundle::{Change, Delta, Digest, Empty, FORMAT, GroupId, Head, Mode, Name, Proto, Way};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, Options, Pool, Service, ServicePort, Slice, SlicePort,
};
use rulecast_netlink::{Batch, Connection, Key, Value};
use rulecast_node::applier::{Applier, Report};
use rulecast_node::nftables::Nftables;
use rulecast_node::store::Store;
use rulecast_node::view::Usable;

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root, for network namespaces");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A controller's side: compiles and makes heads and deltas.
struct Controller {
    compiler: Compiler,
    sequence: u64,
}

impl Controller {
    fn new() -> Self {
        let mut compiler = Compiler::default();
        let pods = vec![(ip("10.0.0.0"), 8), (ip("fd00:10::"), 32)];
        let options = Options { detect_local: DetectLocal::ClusterCidr(pods), ..Options::default() };
        compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        compiler.set_node(
            "n1",
            Some(Node { addrs: vec![ip("192.168.0.1"), ip("fd00:1::1")], ..Node::default() }),
        );
        Self { compiler, sequence: 0 }
    }

    fn publish(&mut self) -> (Head, Vec<Change>) {
        self.compiler.compile();
        let changes = self.compiler.pool_mut("default").unwrap().take_changes();
        self.sequence += 1;
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence: self.sequence,
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest("default", self.root()).to_string();
        (head, changes)
    }

    fn root(&self) -> Digest {
        self.compiler.pools().next().unwrap().1.bundle().root()
    }
}

fn deliver(controller: &mut Controller, applier: &mut Applier<Nftables>) -> Report {
    let (head, changes) = controller.publish();
    let delta = Delta { from: head.sequence - 1, to: head.sequence, previous: None, changes };
    applier.offer(head, Way::Deltas(vec![delta])).unwrap()
}

fn applier(store: Option<Store>) -> Applier<Nftables> {
    Applier::new("n1", "default", Mode::Nftables, Nftables::open().unwrap(), store)
}

fn service(vip: &str, keys: u8) -> Service {
    let flag = |bit: u8| keys & bit != 0;
    let node_port = flag(1).then(|| 30000 + u16::from(vip.as_bytes()[vip.len() - 1]));
    Service {
        cluster_ips: vec![ip(vip)],
        ports: vec![ServicePort { name: String::new(), proto: Proto::Tcp, port: 80, node_port }],
        load_balancer_ips: if flag(2) { vec![ip(&vip.replace("172.30", "5.5"))] } else { vec![] },
        external_local: flag(4),
        internal_local: flag(8),
        affinity: flag(16).then_some(600),
        source_ranges: if flag(32) { vec![(ip("203.0.113.0"), 24)] } else { vec![] },
        ..Service::default()
    }
}

fn slice(owner: &str, endpoints: &[(u8, bool)]) -> Slice {
    let endpoints = endpoints.iter().map(|(n, own)| Endpoint {
        node: Some(if *own { "n1".into() } else { "n2".into() }),
        ..Endpoint::ready(ip(&format!("10.1.0.{n}")))
    });
    let ports = vec![SlicePort { name: String::new(), proto: Proto::Tcp, port: 8080 }];
    Slice { service: owner.into(), ports, endpoints: endpoints.collect() }
}

/// Where keys lead, by verdict map; and their endpoints, by map of endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Behaviour {
    verdicts: BTreeMap<(String, Vec<u8>), String>,
    endpoints: BTreeMap<(String, Vec<u8>), BTreeSet<Vec<u8>>>,
}

/// Reads the kernel. Fails when numbers are not 0 to N-1.
fn kernel_behaviour(applier: &Applier<Nftables>, family: Family) -> Behaviour {
    let mut connection = Connection::open().unwrap();
    let mut behaviour = Behaviour::default();
    for set in &applier.view().rules(family).unwrap().sets {
        let list = connection
            .elements(family, set.name.as_str(), Vec::new, |all, e| {
                all.push((e.key.to_vec(), e.data.to_vec(), e.verdict.map(str::to_owned)));
            })
            .unwrap();
        let name = set.name.to_string();
        let mut members: BTreeMap<Vec<u8>, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        for (key, data, verdict) in list {
            match (&set.data, verdict) {
                (Data::Verdict, Some(verdict)) => {
                    drop(behaviour.verdicts.insert((name.clone(), key), verdict));
                }
                (Data::Fields(_), None) => {
                    let (key, index) = key.split_at(key.len() - 4);
                    let index = u32::from_ne_bytes(index.try_into().unwrap());
                    members.entry(key.to_vec()).or_default().insert(index, data);
                }
                _ => {}
            }
        }
        for (key, members) in members {
            assert!(members.keys().copied().eq(0..u32::try_from(members.len()).unwrap()), "{name} {key:?}");
            behaviour.endpoints.insert((name.clone(), key), members.into_values().collect());
        }
    }
    behaviour
}

/// What the view says the kernel should do.
fn expected_behaviour(applier: &Applier<Nftables>, family: Family) -> Behaviour {
    let view = applier.view();
    let rules = view.rules(family).unwrap();
    let mut behaviour = Behaviour::default();
    for (id, target) in view.targets().filter(|(id, _)| id.family() == family) {
        let group = target.shape().unwrap();
        let endpoint =
            |m: &Usable| Key::new().addr(m.endpoint.addr).port(m.endpoint.port).as_bytes().to_vec();
        let members: BTreeSet<Vec<u8>> = target.members().iter().map(endpoint).collect();
        for key in group.keys.iter() {
            let lane = &rules.lanes[usize::from(key.lane)];
            let bytes = kernel_key(id, key.addr, key.port);
            let mut leads = |map: &Name, verdict: String| {
                drop(behaviour.verdicts.insert((map.to_string(), bytes.clone()), verdict));
            };
            if let Some(detour) = lane.detour.as_ref().filter(|_| !members.is_empty()) {
                leads(&detour.map, detour.chain.to_string());
            }
            let pick = format!("{}-{}", lane.chain, members.len());
            let sticky = lane.affinity.as_ref().zip(group.affinity);
            let port = format!("tcp-{}-{}", id.addr, id.port);
            if let Some((affinity, timeout)) = sticky
                && let Some(remember) = &affinity.remember
            {
                leads(&remember.verdicts, format!("{}-{timeout}-{port}", remember.chain));
            }
            match (sticky, members.len(), group.empty) {
                (_, 0, Empty::Reject) => continue,
                (_, 0, Empty::Drop) => {
                    leads(&lane.verdicts, "drop".to_owned());
                    continue;
                }
                (Some((affinity, _)), ..) => {
                    leads(&lane.verdicts, format!("{}-{port}", affinity.chain));
                    leads(&affinity.unknown, pick);
                }
                (None, ..) => leads(&lane.verdicts, pick),
            }
            behaviour.endpoints.insert((lane.endpoints.to_string(), bytes), members.clone());
        }
    }
    behaviour
}

fn kernel_key(id: &GroupId, addr: Option<IpAddr>, port: u16) -> Vec<u8> {
    let key = addr.map_or(Key::new(), |a| Key::new().addr(a));
    key.proto(id.proto as u8).port(port).as_bytes().to_vec()
}

fn keys_of(set: &str) -> BTreeSet<Vec<u8>> {
    let mut connection = Connection::open().unwrap();
    connection
        .elements(Family::V4, set, BTreeSet::new, |all, e| {
            all.insert([e.key, e.key_end].concat());
        })
        .unwrap()
}

const SETS: [&str; 11] = [
    "cluster-ips",
    "external-ips",
    "nodeports",
    "firewall-ips",
    "firewall-ranges",
    "hairpin-connections",
    "nodeport-ips",
    "members",
    "outside-members",
    "nodeport-members",
    "outside-nodeport-members",
];

#[test]
fn random_histories_leave_the_kernel_as_a_rebuild_would() {
    in_namespace(|| {
        let endpoints = proptest::collection::btree_map(1u8..30, any::<bool>(), 0..20);
        let step =
            (0u8..5, proptest::option::weighted(0.9, 0u8..64), proptest::option::weighted(0.9, endpoints));
        let histories = proptest::collection::vec(step, 1..12);
        let mut runner =
            TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
        let result = runner.run(&histories, |history| {
            let mut controller = Controller::new();
            let mut applier = applier(None);
            for (n, keys, endpoints) in &history {
                let name = format!("ns/s{n}");
                controller
                    .compiler
                    .set_service(&name, keys.map(|keys| service(&format!("172.30.0.{n}"), keys)));
                let list =
                    endpoints.as_ref().map(|e| e.iter().map(|(n, own)| (*n, *own)).collect::<Vec<_>>());
                controller.compiler.set_slice(&name, list.map(|list| slice(&name, &list)));
                deliver(&mut controller, &mut applier);
                prop_assert_eq!(
                    kernel_behaviour(&applier, Family::V4),
                    expected_behaviour(&applier, Family::V4)
                );
            }
            let incremental = SETS.map(keys_of);
            applier.rebuild().unwrap();
            prop_assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
            prop_assert_eq!(incremental, SETS.map(keys_of));
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn one_endpoint_change_costs_the_same_few_messages_whatever_the_size() {
    in_namespace(|| {
        let mut messages = Vec::new();
        for services in [10u16, 1000] {
            let mut controller = Controller::new();
            let mut applier = applier(None);
            for n in 0..services {
                let (name, vip) = (format!("ns/s{n}"), format!("172.30.{}.{}", n / 250, n % 250));
                controller.compiler.set_service(&name, Some(service(&vip, 0)));
                controller
                    .compiler
                    .set_slice(&name, Some(slice(&name, &[(1, false), (2, false), (3, false)])));
            }
            assert!(deliver(&mut controller, &mut applier).rebuilt);
            controller
                .compiler
                .set_slice("ns/s5", Some(slice("ns/s5", &[(1, false), (9, false), (3, false)])));
            let replaced = deliver(&mut controller, &mut applier);
            assert!(!replaced.rebuilt);
            controller.compiler.set_slice("ns/s5", Some(slice("ns/s5", &[(9, false), (3, false)])));
            let removed = deliver(&mut controller, &mut applier);
            messages.push((
                replaced.applied.messages,
                replaced.applied.bytes,
                removed.applied.messages,
                removed.applied.bytes,
            ));
        }
        assert_eq!(messages[0], messages[1]);
        assert!(messages[0].0 <= 2 && messages[0].2 <= 4, "{messages:?}");
    });
}

#[test]
fn foreign_changes_are_noticed_named_and_repaired() {
    in_namespace(|| {
        let mut controller = Controller::new();
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 7)));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true), (2, false)])));
        let mut applier = applier(None);
        deliver(&mut controller, &mut applier);
        assert!(applier.repair().unwrap().is_none(), "our own changes are not foreign");
        let expected = kernel_behaviour(&applier, Family::V4);
        for change in [
            "flush ruleset",
            "delete table ip rulecast",
            "flush chain ip rulecast services",
            "flush map ip rulecast endpoints",
            "delete table ip6 rulecast",
        ] {
            let status = std::process::Command::new("nft").args(change.split(' ')).status();
            assert!(status.expect("these tests need the nft tool").success(), "{change}");
            let (why, _) = applier.repair().unwrap().unwrap_or_else(|| panic!("{change} went unnoticed"));
            assert!(why.contains("rulecast") && why.contains("by nft (pid"), "{why}");
            assert_eq!(kernel_behaviour(&applier, Family::V4), expected, "after {change}");
            assert!(applier.repair().unwrap().is_none());
        }
        let status = std::process::Command::new("nft").args(["add", "table", "ip", "other"]).status();
        assert!(status.unwrap().success());
        assert!(applier.repair().unwrap().is_none(), "other people's tables are not ours");
    });
}

#[test]
fn a_restart_serves_from_disk_and_goes_on_with_deltas() {
    in_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut controller = Controller::new();
        let mut first = applier(Some(Store::open(dir.path(), "default").unwrap()));
        assert!(first.restore().unwrap().is_none());
        for n in 1..20u8 {
            controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 5)));
            controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(n, true), (n + 1, false)])));
            deliver(&mut controller, &mut first);
        }
        let (before, head) = (kernel_behaviour(&first, Family::V4), first.head().cloned());
        drop(first);
        let mut second = applier(Some(Store::open(dir.path(), "default").unwrap()));
        second.restore().unwrap().expect("a bundle on disk");
        assert_eq!(second.head().map(|h| h.sequence), head.map(|h| h.sequence));
        assert_eq!(kernel_behaviour(&second, Family::V4), before);
        controller.compiler.set_slice("ns/s1", None);
        assert!(!deliver(&mut controller, &mut second).rebuilt);
        assert_eq!(kernel_behaviour(&second, Family::V4), expected_behaviour(&second, Family::V4));
    });
}

#[test]
fn a_refused_version_leaves_kernel_and_copy_alone() {
    in_namespace(|| {
        let mut controller = Controller::new();
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 0)));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true)])));
        let mut applier = applier(None);
        deliver(&mut controller, &mut applier);
        let (before, head) = (kernel_behaviour(&applier, Family::V4), applier.head().cloned().unwrap());
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(2, true)])));
        let (good, changes) = controller.publish();
        let delta = |changes: &[Change]| {
            Way::Deltas(vec![Delta {
                from: good.sequence - 1,
                to: good.sequence,
                previous: None,
                changes: changes.to_vec(),
            }])
        };
        for (what, bad, changes) in [
            ("another digest", Head { digest: head.digest.clone(), ..good.clone() }, changes.as_slice()),
            ("an older sequence", Head { sequence: 0, ..good.clone() }, &changes),
            ("another epoch without digest", Head { epoch: 3, ..good.clone() }, &changes),
            ("an unknown format", Head { format: 9, ..good.clone() }, &changes),
            ("a missing change", good.clone(), &changes[1..]),
            ("a change that does not fit", good.clone(), &[changes[0].clone(), changes[0].clone()]),
        ] {
            applier.offer(bad, delta(changes)).expect_err(what);
            assert_eq!(applier.head(), Some(&head), "{what}");
            assert_eq!(kernel_behaviour(&applier, Family::V4), before, "{what}");
        }
        applier.offer(good.clone(), delta(&changes)).unwrap();
        assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
    });
}

#[test]
fn sets_that_are_full_are_made_larger() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 1)));
        deliver(&mut controller, &mut applier);
        let mut rebuilt = 0;
        for count in [100u16, 700, 1500, 1400, 1600] {
            let endpoints = (0..count).map(|n| {
                let [high, low] = n.to_be_bytes();
                Endpoint::ready(IpAddr::from([10, 1, high, low]))
            });
            controller
                .compiler
                .set_slice("ns/s1", Some(Slice { endpoints: endpoints.collect(), ..slice("ns/s1", &[]) }));
            rebuilt += u32::from(deliver(&mut controller, &mut applier).rebuilt);
            assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
        }
        assert_eq!(rebuilt, 1, "once for 1,024 elements and more");
    });
}

/// The clients of the Service port 172.30.0.1:80.
const AFFINITY: &str = "affinity-tcp-172.30.0.1-80";

#[test]
fn clients_of_endpoints_that_left_are_forgotten() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let mut connection = Connection::open().unwrap();
        let sticky = |on: bool| Some(service("172.30.0.1", if on { 16 } else { 0 }));
        controller.compiler.set_service("ns/s1", sticky(true));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, false), (2, false)])));
        deliver(&mut controller, &mut applier);
        // As packets would have remembered them.
        let mut batch = Batch::new();
        for n in 0..210u8 {
            let client = Key::new().addr(IpAddr::from([10, 9, 9, n])).proto(6);
            let endpoint = Key::new().addr(ip(if n < 200 { "10.1.0.1" } else { "10.1.0.2" })).port(8080);
            batch.add_element(Family::V4, AFFINITY, &client, Value::Bytes(&endpoint));
        }
        connection.commit(batch).unwrap();
        applier.repair().unwrap();
        assert_eq!(keys_of(AFFINITY).len(), 210, "a rebuild keeps them");
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(2, false), (3, false)])));
        deliver(&mut controller, &mut applier);
        assert_eq!(keys_of(AFFINITY).len(), 10);
        // Nobody compares members while affinity is off.
        controller.compiler.set_service("ns/s1", sticky(false));
        deliver(&mut controller, &mut applier);
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(3, false)])));
        deliver(&mut controller, &mut applier);
        controller.compiler.set_service("ns/s1", sticky(true));
        deliver(&mut controller, &mut applier);
        assert!(keys_of(AFFINITY).is_empty());
    });
}

#[test]
fn what_session_affinity_needed_goes_with_it() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let own = || {
            let mut connection = Connection::open().unwrap();
            let sets = connection.sets(Family::V4).unwrap().into_iter().map(|set| set.name);
            let all = sets.chain(connection.chains(Family::V4).unwrap());
            all.filter(|name| name.contains("-tcp-")).collect::<BTreeSet<String>>()
        };
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true), (2, false)])));
        // ClusterIP and nodePort; then with a VIP and externalTrafficPolicy Local; then none; then gone.
        let mut seen = Vec::new();
        for keys in [Some(17), Some(23), Some(1), Some(23), None] {
            controller.compiler.set_service("ns/s1", keys.map(|keys| service("172.30.0.1", keys)));
            deliver(&mut controller, &mut applier);
            std::thread::sleep(std::time::Duration::from_millis(1100));
            assert!(applier.repair().unwrap().is_none(), "our own cleaning is not foreign");
            let left = own();
            applier.rebuild().unwrap();
            assert_eq!(left, own(), "a rebuild has neither more nor less");
            seen.push(left.len());
        }
        assert!(seen[0] > 0 && seen[1] > seen[0] && seen[3] == seen[1], "{seen:?}");
        assert_eq!((seen[2], seen[4]), (0, 0));
    });
}

#[test]
fn a_vip_may_be_the_source_where_a_range_holds_the_nodes_address() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let vip = "5.5.0.1";
        let ranges = |texts: &[(&str, u8)]| {
            let source_ranges = texts.iter().map(|(addr, len)| (ip(addr), *len)).collect();
            Some(Service { source_ranges, ..service("172.30.0.1", 2) })
        };
        let key = |first: &str, last: &str| {
            let vip = Key::new().addr(ip(vip)).proto(6).port(80);
            [vip.addr(ip(first)).as_bytes(), vip.addr(ip(last)).as_bytes()].concat()
        };
        let (own, node) = (key(vip, vip), key("192.168.0.0", "192.168.255.255"));
        let blocked = key("203.0.113.0", "203.0.113.255");
        let mut expect = |controller: &mut Controller, expected: &[&Vec<u8>], what: &str| {
            deliver(controller, &mut applier);
            let expected: BTreeSet<Vec<u8>> = expected.iter().map(|key| (*key).clone()).collect();
            assert_eq!(keys_of("firewall-ranges"), expected, "{what}");
            let before = keys_of("firewall-ranges");
            applier.rebuild().unwrap();
            assert_eq!(keys_of("firewall-ranges"), before, "{what}: rebuilt");
        };
        controller.compiler.set_service("ns/s1", ranges(&[("203.0.113.0", 24)]));
        expect(&mut controller, &[&blocked], "not the node's");
        controller.compiler.set_service("ns/s1", ranges(&[("203.0.113.0", 24), ("192.168.0.0", 16)]));
        expect(&mut controller, &[&blocked, &node, &own], "the node's address");
        let five = key("5.5.0.0", "5.5.255.255");
        controller.compiler.set_service("ns/s1", ranges(&[("192.168.0.0", 16), ("5.5.0.0", 16)]));
        expect(&mut controller, &[&node, &five], "the VIP is in a range already");
        controller.compiler.set_service("ns/s1", ranges(&[("192.168.0.0", 16)]));
        expect(&mut controller, &[&node, &own], "it is not any more");
        controller.compiler.set_node("n1", Some(Node { addrs: vec![ip("10.9.9.9")], ..Node::default() }));
        expect(&mut controller, &[&node], "the node has another address");
    });
}

#[test]
fn a_pool_by_node_cidr_has_the_nodes_own_prefixes_in_its_rules() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let options = Options { detect_local: DetectLocal::NodeCidr, ..Options::default() };
        controller.compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        let mut applier = applier(None);
        let mut rules = |controller: &mut Controller, pod_cidrs: Vec<(IpAddr, u8)>| {
            let node = Node { addrs: vec![ip("192.168.0.1")], pod_cidrs, ..Node::default() };
            controller.compiler.set_node("n1", Some(node));
            deliver(controller, &mut applier);
            let list = std::process::Command::new("nft").args(["list", "ruleset"]).output();
            let text = String::from_utf8(list.expect("these tests need the nft tool").stdout).unwrap();
            text.lines()
                .filter(|l| l.contains("saddr") && l.contains('/'))
                .map(|l| l.trim().to_owned())
                .collect()
        };
        let none: Vec<String> = rules(&mut controller, vec![]);
        assert!(none.is_empty(), "nothing is known: no rule takes anything for a pod: {none:?}");
        let two =
            rules(&mut controller, vec![(ip("10.1.0.0"), 24), (ip("10.2.0.0"), 24), (ip("fd01::"), 64)]);
        let with = |text: &str| two.iter().filter(|rule| rule.contains(text)).count();
        assert_eq!(with("saddr != 10.1.0.0/24 ip saddr != 10.2.0.0/24"), 1, "{two:?}");
        assert_eq!(with("ip saddr 10.1.0.0/24 ip daddr"), 1, "{two:?}");
        assert_eq!((with("fd01::/64"), with("10.2.0.0/24")), (3, 3), "{two:?}");
    });
}
