//! SCTP: without sockets for it, only what both proxies write for it can be compared.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use rulecast_tests::nft;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::config::NFTABLES;
use crate::fixture::{Fixture, vips};
use crate::world::World;
use crate::worlds::Worlds;

const NAME: &str = "sctp";
const NODE_PORT: u16 = 30_013;
const IPS: [&str; 2] = ["10.96.0.103", "fd00:96::103"];

pub(crate) fn the_same_addresses_are_served(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let port = |protocol: &str, target: u16| {
        let name = protocol.to_lowercase();
        json!({ "name": name, "protocol": protocol, "port": 80, "targetPort": target, "nodePort": NODE_PORT })
    };
    let more = json!({
        "clusterIP": IPS[0], "clusterIPs": IPS,
        "ports": [port("TCP", 8080), port("UDP", 8081), port("SCTP", 8082)],
    });
    let of_slice = json!([
        { "name": "tcp", "protocol": "TCP", "port": 8080 }, { "name": "udp", "protocol": "UDP", "port": 8081 },
        { "name": "sctp", "protocol": "SCTP", "port": 8082 },
    ]);
    let fixture = Fixture::new(NAME, "LoadBalancer", NODE_PORT, &more).at(&vips(114));
    worlds.set(&fixture.slices_with(&worlds.peer.network, "", &of_slice, &["a1", "b1"]))?;
    worlds.settle()?;
    let vips = vips(114).map(|ip| ip.to_string());
    let addrs = IPS.iter().copied().chain(vips.iter().map(String::as_str));
    let mut wanted: BTreeSet<String> = addrs.map(|ip| format!("{ip} sctp 80")).collect();
    wanted.insert(format!("sctp {NODE_PORT}"));
    for world in worlds.both() {
        let what = format!("the SCTP entries of {}", world.proxy);
        wait_for(&what, PATIENCE, || {
            let seen = if worlds.config.mode == NFTABLES { keys(world) } else { matches(world) }?;
            ensure!(seen == wanted, "{seen:?} instead of {wanted:?}");
            Ok(())
        })?;
    }
    worlds.delete(NAME)
}

/// What the verdict maps of both families have for SCTP.
fn keys(world: &World) -> anyhow::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    for object in nft::objects(&world.network.nodes[0].namespace)? {
        let map = &object["map"];
        if !["service-ips", "service-nodeports"].contains(&map["name"].as_str().unwrap_or_default()) {
            continue;
        }
        for element in map["elem"].as_array().into_iter().flatten() {
            let key = &element[0];
            let key = key.get("elem").map_or(key, |elem| &elem["val"]);
            let fields = key["concat"].as_array().with_context(|| format!("a key: {element}"))?;
            let words: Vec<String> =
                fields.iter().map(|f| f.as_str().map_or_else(|| f.to_string(), str::to_owned)).collect();
            if words.iter().any(|word| word == "sctp") {
                keys.insert(words.join(" "));
            }
        }
    }
    Ok(keys)
}

/// What rules of both families match, in whichever variant of iptables: addresses and ports, in the words of [`keys`].
fn matches(world: &World) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for program in ["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"] {
        let saved = world.network.nodes[0].namespace.output(&format!("{program}-save"), &["-t", "nat"])?;
        for rule in saved.lines().filter(|line| line.contains(" -p sctp ")) {
            let words: Vec<&str> = rule.split(' ').collect();
            let after = |option: &str| {
                words.iter().position(|w| *w == option).and_then(|at| words.get(at + 1)).copied()
            };
            // A port alone is a nodePort; ranges of ports only lead to their chains.
            let Some(port) = after("--dport").filter(|port| !port.contains(':')) else { continue };
            // kube-proxy counts what is sent to nodePorts at loopback addresses.
            let addr = after("-d")
                .filter(|addr| !addr.starts_with("127."))
                .map(|addr| addr.split('/').next().unwrap_or(addr));
            found.insert(addr.map_or_else(|| format!("sctp {port}"), |addr| format!("{addr} sctp {port}")));
        }
    }
    Ok(found)
}
