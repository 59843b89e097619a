//! What each scheduler promises.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rulecast_tests::namespace::Namespace;
use rulecast_tests::serve;

use crate::world::{VIP, World, at, service};

/// A connection that stays open, and the pod at its other end.
pub(crate) struct Kept {
    stream: TcpStream,
    pub(crate) pod: String,
}

impl Kept {
    pub(crate) fn open(from: &Namespace, to: SocketAddr) -> anyhow::Result<Self> {
        let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)))??;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut kept = Self { stream, pod: String::new() };
        kept.pod = kept.ask()?;
        Ok(kept)
    }

    /// Asks again over the same connection.
    pub(crate) fn ask(&mut self) -> anyhow::Result<String> {
        self.stream.write_all(b"who?")?;
        let mut answer = [0; 128];
        let length = self.stream.read(&mut answer)?;
        ensure!(length > 0, "the connection was closed");
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        Ok(text.split(' ').next().context("an answer")?.to_owned())
    }
}

const PODS: [&str; 3] = ["a1", "b1", "b2"];

/// Each of them with what it promises of several connections of one client.
type Contract = fn(&World) -> anyhow::Result<()>;
const CONTRACTS: [(&str, Contract); 11] = [
    ("rr", in_turns),
    ("wrr", in_turns),
    ("lc", to_the_idle),
    ("wlc", to_the_idle),
    ("sed", to_the_idle),
    ("nq", to_the_idle),
    ("sh", always_the_same),
    ("mh", always_the_same),
    ("dh", always_the_same_for_everybody),
    ("lblc", the_same_until_it_has_too_many),
    ("lblcr", the_same_until_it_has_too_many),
];

pub(crate) fn each_keeps_its_contract(world: &mut World) -> anyhow::Result<()> {
    for (scheduler, contract) in CONTRACTS {
        world.clear()?;
        let mut options = world.options.clone();
        scheduler.clone_into(&mut options.ipvs.scheduler);
        world.set_options(options)?;
        world.set_service("ns/web", Some(service()));
        world.set_endpoints("ns/web", &PODS, serve::KEEP);
        world.apply()?;
        let listed = world.node().output("ipvsadm", &["-Sn"])?;
        let begin = format!("-A -t {VIP}:80 -s {scheduler}");
        let server = listed.lines().map(str::trim_end).find(|line| line.starts_with(&begin));
        let fallback = ["sh", "mh"].contains(&scheduler);
        ensure!(server.is_some_and(|s| s.ends_with("-fallback") == fallback), "{server:?} in {listed}");
        contract(world).with_context(|| format!("scheduler {scheduler}"))?;
    }
    Ok(())
}

/// Opens so many connections, one after the other, that all stay open.
fn open(world: &World, from: &str, count: usize) -> anyhow::Result<Vec<Kept>> {
    (0..count).map(|_| Kept::open(world.pod(from), at(VIP, 80))).collect()
}

fn by_pod(connections: &[Kept]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for kept in connections {
        *counts.entry(kept.pod.as_str()).or_default() += 1;
    }
    counts
}

fn in_turns(world: &World) -> anyhow::Result<()> {
    let open = open(world, "a2", 6)?;
    for three in open.windows(3) {
        let pods: BTreeSet<&str> = three.iter().map(|kept| kept.pod.as_str()).collect();
        ensure!(pods.len() == 3, "{:?}", by_pod(&open));
    }
    Ok(())
}

/// Connections are spread evenly; when those of one pod end, it is next.
fn to_the_idle(world: &World) -> anyhow::Result<()> {
    let mut open = open(world, "a2", 6)?;
    ensure!(by_pod(&open) == PODS.map(|pod| (pod, 2)).into(), "{:?}", by_pod(&open));
    open.retain(|kept| kept.pod != "b1");
    // What was closed counts as inactive: a 256th of an active one.
    std::thread::sleep(Duration::from_millis(300));
    let next = Kept::open(world.pod("a2"), at(VIP, 80))?;
    ensure!(next.pod == "b1", "{} instead of the idle one", next.pod);
    Ok(())
}

/// A client stays, and several do not all go to one.
fn always_the_same(world: &World) -> anyhow::Result<()> {
    for client in ["a1", "a2"] {
        let open = open(world, client, 4)?;
        ensure!(by_pod(&open).len() == 1, "from {client}: {:?}", by_pod(&open));
    }
    Ok(())
}

fn always_the_same_for_everybody(world: &World) -> anyhow::Result<()> {
    let mut all = open(world, "a1", 2)?;
    all.extend(open(world, "a2", 2)?);
    ensure!(by_pod(&all).len() == 1, "{:?}", by_pod(&all));
    Ok(())
}

/// A destination has one pod, whoever asks, as long as that has no more connections than its weight while another is idle.
fn the_same_until_it_has_too_many(world: &World) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for client in ["a1", "a2", "a1", "a2"] {
        seen.insert(Kept::open(world.pod(client), at(VIP, 80))?.pod);
        // It is closed; until that is known it counts.
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(seen.len() == 1, "{seen:?}");
    let open = open(world, "a2", 4)?;
    ensure!(by_pod(&open).len() > 1, "{:?}", by_pod(&open));
    Ok(())
}
