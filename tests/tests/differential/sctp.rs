//! SCTP: without sockets for it, only what both proxies write for it can be compared.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use rulecast_tests::nft;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

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
            let seen = keys(world)?;
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
