//! What happens to Services in their lives; traffic has to be right after every step.

use std::net::SocketAddr;

use anyhow::ensure;
use rulecast_tests::probe::{self, Answer};
use rulecast_tests::serve::KEEP;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::fixture::{Fixture, slices, vips};
use crate::flows::Wanted;
use crate::objects::Kind;
use crate::probes::Source;
use crate::sequence::Sequence;
use crate::worlds::Worlds;

const IPS: [&str; 2] = ["10.96.0.101", "fd00:96::101"];
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// A Service at fixed cluster IPs, whose third port is for connections that last.
fn service(name: &str, worlds: &Worlds, endpoints: &[&str]) -> Fixture {
    let more = json!({
        "clusterIP": IPS[0], "clusterIPs": IPS,
        "ports": [
            { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080 },
            { "name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080 },
            { "name": "keep", "protocol": "TCP", "port": KEEP, "targetPort": KEEP },
        ],
    });
    let fixture = Fixture::new(name, "ClusterIP", 0, &more);
    fixture.slices_with(&worlds.peer.network, "", &ports("tcp", "udp", 8080), endpoints)
}

fn ports(tcp: &str, udp: &str, port: u16) -> Value {
    json!([
        { "name": tcp, "protocol": "TCP", "port": port },
        { "name": udp, "protocol": "UDP", "port": port },
        { "name": "keep", "protocol": "TCP", "port": KEEP },
    ])
}

/// Other endpoints.
fn endpoints(worlds: &mut Worlds, name: &str, endpoints: &[&str]) -> anyhow::Result<()> {
    worlds.apply(&slices(&worlds.peer.network, name, "", &ports("tcp", "udp", 8080), endpoints))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IPS[0].parse().expect("an address"), port)
}

/// What happens, the endpoints then, those that serve, those for new connections.
type Step = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

pub(crate) fn endpoints_come_and_go(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "life";
    let mut s = Sequence::new(worlds, &[name])?;
    s.step("created", |w| w.set(&service(name, w, &["a1", "b1"])))?;
    s.open_flows(Source::Pod("a3"), at(80), Some(at(KEEP)))?;
    let steps: [Step; 9] = [
        ("one is added", &["a1", "b1", "b2"], &["a1", "b1", "b2"], &["a1", "b1", "b2"]),
        ("one becomes unready", &["a1", "b1:unready"], &["a1"], &["a1"]),
        ("it comes back", &["a1", "b1"], &["a1", "b1"], &["a1", "b1"]),
        ("one is terminating", &["a1:terminating", "b1"], &["a1", "b1"], &["b1"]),
        ("all are terminating", &["a1:terminating", "b1:terminating"], &["a1", "b1"], &["a1", "b1"]),
        ("one has ended", &["b1"], &["b1"], &["b1"]),
        ("nobody serves", &["b1:dead"], &[], &[]),
        ("all are replaced", &["a2", "b2"], &["a2", "b2"], &["a2", "b2"]),
        ("none is left", &[], &[], &[]),
    ];
    for (what, words, serving, usable) in steps {
        let with_port = |pods: &[&str]| pods.iter().map(|pod| format!("{pod} 8080")).collect::<Vec<_>>();
        let (serving, usable) = (with_port(serving), with_port(usable));
        let serving: Vec<&str> = serving.iter().map(String::as_str).collect();
        let usable: Vec<&str> = usable.iter().map(String::as_str).collect();
        let wanted = Wanted { serving: &serving, usable: &usable };
        s.step_with_flows(what, wanted, |w| endpoints(w, name, words))?;
    }
    let wanted = Wanted { serving: &["b1 8080"], usable: &["b1 8080"] };
    s.step_with_flows("one is back", wanted, |w| endpoints(w, name, &["b1"]))?;
    let wanted = Wanted { serving: &[], usable: &[] };
    s.step_with_flows("the slices are gone", wanted, |w| w.delete_slices(&[name]))?;
    let wanted = Wanted { serving: &["b1 8080"], usable: &["b1 8080"] };
    s.step_with_flows("they are back", wanted, |w| endpoints(w, name, &["b1"]))?;
    let wanted = Wanted { serving: &[], usable: &[] };
    s.step_with_flows("the Service is deleted", wanted, |w| w.delete(name))?;
    s.end()
}

