//! Session affinity over time: which client stays with which pod, and until when.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rulecast_tests::probe::{self, Proto};
use serde_json::json;

use crate::fixture::{Fixture, ports, slice_ports, slices, vips};
use crate::objects::Kind;
use crate::probes::Source;
use crate::world::World;
use crate::worlds::Worlds;

const NAME: &str = "sticky";
const IPS: [&str; 2] = ["10.96.0.102", "fd00:96::102"];
const NODE_PORT: u16 = 30_010;
const TIMEOUT: u64 = 2;

/// Who a client is with.
type With = BTreeMap<Source, String>;

fn service(worlds: &Worlds, timeout: u64, endpoints: &[&str]) -> Fixture {
    let more = json!({
        "clusterIP": IPS[0], "clusterIPs": IPS, "ports": ports(NODE_PORT), "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": timeout } },
    });
    let fixture = Fixture::new(NAME, "LoadBalancer", NODE_PORT, &more).at(&vips(112));
    fixture.slices(&worlds.peer.network, endpoints)
}

fn endpoints(worlds: &mut Worlds, endpoints: &[&str]) -> anyhow::Result<()> {
    worlds.apply(&slices(&worlds.peer.network, NAME, "", &slice_ports(8080), endpoints))?;
    worlds.settle().map(drop)
}

fn start(worlds: &mut Worlds, timeout: u64, endpoints: &[&str]) -> anyhow::Result<()> {
    worlds.clear()?;
    worlds.delete(NAME)?;
    let fixture = service(worlds, timeout, endpoints);
    worlds.set(&fixture)?;
    worlds.settle().map(drop)
}

/// Who answers every source at the cluster IP.
fn everybody(world: &World) -> anyhow::Result<With> {
    Source::ALL.into_iter().map(|source| Ok((source, pod(world, source, IPS[0].parse()?, 80)?))).collect()
}

fn pod(world: &World, source: Source, ip: IpAddr, port: u16) -> anyhow::Result<String> {
    let answer = probe::connect(source.namespace(world), Proto::Tcp, SocketAddr::new(ip, port))?;
    let what = || format!("{source} to {ip} port {port} in the world of {}", world.proxy);
    answer.pod().map(str::to_owned).with_context(what)
}

pub(crate) fn clients_stay_until_their_endpoint_goes(worlds: &mut Worlds) -> anyhow::Result<()> {
    // All on the first node, as cluster IPs are routed to it from outside.
    start(worlds, 10_800, &["a1", "a2", "a3"])?;
    let before = worlds.both().map(everybody);
    let check = |worlds: &Worlds, what: &str, moved: &dyn Fn(&str) -> bool| {
        for (world, before) in worlds.both().into_iter().zip(&before) {
            let before = before.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))?;
            for (source, now) in everybody(world)? {
                let was = &before[&source];
                ensure!(
                    *was == now || moved(was),
                    "{}: {what}: {source} was with {was}, is with {now}",
                    world.proxy
                );
            }
        }
        Ok(())
    };
    check(worlds, "nothing happened", &|_| false)?;
    endpoints(worlds, &["a1", "a2", "a3", "b1"])?;
    check(worlds, "an endpoint was added", &|_| false)?;
    worlds.patch(Kind::Service, NAME, &json!({ "spec": { "externalTrafficPolicy": "Local" } }))?;
    worlds.settle()?;
    check(worlds, "externalTrafficPolicy changed", &|_| false)?;
    worlds.patch(Kind::Service, NAME, &json!({ "metadata": { "annotations": { "something": "else" } } }))?;
    worlds.settle()?;
    check(worlds, "an annotation changed", &|_| false)?;
    endpoints(worlds, &["a1", "a3"])?;
    check(worlds, "a2 has gone", &|was| was == "a2")?;
    // It is as new when it comes back: nobody is with it who has been with another one since.
    let before = worlds.both().map(everybody);
    endpoints(worlds, &["a1", "a2", "a3"])?;
    for (world, before) in worlds.both().into_iter().zip(before) {
        let (before, now) = (before?, everybody(world)?);
        ensure!(before == now, "{}: a2 is back: {before:?}, then {now:?}", world.proxy);
    }
    worlds.delete(NAME)
}

/// A client is with one endpoint, by whichever address of the Service it comes.
pub(crate) fn all_addresses_share_the_clients(worlds: &mut Worlds) -> anyhow::Result<()> {
    start(worlds, 10_800, &["a1", "a2", "a3"])?;
    for world in worlds.both() {
        let node = world.network.nodes[0].v4;
        // Not the node: its source address differs from one destination to the other.
        for source in [Source::Client, Source::Blocked, Source::Pod("a1"), Source::Pod("a3")] {
            let mut seen = BTreeMap::new();
            for (what, ip, port) in [
                ("the cluster IP", IPS[0].parse()?, 80),
                ("a load balancer address", vips(112)[0], 80),
                ("the nodePort", node, NODE_PORT),
            ] {
                seen.entry(pod(world, source, ip, port)?).or_insert_with(Vec::new).push(what);
            }
            ensure!(seen.len() == 1, "{}: {source} is with {seen:?}", world.proxy);
        }
    }
    worlds.delete(NAME)
}

pub(crate) fn clients_are_forgotten_in_time(worlds: &mut Worlds) -> anyhow::Result<()> {
    start(worlds, TIMEOUT, &["a1", "a2", "a3"])?;
    std::thread::scope(|scope| {
        let threads = worlds.both().map(|world| scope.spawn(|| forgets(world)));
        threads
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    worlds.delete(NAME)
}

fn forgets(world: &World) -> anyhow::Result<()> {
    let first = everybody(world)?;
    let second = everybody(world)?;
    ensure!(first == second, "{}: {first:?}, then {second:?}", world.proxy);
    // Seven clients with three endpoints: in 2,000 such tests all choose the same again once; in three goes, never.
    let mut moved = false;
    for _ in 0..3 {
        sleep(Duration::from_secs(TIMEOUT + 1));
        moved = everybody(world)? != first;
        if moved {
            break;
        }
    }
    ensure!(moved, "{}: all clients are where they were after {TIMEOUT} s: {first:?}", world.proxy);
    // Each connection makes it last longer.
    let client = Source::Pod("a1");
    let with = pod(world, client, IPS[0].parse()?, 80)?;
    for _ in 0..5 {
        sleep(Duration::from_millis(TIMEOUT * 600));
        let now = pod(world, client, IPS[0].parse()?, 80)?;
        ensure!(now == with, "{}: {client} was with {with}, is with {now}", world.proxy);
    }
    Ok(())
}
