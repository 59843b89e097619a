//! From Services to kernel keys, and the incremental compiler against one that starts from scratch.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::*;
use proptest::prelude::*;
use rulecast_bundle::nft::{Ruleset, Statement};
use rulecast_bundle::{
    Bundle, GroupId, GroupKind, HealthCheck, Key, LaneKey, MAX_LANE_KEYS, Part, Proto, Value,
};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{DetectLocal, Node, Options, Pool, Service, ServicePort, Slice};

fn keys(compiler: &Compiler, vip: &str, kind: GroupKind) -> Vec<LaneKey> {
    let id = group(vip, kind);
    let found = records(compiler).into_iter().find_map(|(key, value)| match value {
        Value::Group(value) if key == Key::Group(id) => Some(value.keys),
        _ => None,
    });
    found.unwrap_or_default()
}

fn key(lane: u8, addr: Option<&str>, port: u16) -> LaneKey {
    LaneKey { lane, addr: addr.map(ip), port }
}

fn load_balancer() -> Service {
    let ports = vec![ServicePort { node_port: Some(30080), ..tcp("", 80) }];
    let (load_balancer_ips, external_ips) = (vec![ip("5.5.5.5")], vec![ip("6.6.6.6"), ip("5.5.5.5")]);
    Service { load_balancer_ips, external_ips, ports, ..service("172.30.0.1") }
}

#[test]
fn external_addresses_follow_the_external_policy() {
    let compiler = compile(load_balancer(), vec![]);
    let all = [
        key(0, Some("172.30.0.1"), 80),
        key(2, Some("5.5.5.5"), 80),
        key(2, Some("6.6.6.6"), 80),
        key(5, None, 30080),
    ];
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster), all);
    assert!(keys(&compiler, "172.30.0.1", GroupKind::Local).is_empty());

    let compiler = compile(Service { external_local: true, ..load_balancer() }, vec![]);
    let inside = [
        key(0, Some("172.30.0.1"), 80),
        key(3, Some("5.5.5.5"), 80),
        key(3, Some("6.6.6.6"), 80),
        key(6, None, 30080),
    ];
    let outside = [key(4, Some("5.5.5.5"), 80), key(4, Some("6.6.6.6"), 80), key(7, None, 30080)];
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster), inside);
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Local), outside);

    let compiler = compile(Service { internal_local: true, ..load_balancer() }, vec![]);
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Local), [key(1, Some("172.30.0.1"), 80)]);
}

#[test]
fn both_families_compile_to_groups_of_their_own() {
    let dual = Service { cluster_ips: vec![ip("172.30.0.1"), ip("fd00::1")], ..load_balancer() };
    let compiler = compile(dual, vec![]);
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster).len(), 4);
    assert_eq!(
        keys(&compiler, "fd00::1", GroupKind::Cluster),
        [key(0, Some("fd00::1"), 80), key(5, None, 30080)]
    );
}

#[test]
fn source_ranges_hold_for_load_balancer_addresses_and_do_not_overlap() {
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "203.0.113.0/24", "fd00::/8"].map(|text| {
        let (addr, len) = text.split_once('/').unwrap();
        (ip(addr), len.parse().unwrap())
    });
    let compiler = compile(Service { source_ranges: ranges.to_vec(), ..load_balancer() }, vec![]);
    let elements: Vec<_> = records(&compiler)
        .into_iter()
        .filter_map(|(key, _)| match key {
            Key::Element { set, parts, .. } => Some((set.to_string(), parts)),
            _ => None,
        })
        .collect();
    let vip = [Part::Addr(ip("5.5.5.5")), Part::Proto(Proto::Tcp), Part::Port(80)];
    let range =
        |addr, len| ("firewall-ranges".to_owned(), [&vip[..], &[Part::Prefix(ip(addr), len)]].concat());
    assert_eq!(
        elements,
        [("firewall-ips".to_owned(), vip.to_vec()), range("10.0.0.0", 8), range("203.0.113.0", 24)]
    );
}