pub(crate) fn types_change(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "types";
    let spec = |spec: Value| json!({ "spec": spec });
    let mut s = Sequence::new(worlds, &[name])?;
    s.step("ClusterIP", |w| w.set(&service(name, w, &["a1", "b1"])))?;
    s.open_flows(Source::Pod("a3"), at(80), Some(at(KEEP)))?;
    let both = ["a1 8080", "b1 8080"];
    let stay = Wanted { serving: &both, usable: &both };
    s.step_with_flows("NodePort", stay, |w| {
        w.patch(Kind::Service, name, &spec(json!({ "type": "NodePort" })))
    })?;
    s.step_with_flows("LoadBalancer", stay, |w| {
        w.patch(Kind::Service, name, &spec(json!({ "type": "LoadBalancer" })))?;
        let mut fixture = service(name, w, &[]).at(&vips(110));
        fixture.service["spec"]["type"] = "LoadBalancer".into();
        w.set_statuses(&[fixture.status()])
    })?;
    for (field, value) in [
        ("externalTrafficPolicy", "Local"),
        ("internalTrafficPolicy", "Local"),
        ("externalTrafficPolicy", "Cluster"),
        ("internalTrafficPolicy", "Cluster"),
        ("externalTrafficPolicy", "Local"),
    ] {
        let what = format!("{field} {value}");
        s.step_with_flows(&what, stay, |w| w.patch(Kind::Service, name, &spec(json!({ field: value }))))?;
    }
    s.step_with_flows("source ranges", stay, |w| {
        w.patch(
            Kind::Service,
            name,
            &spec(json!({ "loadBalancerSourceRanges": ["198.51.100.0/24", "2001:db8:51::/64"] })),
        )
    })?;
    s.step_with_flows("no source ranges", stay, |w| {
        w.patch(Kind::Service, name, &spec(json!({ "loadBalancerSourceRanges": null })))
    })?;
    let gone = Wanted { serving: &[], usable: &[] };
    s.step_with_flows("ExternalName", gone, |w| {
        w.patch(
            Kind::Service,
            name,
            &spec(json!({
                "type": "ExternalName", "externalName": "example.org", "externalTrafficPolicy": null,
                "internalTrafficPolicy": null, "clusterIP": null, "clusterIPs": null, "ipFamilies": null,
                "ipFamilyPolicy": null, "healthCheckNodePort": null, "allocateLoadBalancerNodePorts": null,
            })),
        )
    })?;
    s.step_with_flows("ClusterIP again", stay, |w| {
        w.patch(
            Kind::Service,
            name,
            &spec(json!({
                "type": "ClusterIP", "externalName": null, "clusterIP": IPS[0], "clusterIPs": IPS,
                "ipFamilyPolicy": "RequireDualStack",
            })),
        )
    })?;
    s.end()
}

pub(crate) fn ports_change(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "ports";
    let mut s = Sequence::new(worlds, &[name])?;
    s.step("created", |w| w.set(&service(name, w, &["a1", "b1"])))?;
    s.open_flows(Source::Pod("a3"), at(80), Some(at(KEEP)))?;
    let moved = ["a1 9090", "b1 9090"];
    let moved = Wanted { serving: &moved, usable: &moved };
    let all = ["a1", "b1"];
    let set = |w: &mut Worlds, ports: &Value| w.apply(&slices(&w.peer.network, name, "", ports, &all));
    s.step_with_flows("another targetPort", moved, |w| set(w, &ports("tcp", "udp", 9090)))?;
    let with_ports = |tcp: &str, udp: &str, port: u16| {
        json!({ "spec": { "ports": [
            { "name": tcp, "protocol": "TCP", "port": port, "targetPort": 9090 },
            { "name": udp, "protocol": "UDP", "port": port, "targetPort": 9090 },
            { "name": "keep", "protocol": "TCP", "port": KEEP, "targetPort": KEEP },
        ]}})
    };
    // The slices still have the old names: there are no endpoints, for a moment.
    let none = Wanted { serving: &[], usable: &[] };
    s.step_with_flows("renamed in the Service", none, |w| {
        w.patch(Kind::Service, name, &with_ports("http", "quic", 80))
    })?;
    s.step_with_flows("renamed in the slices", moved, |w| set(w, &ports("http", "quic", 9090)))?;
    // Nobody says where flows to the old number should go.
    s.step_with_flows("renumbered", none, |w| w.patch(Kind::Service, name, &with_ports("http", "quic", 81)))?;
    s.step_with_flows("renumbered back", moved, |w| {
        w.patch(Kind::Service, name, &with_ports("http", "quic", 80))
    })?;
    s.end()
}

