//! Traffic inside of the cluster: it follows every change.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::ensure;
use rulecast_tests::cluster::{Cluster, Service};
use rulecast_tests::namespace::Namespace;
use rulecast_tests::objects::{Endpoint, ready, service, unready};
use rulecast_tests::probe::{self, Answer, Proto};
use rulecast_tests::wait::{holds_for, wait_for_eq};
use serde_json::json;

/// Connections of each look: with three endpoints, one of them is missed once in 6,000 looks, and the look is repeated.
const CONNECTIONS: usize = 24;
pub(crate) const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];

/// Pods of both nodes that are nobody's endpoint.
pub(crate) fn inside(c: &Cluster) -> [&Namespace; 2] {
    ["a3", "b3"].map(|pod| &c.network.pod(pod).namespace)
}

fn names(pods: &[&str]) -> BTreeSet<String> {
    pods.iter().map(|pod| (*pod).to_owned()).collect()
}

/// Waits until just these pods answer, over both protocols.
pub(crate) fn answered_by(from: &[&Namespace], to: &[SocketAddr], pods: &[&str]) -> anyhow::Result<()> {
    let wanted = names(pods);
    for from in from {
        for (proto, to) in PROTOS.iter().flat_map(|proto| to.iter().map(move |to| (*proto, *to))) {
            let what = format!("{pods:?} to answer {proto:?} to {to} from {}", from.name());
            wait_for_eq(&what, &wanted, || probe::pods(from, proto, to, CONNECTIONS))?;
        }
    }
    Ok(())
}

/// Waits until a connection ends like this, over both protocols.
pub(crate) fn ends_in(from: &[&Namespace], to: &[SocketAddr], wanted: &Answer) -> anyhow::Result<()> {
    for from in from {
        for (proto, to) in PROTOS.iter().flat_map(|proto| to.iter().map(move |to| (*proto, *to))) {
            let told = proto == Proto::Tcp || *wanted != Answer::Unreachable;
            let wanted = if told { wanted } else { &Answer::Silence };
            let what = format!("{wanted:?} for {proto:?} to {to} from {}", from.name());
            wait_for_eq(&what, wanted, || probe::connect(from, proto, to))?;
        }
    }
    Ok(())
}

/// A Service of type ClusterIP with these endpoints.
pub(crate) fn plain(c: &Cluster, name: &str, endpoints: &[&str]) -> anyhow::Result<Service> {
    let made = c.set_service(&service(name, "ClusterIP", &json!({})))?;
    let list: Vec<_> = endpoints.iter().map(|pod| ready(pod)).collect();
    c.set_endpoints(name, 8080, &list)?;
    Ok(made)
}