#[test]
fn the_stronger_claim_has_the_address_and_the_other_hears_why() {
    let mut compiler = compiler();
    compiler.set_service(
        "a/thief",
        Some(Service { external_ips: vec![ip("172.30.0.1")], ..service("172.30.0.9") }),
    );
    compiler.set_service("b/owner", Some(service("172.30.0.1")));
    compiler.compile();
    assert_eq!(keys(&compiler, "172.30.0.9", GroupKind::Cluster), [key(0, Some("172.30.0.9"), 80)]);
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster), [key(0, Some("172.30.0.1"), 80)]);
    let problems = |c: &Compiler| c.pools().next().unwrap().1.problems().clone();
    assert!(problems(&compiler)["a/thief"].contains("172.30.0.1:80/TCP belongs to another Service"));

    // When the owner goes, the claim moves; when the cluster IP is reused, it moves back.
    compiler.set_service("b/owner", None);
    compiler.compile();
    assert_eq!(keys(&compiler, "172.30.0.9", GroupKind::Cluster).len(), 2);
    assert!(problems(&compiler).is_empty());
    compiler.set_service("c/next", Some(service("172.30.0.1")));
    compiler.compile();
    assert_eq!(keys(&compiler, "172.30.0.9", GroupKind::Cluster).len(), 1);
}

#[test]
fn a_cluster_ip_goes_from_one_service_to_another_in_one_step() {
    let mut compiler = compile(service("172.30.0.1"), vec![slice(vec![ready("10.1.0.1", "n1")])]);
    let _ = compiler.pool_mut("default").unwrap().take_changes();
    compiler.set_service("ns/web", None);
    compiler.set_service("ns/aaa", Some(service("172.30.0.1")));
    compiler.set_slice(
        "ns/aaa-0",
        Some(Slice { service: "ns/aaa".into(), ..slice(vec![ready("10.1.0.1", "n1")]) }),
    );
    compiler.compile();
    let changes = compiler.pool_mut("default").unwrap().take_changes();
    assert_eq!(changes.len(), 1, "only the group's owner changed: {changes:?}");
    assert_eq!(members(&compiler, group("172.30.0.1", GroupKind::Cluster), "x", ""), ["10.1.0.1:8080"]);
}

#[test]
fn a_change_that_is_taken_back_is_no_change() {
    let mut compiler = compile(service("172.30.0.1"), vec![slice(vec![ready("10.1.0.1", "n1")])]);
    let pool = compiler.pool_mut("default").unwrap();
    assert!(!pool.take_changes().is_empty());
    compiler.set_slice("ns/web-0", Some(slice(vec![])));
    compiler.compile();
    let lost = compiler.pool_mut("default").unwrap().take_changes();
    assert_eq!(lost.len(), 1);
    compiler.set_slice("ns/web-0", Some(slice(vec![ready("10.1.0.1", "n1")])));
    compiler.compile();
    let pool = compiler.pool_mut("default").unwrap();
    assert!(pool.has_changes());
    pool.put_back();
    assert!(!pool.has_changes(), "the failed publication and what followed cancel out");
}

/// Endpoint number, node number, ready.
type Endpoints = Vec<(u8, u8, bool)>;

