//! Which endpoints a node uses: upstream's TestCategorizeEndpoints, in the terms of the bundle.

mod common;

use common::*;
use rulecast_bundle::{Empty, GroupId, GroupKind, Key, Proto, Scope, Value};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{Endpoint, Service, ServicePort};

const VIP: &str = "172.30.0.1";

fn cluster(endpoints: Vec<Endpoint>, node: &str, zone: &str) -> Vec<String> {
    members(&compile(service(VIP), vec![slice(endpoints)]), group(VIP, GroupKind::Cluster), node, zone)
}

#[test]
fn zone_hints_filter_when_every_ready_endpoint_has_one() {
    let all = || {
        vec![
            hinted("10.1.0.1", "n1", &["a"], &[]),
            hinted("10.1.0.2", "n2", &["b"], &[]),
            hinted("10.1.0.3", "n3", &["b", "c"], &[]),
        ]
    };
    assert_eq!(cluster(all(), "x", "a"), ["10.1.0.1:8080"]);
    assert_eq!(cluster(all(), "x", "b"), ["10.1.0.2:8080", "10.1.0.3:8080"]);
    assert_eq!(cluster(all(), "x", "c"), ["10.1.0.3:8080"]);
    assert_eq!(cluster(all(), "x", "unknown").len(), 3, "a zone that no hint names uses everything");
    let mut one_unhinted = all();
    one_unhinted[1].zones.clear();
    assert_eq!(cluster(one_unhinted, "x", "a").len(), 3);
    let mut unready = all();
    unready[0].ready = false;
    assert_eq!(cluster(unready, "x", "a").len(), 2, "only unready endpoints in my zone: no filtering");
}

#[test]
fn node_hints_come_before_zone_hints() {
    let all = || vec![hinted("10.1.0.1", "n1", &["a"], &["n1"]), hinted("10.1.0.2", "n2", &["a"], &["n2"])];
    assert_eq!(cluster(all(), "n1", "a"), ["10.1.0.1:8080"]);
    assert_eq!(cluster(all(), "n3", "a").len(), 2, "none for this node: zone hints, here all");
    let mut some_unhinted = all();
    some_unhinted[0].nodes.clear();
    assert_eq!(cluster(some_unhinted, "n2", "a").len(), 2);
}

#[test]
fn terminating_endpoints_serve_only_when_nothing_is_ready() {
    let serving = terminating("10.1.0.1", "n1");
    assert_eq!(cluster(vec![serving.clone(), ready("10.1.0.2", "n2")], "x", ""), ["10.1.0.2:8080"]);
    assert_eq!(cluster(vec![serving.clone()], "x", ""), ["10.1.0.1:8080"]);
    let not_serving = Endpoint { serving: false, ..serving.clone() };
    assert!(cluster(vec![not_serving], "x", "").is_empty());
    let serving_not_terminating = Endpoint { terminating: false, ..serving.clone() };
    assert!(cluster(vec![serving_not_terminating], "x", "").is_empty());
    let ready_and_terminating = Endpoint { ready: true, ..serving };
    assert_eq!(
        cluster(vec![ready_and_terminating, terminating("10.1.0.9", "n1")], "x", ""),
        ["10.1.0.1:8080"]
    );
}

fn local(endpoints: Vec<Endpoint>, node: &str) -> (Vec<String>, Empty) {
    let compiler = compile(Service { internal_local: true, ..service(VIP) }, vec![slice(endpoints)]);
    let id = group(VIP, GroupKind::Local);
    let empty = records(&compiler).into_iter().find_map(|(key, value)| match (key, value) {
        (Key::Group(group), Value::Group(value)) if group == id => Some(value.empty),
        _ => None,
    });
    (members(&compiler, id, node, ""), empty.expect("a local group"))
}

#[test]
fn local_lists_are_each_nodes_own() {
    let all = || {
        vec![
            ready("10.1.0.1", "n1"),
            ready("10.1.0.2", "n2"),
            terminating("10.1.0.3", "n2"),
            terminating("10.1.0.4", "n3"),
        ]
    };
    assert_eq!(local(all(), "n1").0, ["10.1.0.1:8080"]);
    assert_eq!(local(all(), "n2").0, ["10.1.0.2:8080"], "ready ones before terminating ones");
    assert_eq!(local(all(), "n3").0, ["10.1.0.4:8080"], "terminating where nothing else is");
    assert_eq!(local(all(), "n4"), (vec![], Empty::Drop), "endpoints elsewhere: dropped");
    assert_eq!(local(vec![], "n1"), (vec![], Empty::Reject), "none anywhere: refused");
    let hints = vec![hinted("10.1.0.1", "n1", &["b"], &["n2"])];
    assert_eq!(local(hints, "n1").0, ["10.1.0.1:8080"], "hints do not matter");
}

