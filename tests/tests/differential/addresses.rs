//! nodePortAddresses as prefixes: which addresses of a node answer, also as addresses come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use rulecast_tests::probe::{self, Answer, Proto};
use rulecast_tests::wait::wait_for;
use serde_json::json;

use crate::compare::compare;
use crate::config::Config;
use crate::fixture::Fixture;
use crate::targets;
use crate::worlds::Worlds;

const NAME: &str = "addressed";
const NODE_PORT: u16 = 30_011;
/// Of nobody, at first.
const NEW: [&str; 2] = ["192.168.50.31", "fd00:50::31"];

/// With each of them, the same addresses answer in both worlds.
pub(crate) fn prefixes_choose_addresses(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let service = Fixture::new(NAME, "NodePort", NODE_PORT, &json!({}));
    let service = service.slices(&worlds.peer.network, &["a1", "b1"]);
    worlds.set(&service)?;
    let mut problems = Vec::new();
    for (name, node_port_addresses) in [
        ("second addresses only", &["192.168.50.8/29", "fd00:50::10/124"][..]),
        ("everything of IPv4", &["0.0.0.0/0"]),
        ("IPv4 only", &["192.168.50.1/32"]),
        ("loopback among them", &["127.0.0.0/8", "192.168.50.0/24", "::1/128", "fd00:50::/64"]),
        ("primary", &["primary"]),
    ] {
        worlds.configure(Config { name, node_port_addresses, ..Config::default() })?;
        worlds.settle()?;
        let mut probes = Vec::new();
        for service in worlds.services()?.iter().filter(|s| s["metadata"]["name"] == NAME) {
            probes.extend(targets::of_service(&worlds.peer, service));
        }
        let comparison = compare(worlds, &probes)?;
        problems.extend(comparison.check(worlds).err().map(|e| e.to_string()));
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// kube-proxy notices addresses with its next full sync only, at the latest after an hour; rulecast at once.
pub(crate) fn addresses_come_and_go(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let prefixes = &["192.168.50.0/24", "fd00:50::/64"];
    worlds.configure(Config { name: "prefixes", node_port_addresses: prefixes, ..Config::default() })?;
    let service = Fixture::new(NAME, "NodePort", NODE_PORT, &json!({}));
    worlds.set(&service.slices(&worlds.peer.network, &["a1", "b1"]))?;
    worlds.settle()?;
    let world = &worlds.ours;
    let node = &world.network.nodes[0].namespace;
    for (addr, size) in NEW.iter().zip([24, 64]) {
        let to = SocketAddr::new(addr.parse::<IpAddr>()?, NODE_PORT);
        let answers = |wanted: bool| {
            wait_for(&format!("{to} to answer: {wanted}"), Duration::from_secs(1), || {
                let answer = probe::connect(&world.network.client.namespace, Proto::Udp, to)?;
                ensure!(matches!(answer, Answer::Pod { .. }) == wanted, "{answer:?}");
                Ok(())
            })
        };
        answers(false)?;
        let nodad = if addr.contains(':') { "nodad" } else { "" };
        node.ip(&format!("addr add {addr}/{size} dev eth0 {nodad}"))?;
        answers(true)?;
        node.ip(&format!("addr del {addr}/{size} dev eth0"))?;
        answers(false)?;
    }
    worlds.delete(NAME)
}