/// One step of a history: Service, slice or node number, and what it becomes.
#[derive(Debug, Clone)]
enum Step {
    Service(u8, Option<(u8, bool, bool, bool)>),
    Slice(u8, Option<(u8, Endpoints)>),
    Node(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let service = proptest::option::of((0u8..4, any::<bool>(), any::<bool>(), any::<bool>()));
    let endpoints = proptest::collection::vec((0u8..6, 0u8..3, any::<bool>()), 0..5);
    prop_oneof![
        (0u8..5, service).prop_map(|(n, s)| Step::Service(n, s)),
        (0u8..6, proptest::option::of((0u8..5, endpoints))).prop_map(|(n, s)| Step::Slice(n, s)),
        (0u8..3, any::<bool>()).prop_map(|(n, there)| Step::Node(n, there)),
    ]
}

fn service_of((vip, internal_local, external_local, shared): (u8, bool, bool, bool)) -> Service {
    let external_ips = if shared { vec![ip("9.9.9.9"), ip("172.30.0.2")] } else { vec![] };
    Service { internal_local, external_local, external_ips, ..service(&format!("172.30.0.{vip}")) }
}

fn slice_of(owner: u8, endpoints: &[(u8, u8, bool)]) -> Slice {
    let endpoints = endpoints.iter().map(|(addr, node, is_ready)| {
        let (addr, node) = (format!("10.1.0.{addr}"), format!("n{node}"));
        if *is_ready { hinted(&addr, &node, &["a"], &[]) } else { terminating(&addr, &node) }
    });
    Slice { service: format!("ns/s{owner}"), ..slice(endpoints.collect()) }
}

fn take(compiler: &mut Compiler, step: &Step) {
    match step {
        Step::Service(n, s) => compiler.set_service(&format!("ns/s{n}"), s.map(service_of)),
        Step::Slice(n, s) => {
            compiler.set_slice(&format!("ns/slice{n}"), s.as_ref().map(|(owner, eps)| slice_of(*owner, eps)));
        }
        Step::Node(n, there) => compiler.set_node(&format!("n{n}"), there.then(Node::default)),
    }
}

proptest! {
    #[test]
    fn any_history_gives_the_bytes_of_a_fresh_compile(history in proptest::collection::vec((step(), any::<bool>()), 0..40)) {
        let mut incremental = compiler();
        let mut follower = Bundle::default();
        let mut last: BTreeMap<(u8, u8), Step> = BTreeMap::new();
        for (step, compile_now) in &history {
            take(&mut incremental, step);
            let key = match step { Step::Service(n, _) => (0, *n), Step::Slice(n, _) => (1, *n), Step::Node(n, _) => (2, *n) };
            last.insert(key, step.clone());
            if *compile_now {
                incremental.compile();
                let changes = incremental.pool_mut("default").unwrap().take_changes();
                let _ = follower.apply(&changes).unwrap();
            }
        }
        incremental.compile();
        let _ = follower.apply(&incremental.pool_mut("default").unwrap().take_changes()).unwrap();
        let mut scratch = compiler();
        for step in last.values().rev() {
            take(&mut scratch, step);
        }
        scratch.compile();
        let fresh = scratch.pools().next().unwrap().1;
        let compiled = incremental.pools().next().unwrap().1;
        prop_assert_eq!(compiled.bundle().records(), fresh.bundle().records());
        prop_assert_eq!(compiled.bundle().root(), fresh.bundle().root());
        prop_assert_eq!(follower.root(), fresh.bundle().root());
        prop_assert_eq!(compiled.stats(), fresh.stats());
        prop_assert_eq!(compiled.problems(), fresh.problems());
    }
}

#[test]
fn rules_survive_their_encoding_and_are_refused_in_the_other_family() {
    let records = records(&compile(service("172.30.0.1"), vec![]));
    let rules: Vec<_> = records.iter().filter(|(key, _)| matches!(key, Key::Rules(_))).collect();
    assert_eq!(rules.len(), 2);
    for (key, value) in &rules {
        assert_eq!(&Value::decode(key, &value.encode(key)).unwrap(), value);
    }
    let (other, (key, value)) = (&rules[1].0, rules[0]);
    assert!(Value::decode(other, &value.encode(key)).is_err(), "IPv4 prefixes in the IPv6 table");
}

#[test]
fn a_service_that_does_not_fit_the_format_is_left_out_alone() {
    let many = (0..5000u32).map(|n| IpAddr::from((0x0505_0000 + n).to_be_bytes())).collect();
    let mut compiler = compile(Service { external_ips: many, ..service("172.30.0.1") }, vec![]);
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster).len(), MAX_LANE_KEYS - 1);
    let name = format!("ns/{}", "x".repeat(600));
    compiler.set_service(&name, Some(service("172.30.0.2")));
    compiler.compile();
    assert!(keys(&compiler, "172.30.0.2", GroupKind::Cluster).is_empty());
    let pool = compiler.pool_mut("default").unwrap();
    assert!(pool.problems()["ns/web"].contains("too many"), "{:?}", pool.problems());
    assert!(pool.problems()[&name].contains("does not fit"), "{:?}", pool.problems());
    assert!(!pool.take_changes().is_empty());
}

#[test]
fn options_that_do_not_fit_the_format_leave_the_rules_as_they_were() {
    let mut compiler = compile(service("172.30.0.1"), vec![]);
    let before = records(&compiler);
    let pods = (0..40).map(|n| (IpAddr::from([10, n, 0, 0]), 16)).collect();
    let options = Options { detect_local: DetectLocal::ClusterCidr(pods), ..options() };
    compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
    compiler.compile();
    assert!(records(&compiler) == before, "the rules changed");
    assert!(
        compiler.pool_mut("default").unwrap().problems()["the pool's options"].contains("previous ones stay")
    );
}