#[test]
fn duplicates_in_several_slices_count_once_and_the_most_usable_wins() {
    let unready = Endpoint { ready: false, ..ready("10.1.0.1", "n1") };
    let slices = vec![
        slice(vec![unready, ready("10.1.0.2", "n1")]),
        slice(vec![ready("10.1.0.1", "n1"), ready("10.1.0.2", "n1")]),
    ];
    let compiler = compile(service(VIP), slices);
    assert_eq!(
        members(&compiler, group(VIP, GroupKind::Cluster), "x", ""),
        ["10.1.0.1:8080", "10.1.0.2:8080"]
    );
}

#[test]
fn of_an_address_in_several_slices_what_does_not_terminate_counts() {
    // The address of a pod that ends is already a new pod's, which is not ready.
    let (ends, new) =
        (terminating("10.1.0.1", "n1"), Endpoint { serving: false, ready: false, ..ready("10.1.0.1", "n1") });
    let both = |list: [Endpoint; 2]| {
        let compiler = compile(service(VIP), list.map(|e| slice(vec![e])).to_vec());
        members(&compiler, group(VIP, GroupKind::Cluster), "x", "")
    };
    assert!(both([ends.clone(), new.clone()]).is_empty());
    assert!(both([new, ends.clone()]).is_empty());
    assert_eq!(both([ends, ready("10.1.0.1", "n2")]), ["10.1.0.1:8080"]);
}

#[test]
fn ports_match_by_name_and_protocol() {
    let mut other_name = slice(vec![ready("10.1.0.1", "n1")]);
    other_name.ports[0].name = "other".into();
    let compiler = compile(service(VIP), vec![other_name]);
    assert!(members(&compiler, group(VIP, GroupKind::Cluster), "x", "").is_empty());
}

#[test]
fn addresses_that_reach_into_the_node_are_left_out_and_reported() {
    let bad = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255"];
    let mut endpoints: Vec<Endpoint> = bad.iter().map(|a| ready(a, "n1")).collect();
    endpoints.push(ready("10.1.0.1", "n1"));
    let compiler = compile(service(VIP), vec![slice(endpoints)]);
    assert_eq!(members(&compiler, group(VIP, GroupKind::Cluster), "x", ""), ["10.1.0.1:8080"]);
    let problems = &problems(&compiler)["ns/web"];
    for addr in bad {
        assert!(problems.contains(addr), "{addr} in {problems}");
    }
}

fn problems(compiler: &Compiler) -> std::collections::BTreeMap<String, String> {
    compiler.pools().next().unwrap().1.problems().clone()
}

/// Endpoints at which UDP flows may stay although no new connection goes there.
fn only_serving(endpoints: Vec<Endpoint>, service: Service, kind: GroupKind) -> Vec<String> {
    let mut slice = slice(endpoints);
    slice.ports[0].proto = Proto::Udp;
    let ports = vec![ServicePort { proto: Proto::Udp, ..tcp("", 80) }];
    let compiler = compile(Service { ports, ..service }, vec![slice]);
    let id = GroupId { proto: Proto::Udp, ..group(VIP, kind) };
    let is = |key: &Key| match key {
        Key::Member { group, scope: Scope::Serving, addr, .. } if *group == id => Some(addr.to_string()),
        _ => None,
    };
    records(&compiler).iter().filter_map(|(key, _)| is(key)).collect()
}

#[test]
fn what_still_serves_is_listed_for_udp_flows() {
    let all = || {
        vec![
            ready("10.1.0.1", "n1"),
            terminating("10.1.0.2", "n2"),
            Endpoint { terminating: false, ..terminating("10.1.0.3", "n2") },
            Endpoint { serving: false, ..terminating("10.1.0.4", "n2") },
        ]
    };
    let cluster = |list| only_serving(list, service(VIP), GroupKind::Cluster);
    assert_eq!(cluster(all()), ["10.1.0.2", "10.1.0.3"], "the ready one is in the list of all nodes");
    assert_eq!(cluster(all()[1..].to_vec()), ["10.1.0.3"], "so is the terminating one, with nothing ready");
    let local = Service { internal_local: true, ..service(VIP) };
    let everything = only_serving(all(), local, GroupKind::Local);
    assert_eq!(everything, ["10.1.0.1", "10.1.0.2", "10.1.0.3"], "no list of all nodes");
    let tcp = compile(service(VIP), vec![slice(all())]);
    let serving = |key: &Key| matches!(key, Key::Member { scope: Scope::Serving, .. });
    assert!(!records(&tcp).iter().any(|(key, _)| serving(key)), "TCP connections are left alone");
}