pub(crate) fn an_address_is_used_again(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let mut s = Sequence::new(worlds, &["first", "second"])?;
    s.step("the first has it", |w| w.set(&service("first", w, &["a1", "b1"])))?;
    s.open_flows(Source::Pod("a3"), at(80), Some(at(KEEP)))?;
    s.open_flows(Source::Node(1), at(80), None)?;
    let moved = Wanted { serving: &["b2 8080"], usable: &["b2 8080"] };
    s.step_with_flows("the second has it", moved, |w| {
        w.delete("first")?;
        w.set(&service("second", w, &["b2"]))
    })?;
    s.end()
}

/// A new pod may have the address of one that is still ending: whatever it is, it counts.
pub(crate) fn an_address_is_in_two_slices(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "twice";
    let mut s = Sequence::new(worlds, &[name])?;
    let ports = ports("tcp", "udp", 8080);
    for (what, old, new) in [
        ("both serve", "a1", "a1"),
        ("the new one is ready", "a1:terminating", "a1"),
        ("the new one is not ready", "a1:terminating", "a1:unready"),
        ("the old one is dead", "a1:dead", "a1"),
        ("neither serves", "a1:dead", "a1:unready"),
        ("both are ending", "a1:terminating", "a1:terminating"),
    ] {
        s.step(what, |w| {
            let fixture = service(name, w, &[old]);
            w.set(&fixture.slices_with(&w.peer.network, "-new", &ports, &[new]))
        })?;
    }
    s.end()
}

pub(crate) fn labels_are_toggled(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "labels";
    let mut s = Sequence::new(worlds, &[name])?;
    s.step("created", |w| w.set(&service(name, w, &["a1", "b1"])))?;
    let on = |label: &str, value: Value| json!({ "metadata": { "labels": { label: value } } });
    for (what, value) in [("another proxy's", json!("other")), ("ours again", Value::Null)] {
        s.step(what, |w| w.patch(Kind::Service, name, &on(PROXY_NAME, value)))?;
    }
    for (what, value) in [("the Service is headless", json!("")), ("no more", Value::Null)] {
        s.step(what, |w| w.patch(Kind::Service, name, &on(HEADLESS, value)))?;
    }
    for (what, value) in [("a slice is headless", json!("")), ("a slice no more", Value::Null)] {
        let patch = on(HEADLESS, value);
        let slice = format!("{name}-v4");
        s.step(what, |w| w.patch(Kind::EndpointSlice, &slice, &patch))?;
    }
    s.end()
}

/// A flow that is there before the Service is, as that of a program that only sends.
pub(crate) fn a_flow_waits_for_its_service(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "awaited";
    let mut s = Sequence::new(worlds, &[name])?;
    let none = Wanted { serving: &[], usable: &[] };
    let vip = SocketAddr::new(vips(111)[0], 80);
    s.open_flows(Source::Client, vip, None)?;
    s.open_flows(Source::Pod("a3"), at(80), None)?;
    s.open_flows(Source::Pod("a3"), vip, None)?;
    s.step_with_flows("without endpoints", none, |w| {
        let mut fixture = service(name, w, &[]).at(&vips(111));
        fixture.service["spec"]["type"] = "LoadBalancer".into();
        w.set(&fixture)
    })?;
    let all = ["a1 8080", "b1 8080"];
    let all = Wanted { serving: &all, usable: &all };
    s.step_with_flows("with endpoints", all, |w| endpoints(w, name, &["a1", "b1"]))?;
    s.end()
}

/// A connection that was refused must not keep its port from a later one. kube-proxy leaves an entry without translation in
/// conntrack for two minutes, where a node connects to its own nodePort.
pub(crate) fn what_was_refused_may_try_again_from_its_port(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let name = "refusing";
    let fixture = |worlds: &Worlds, endpoints: &[&str]| {
        Fixture::new(name, "NodePort", 30_014, &json!({})).slices(&worlds.peer.network, endpoints)
    };
    worlds.set(&fixture(worlds, &[]))?;
    worlds.settle()?;
    let try_again = |worlds: &Worlds, wanted: &str| {
        let node = &worlds.ours.network.nodes[0];
        wait_for(&format!("port 45000 to be {wanted}"), PATIENCE, || {
            let answer = probe::connect_from_port(&node.namespace, 45_000, (node.v4, 30_014).into())?;
            let seen = if answer == Answer::Refused { "refused" } else { answer.pod()? };
            ensure!(seen == wanted, "{seen}");
            Ok(())
        })
    };
    try_again(worlds, "refused")?;
    worlds.set(&fixture(worlds, &["b1"]))?;
    worlds.settle()?;
    try_again(worlds, "b1")?;
    worlds.delete(name)
}
