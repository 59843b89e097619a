//! nodePortAddresses as prefixes: which addresses of a node answer, also as addresses come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use rulecast_tests::probe::{self, Answer, Proto};
use rulecast_tests::wait::wait_for;
use serde_json::json;

use crate::compare::compare;
use crate::config::Config;
use crate::fixture::{Fixture, vips};
use crate::targets;
use crate::worlds::Worlds;

const NAME: &str = "addressed";
const NODE_PORT: u16 = 30_011;
/// Within which rulecast hears of an address; half a second, where the machine is idle. It would find it by itself after 10 s.
const NOTICED: Duration = Duration::from_secs(5);
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
        worlds.configure(Config { name, node_port_addresses, ..worlds.base.clone() })?;
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
    worlds.configure(Config { name: "prefixes", node_port_addresses: prefixes, ..worlds.base.clone() })?;
    let service = Fixture::new(NAME, "NodePort", NODE_PORT, &json!({}));
    worlds.set(&service.slices(&worlds.peer.network, &["a1", "b1"]))?;
    worlds.settle()?;
    let world = &worlds.ours;
    let node = &world.network.nodes[0].namespace;
    for (addr, size) in NEW.iter().zip([24, 64]) {
        let to = SocketAddr::new(addr.parse::<IpAddr>()?, NODE_PORT);
        let answers = |wanted: bool| {
            wait_for(&format!("{to} to answer: {wanted}"), NOTICED, || {
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

/// A node that has a load balancer's address itself, as some load balancers want it, sends to it from just that address.
pub(crate) fn a_node_has_the_address_it_serves(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let mut fixtures = Vec::new();
    for (number, name, ranges) in [
        (115, "held-open", None),
        (116, "held-for-node", Some(["192.168.50.1/32", "fd00:50::1/128"])),
        (117, "held-for-address", Some(["203.0.113.117/32", "2001:db8:113::75/128"])),
        (118, "held-for-others", Some(["198.51.100.0/24", "2001:db8:51::/64"])),
    ] {
        let more = ranges.map_or_else(|| json!({}), |list| json!({ "loadBalancerSourceRanges": list }));
        let fixture = Fixture::new(name, "LoadBalancer", 30_000 + u16::from(number) - 100, &more);
        let [v4, _, v6, _] = vips(number);
        fixtures.push((name, [v4, v6], fixture.at(&[v4, v6]).slices(&worlds.peer.network, &["a1", "b1"])));
    }
    let on_lo = |worlds: &Worlds, verb: &str| -> anyhow::Result<()> {
        for (world, (_, addrs, _)) in
            worlds.both().into_iter().flat_map(|w| fixtures.iter().map(move |f| (w, f)))
        {
            for (addr, size) in addrs.iter().zip([32, 128]) {
                world.network.nodes[0].namespace.ip(&format!("addr {verb} {addr}/{size} dev lo"))?;
            }
        }
        Ok(())
    };
    on_lo(worlds, "add")?;
    for (_, _, fixture) in &fixtures {
        worlds.set(fixture)?;
    }
    worlds.settle()?;
    let mut probes = Vec::new();
    for service in worlds.services()?.iter().filter(|s| fixtures.iter().any(|f| s["metadata"]["name"] == f.0))
    {
        probes.extend(targets::of_service(&worlds.peer, service));
    }
    probes.retain(|probe| probe.target.what == "load balancer address");
    let comparison = compare(worlds, &probes)?;
    on_lo(worlds, "del")?;
    for (name, ..) in &fixtures {
        worlds.delete(name)?;
    }
    comparison.check(worlds)
}