#[test]
fn external_ips_that_are_not_allowed_are_left_out_and_told() {
    let with = Service { external_ips: vec![ip("9.9.9.9")], ..service("172.30.0.1") };
    let mut compiler = compile(with.clone(), vec![]);
    assert!(compiler.pool_mut("default").unwrap().ignored_external_ips().is_empty());
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster).len(), 2);
    let options = Options { allow_external_ips: false, ..options() };
    compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
    compiler.compile();
    assert_eq!(keys(&compiler, "172.30.0.1", GroupKind::Cluster), [key(0, Some("172.30.0.1"), 80)]);
    let pool = compiler.pool_mut("default").unwrap();
    assert_eq!(pool.ignored_external_ips().iter().map(|s| &**s).collect::<Vec<_>>(), ["ns/web"]);
    assert!(pool.problems().is_empty(), "nothing is wrong with the Service");
    compiler.set_service("ns/web", Some(Service { external_ips: vec![], ..with }));
    compiler.compile();
    assert!(compiler.pool_mut("default").unwrap().ignored_external_ips().is_empty());
}

#[test]
fn a_health_check_counts_the_local_lists_also_where_no_traffic_uses_them() {
    // A load balancer without an address yet, and without nodePorts.
    let bare = Service { external_local: true, health_check_node_port: Some(32000), ..service("172.30.0.1") };
    let compiler = compile(bare, vec![]);
    let id = GroupId { addr: ip("172.30.0.1"), port: 80, proto: Proto::Tcp, kind: GroupKind::Local };
    let check = HealthCheck { owner: "ns/web".to_owned(), groups: vec![id] };
    assert!(records(&compiler).contains(&(Key::HealthCheck(32000), Value::HealthCheck(check))));
    assert!(keys(&compiler, "172.30.0.1", GroupKind::Local).is_empty());
}

#[test]
fn each_way_of_local_detection_masquerades_and_short_cuts_by_its_own_statement() {
    let rules = |detect_local: DetectLocal, masquerade_all: bool| {
        let mut compiler = compile(service("172.30.0.1"), vec![]);
        let options = Options { detect_local, masquerade_all, ..Options::default() };
        compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        compiler.compile();
        let rules = records(&compiler).into_iter().find_map(|(key, value)| {
            assert_eq!(Value::decode(&key, &value.encode(&key)).as_ref(), Ok(&value), "{key:?}");
            if let Value::Rules(rules) = value { Some(*rules) } else { None }
        });
        rules.expect("rules of IPv4")
    };
    let is_local = |s: &Statement| {
        let (Statement::InPrefix { negate, .. }
        | Statement::FromPods { negate }
        | Statement::InputInterface { negate, .. }) = s
        else {
            return None;
        };
        Some(*negate)
    };
    let chain = |rules: &Ruleset, name: &str| -> Vec<bool> {
        let chain = rules.chains.iter().find(|c| c.name.as_str() == name).unwrap();
        chain.rules.iter().flatten().filter_map(is_local).collect()
    };
    let name = "cbr0".to_owned();
    for (detect, tests) in [
        (DetectLocal::None, 0),
        (DetectLocal::ClusterCidr(vec![(ip("10.0.0.0"), 8), (ip("11.0.0.0"), 8), (ip("fd00:10::"), 32)]), 2),
        (DetectLocal::NodeCidr, 1),
        (DetectLocal::BridgeInterface(name.clone()), 1),
        (DetectLocal::InterfaceNamePrefix(name), 1),
    ] {
        let base = rules(detect.clone(), false);
        assert_eq!(chain(&base, "services"), vec![true; tests], "{detect:?}");
        assert_eq!(chain(&base, "local-policy-ips"), vec![false; tests], "{detect:?}");
        let all = rules(detect.clone(), true);
        assert!(chain(&all, "services").is_empty(), "everything is masqueraded");
        assert_eq!(chain(&all, "local-policy-ips"), vec![false; tests], "{detect:?}");
    }
}