pub(crate) fn endpoints_and_ports_are_followed(c: &mut Cluster) -> anyhow::Result<()> {
    let from = inside(c);
    let mut web = plain(c, "web", &["a1", "b1"])?;
    answered_by(&from, &web.cluster, &["a1", "b1"])?;
    let steps: [(&[Endpoint<'_>], &[&str]); 4] = [
        (&[ready("a1"), ready("a2"), ready("b1")], &["a1", "a2", "b1"]),
        (&[ready("a2"), ready("b1")], &["a2", "b1"]),
        (&[ready("a2"), unready("b1")], &["a2"]),
        (&[ready("a2"), ready("b1"), ready("b2")], &["a2", "b1", "b2"]),
    ];
    for (endpoints, wanted) in steps {
        c.set_endpoints("web", 8080, endpoints)?;
        answered_by(&from, &web.cluster, wanted)?;
    }

    // Another targetPort.
    c.set_endpoints("web", 9090, &[ready("a2")])?;
    for to in web.cluster {
        wait_for_eq("the new targetPort", &9090, || probe::connect(from[0], Proto::Tcp, to)?.port())?;
    }
    // Another port: the old one is refused, as the address is still the Service's.
    let ports = json!([
        { "name": "tcp", "protocol": "TCP", "port": 8181, "targetPort": 9090 },
        { "name": "udp", "protocol": "UDP", "port": 8181, "targetPort": 9090 },
    ]);
    let before = web.cluster;
    c.kubectl(&[
        "patch",
        "service",
        "web",
        "--type=merge",
        "-p",
        &json!({ "spec": { "ports": ports } }).to_string(),
    ])?;
    web.cluster.iter_mut().for_each(|to| to.set_port(8181));
    answered_by(&from, &web.cluster, &["a2"])?;
    ends_in(&from, &before, &Answer::Refused)?;

    // No endpoint, no Service.
    c.set_endpoints("web", 9090, &[unready("a2")])?;
    ends_in(&from, &web.cluster, &Answer::Refused)?;
    c.set_endpoints("web", 9090, &[ready("a2")])?;
    answered_by(&from, &web.cluster, &["a2"])?;
    c.delete_service("web")?;
    // As with kube-proxy: an address of the Service range that no Service has is dropped.
    ends_in(&from, &web.cluster, &Answer::Silence)
}

pub(crate) fn a_pod_reaches_itself_through_its_service(c: &mut Cluster) -> anyhow::Result<()> {
    let own = plain(c, "self", &["a1"])?;
    let pod = c.network.pod("a1");
    answered_by(&[&pod.namespace], &own.cluster, &["a1"])?;
    for to in own.cluster {
        let peer = probe::connect(&pod.namespace, Proto::Tcp, to)?.peer()?;
        ensure!(peer != pod.v4 && peer != pod.v6, "such a connection has to be masqueraded: {peer}");
    }
    // Another pod of the cluster keeps its address.
    let client = c.network.pod("b3");
    let peers =
        own.cluster.map(|to| probe::connect(&client.namespace, Proto::Tcp, to).and_then(|a| a.peer()));
    for (peer, wanted) in peers.into_iter().zip([client.v4, client.v6]) {
        let peer = peer?;
        ensure!(peer == wanted, "{peer} instead of {wanted}");
    }
    // The nodes themselves are clients, too.
    for node in &c.network.nodes {
        answered_by(&[&node.namespace], &own.cluster, &["a1"])?;
    }
    c.delete_service("self")
}

pub(crate) fn clients_stick_to_their_endpoint(c: &mut Cluster) -> anyhow::Result<()> {
    let more = json!({ "sessionAffinity": "ClientIP" });
    let sticky = c.set_service(&service("sticky", "ClusterIP", &more))?;
    let mut endpoints = ["a1", "a2", "b1", "b2"].map(ready).to_vec();
    c.set_endpoints("sticky", 8080, &endpoints)?;
    let from = &c.network.pod("a3").namespace;
    for proto in PROTOS {
        for to in sticky.cluster {
            let look = || probe::connect(from, proto, to)?.pod().map(str::to_owned);
            let first = rulecast_tests::wait::wait_for("an answer", rulecast_tests::wait::PATIENCE, look)?;
            let again = probe::pods(from, proto, to, CONNECTIONS)?;
            ensure!(again == names(&[&first]), "{proto:?} {to}: first {first}, then {again:?}");
        }
    }
    let to = sticky.cluster[0];
    let look = || probe::connect(from, Proto::Tcp, to)?.pod().map(str::to_owned);
    let first = look()?;
    // Others may come and go.
    let head = c.wait_until_in_force()?;
    endpoints.push(ready("b3"));
    c.set_endpoints("sticky", 8080, &endpoints)?;
    let head = c.wait_until_in_force_after(&head)?;
    ensure!(look()? == first, "an endpoint was added, and the client moved");
    endpoints.retain(|e| e.pod == first || e.pod == "b3");
    c.set_endpoints("sticky", 8080, &endpoints)?;
    c.wait_until_in_force_after(&head)?;
    ensure!(look()? == first, "other endpoints were removed, and the client moved");
    // When its endpoint goes, it moves, and stays there, also when the endpoint comes back.
    c.set_endpoints("sticky", 8080, &[ready("b3")])?;
    wait_for_eq("the client to move to b3", &"b3".to_owned(), look)?;
    c.set_endpoints("sticky", 8080, &endpoints)?;
    holds_for("b3 is the client's endpoint now", std::time::Duration::from_secs(3), || {
        let pod = look()?;
        ensure!(pod == "b3", "{pod}");
        Ok(())
    })?;
    c.delete_service("sticky")
}
