//! What load balancers ask a node: healthCheckNodePorts, and the health of the proxy itself.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use rulecast_tests::http::{self, Reply};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::fixture::{Fixture, vips};
use crate::objects::Kind;
use crate::world::World;
use crate::worlds::Worlds;

const NAME: &str = "checked";
const PORT: u16 = 31_190;
const HEALTHZ: u16 = 10_256;

/// The Service with these endpoints.
fn service(worlds: &Worlds, policy: &str, endpoints: &[&str]) -> Fixture {
    let mut more = json!({ "externalTrafficPolicy": policy });
    if policy == "Local" {
        more["healthCheckNodePort"] = PORT.into();
    }
    Fixture::new(NAME, "LoadBalancer", 30_013, &more).at(&vips(110)).slices(&worlds.peer.network, endpoints)
}

/// A node's answer to the client at an address of a family; none when nobody listens.
fn ask(world: &World, node: usize, v6: bool, port: u16, path: &str) -> Option<Reply> {
    let node = &world.network.nodes[node];
    let addr: IpAddr = if v6 { node.v6 } else { node.v4 };
    http::fetch(&world.network.client.namespace, SocketAddr::new(addr, port), path).ok()
}

/// Status, body, and the headers that mean something to a load balancer.
fn essence(reply: Option<Reply>) -> Option<(u16, String, Vec<String>)> {
    let reply = reply?;
    let header = |name: &str| format!("{name}: {}", reply.headers.get(name).map_or("-", String::as_str));
    let names = ["content-type", "x-content-type-options", "x-load-balancing-endpoint-weight"];
    Some((reply.code, reply.body.clone(), names.map(header).to_vec()))
}

pub(crate) fn ports_answer_alike(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    for (endpoints, wanted) in [
        (&["a1", "a2", "b1"][..], [Some(200), Some(200)]),
        (&["a1"], [Some(200), Some(503)]),
        // Traffic still goes there, but new connections had better not.
        (&["a1:terminating", "b1"], [Some(503), Some(200)]),
        (&["a1:unready"], [Some(503), Some(503)]),
        (&[], [Some(503), Some(503)]),
    ] {
        worlds.set(&service(worlds, "Local", endpoints))?;
        worlds.settle()?;
        agree(worlds, &format!("{endpoints:?}"), wanted)?;
    }
    worlds.set(&service(worlds, "Cluster", &["a1", "b1"]))?;
    worlds.settle()?;
    agree(worlds, "externalTrafficPolicy Cluster", [None, None])?;
    worlds.delete(NAME)
}

fn agree(worlds: &Worlds, what: &str, wanted: [Option<u16>; 2]) -> anyhow::Result<()> {
    for (node, wanted) in wanted.into_iter().enumerate() {
        for v6 in [false, true] {
            let what = format!("{what}: node {node}, IPv{} to answer {wanted:?}", if v6 { 6 } else { 4 });
            wait_for(&what, PATIENCE, || {
                let [peer, ours] = worlds.both().map(|world| essence(ask(world, node, v6, PORT, "/")));
                ensure!(peer == ours, "kube-proxy: {peer:?}\nrulecast: {ours:?}");
                ensure!(ours.as_ref().map(|(code, ..)| *code) == wanted, "both: {ours:?}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A Service of one family is asked about over both: load balancers use whichever address of a node they know.
/// kube-proxy listens in the Service's family only.
pub(crate) fn ports_answer_in_both_families(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let mut fixture = service(worlds, "Local", &["a1"]);
    fixture.service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    fixture.service["spec"]["ipFamilies"] = json!(["IPv4"]);
    worlds.set(&fixture)?;
    worlds.settle()?;
    for (node, code) in [(0, 200), (1, 503)] {
        for v6 in [false, true] {
            let what = format!("node {node} to answer {code}, IPv6: {v6}");
            wait_for(&what, PATIENCE, || {
                let reply = ask(&worlds.ours, node, v6, PORT, "/");
                ensure!(reply.as_ref().is_some_and(|r| r.code == code), "{reply:?}");
                Ok(())
            })?;
        }
    }
    worlds.delete(NAME)
}

/// /healthz says when a node is about to go, /livez does not.
pub(crate) fn nodes_that_go_say_so(worlds: &mut Worlds) -> anyhow::Result<()> {
    let taint = json!([{ "key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule" }]);
    for (taints, eligible) in [(taint, false), (Value::Null, true)] {
        worlds.patch(Kind::Node, "node-a", &json!({ "spec": { "taints": taints } }))?;
        for (path, wanted) in [("/healthz", if eligible { 200 } else { 503 }), ("/livez", 200)] {
            for world in worlds.both() {
                let what = format!("{path} to answer {wanted}, eligible: {eligible}");
                wait_for(&what, PATIENCE, || {
                    let reply = ask(world, 0, false, HEALTHZ, path);
                    let reply = reply.ok_or_else(|| anyhow::anyhow!("no answer"))?;
                    ensure!(reply.code == wanted, "{reply:?}");
                    let body: Value = serde_json::from_str(&reply.body)?;
                    ensure!(body["lastUpdated"].is_string() && body["currentTime"].is_string(), "{body}");
                    ensure!(path == "/livez" || body["nodeEligible"] == eligible, "{body}");
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}
