//! Probes: from where, to what, and what came of it, of many at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rulecast_tests::namespace::Namespace;
use rulecast_tests::probe::Proto;
use rulecast_tests::uml;

use crate::connect::{Ports, connect};
use crate::outcome::{End, Outcome};
use crate::world::World;

/// Probes of one source at a time.
const AT_ONCE: usize = 200;

/// Where connections are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A pod.
    Pod(&'static str),
    /// A node: 0 or 1.
    Node(usize),
    /// A client outside, which source ranges let in.
    Client,
    /// One that they do not.
    Blocked,
}

impl Source {
    /// All that are used: a pod that may be an endpoint itself, pods of both nodes that never are, nodes, clients.
    pub(crate) const ALL: [Self; 7] = [
        Self::Pod("a1"),
        Self::Pod("a3"),
        Self::Pod("b3"),
        Self::Node(0),
        Self::Node(1),
        Self::Client,
        Self::Blocked,
    ];

    /// Its namespace.
    pub(crate) fn namespace(self, world: &World) -> &Namespace {
        match self {
            Self::Pod(name) => &world.network.pod(name).namespace,
            Self::Node(number) => &world.network.nodes[number].namespace,
            Self::Client => &world.network.client.namespace,
            Self::Blocked => &world.blocked.namespace,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Node(number) => write!(f, "node-{}", ["a", "b"][*number]),
            Self::Client => f.write_str("client"),
            Self::Blocked => f.write_str("blocked client"),
        }
    }
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Whose it is.
    pub(crate) fixture: String,
    /// What it is of it.
    pub(crate) what: String,
    /// The protocol.
    pub(crate) proto: Proto,
    /// The address.
    pub(crate) to: SocketAddr,
    /// Whether a client has to stay with one pod.
    pub(crate) sticky: bool,
    /// Whether its externalTrafficPolicy is Local.
    pub(crate) is_local: bool,
    /// Whether it has loadBalancerSourceRanges.
    pub(crate) has_ranges: bool,
}

impl Target {
    /// Whether it is the same address, of the same Service.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.fixture, self.proto, self.to) == (&other.fixture, other.proto, other.to)
    }
}

/// A source and a target.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// From where.
    pub(crate) source: Source,
    /// To what.
    pub(crate) target: Target,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { fixture, what, proto, to, .. } = &self.target;
        write!(f, "{fixture}: {} -> {what} {to} {proto:?}", self.source)
    }
}

/// Makes all probes in both worlds at the same time; the outcomes in the order of the probes.
/// `least`: connections of each, at the least; more are made the more pods answer.
pub(crate) fn run_both(
    worlds: [&World; 2],
    probes: &[Probe],
    least: usize,
) -> anyhow::Result<[Vec<Outcome>; 2]> {
    thread::scope(|scope| {
        let threads = worlds.map(|world| scope.spawn(move || run(world, probes, least)));
        let [peer, ours] = threads.map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok([peer?, ours?])
    })
}

/// The same in one world.
pub(crate) fn run(world: &World, probes: &[Probe], least: usize) -> anyhow::Result<Vec<Outcome>> {
    let mut of_source: BTreeMap<Source, Vec<(usize, &Target)>> = BTreeMap::new();
    for (index, probe) in probes.iter().enumerate() {
        of_source.entry(probe.source).or_default().push((index, &probe.target));
    }
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = of_source
            .into_iter()
            .map(|(source, targets)| scope.spawn(move || from_source(world, source, &targets, least)))
            .collect();
        let joined =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut all: Vec<_> = outcomes.into_iter().flatten().collect();
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Ports that were used in each namespace, which outlive a run.
static PORTS: Mutex<BTreeMap<String, &'static Ports>> = Mutex::new(BTreeMap::new());

fn from_source(
    world: &World,
    source: Source,
    targets: &[(usize, &Target)],
    least: usize,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = source.namespace(world);
    let ports = {
        let mut known = PORTS.lock().expect("nobody panics with it");
        *known.entry(namespace.name().to_owned()).or_insert_with(|| Box::leak(Box::new(Ports::new())))
    };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let probes = stream::iter(targets).map(|(index, target)| async move {
                let ends = ends(world, ports, target, least).await?;
                let outcome = if target.sticky { Outcome::of_sticky(&ends) } else { Outcome::of(&ends) };
                anyhow::Ok((*index, outcome))
            });
            probes.buffer_unordered(AT_ONCE).try_collect().await
        })
    };
    namespace.run(work)?.with_context(|| format!("{source} in the world of {}", world.proxy))
}

/// Connects until it is unlikely that another pod would still have answered.
async fn ends(world: &World, ports: &Ports, target: &Target, least: usize) -> anyhow::Result<Vec<End>> {
    let mut ends: Vec<End> = Vec::new();
    loop {
        let mut different = ends.clone();
        different.sort();
        different.dedup();
        let wanted = match (&different[..], target.sticky) {
            ([] | [End::Other(_)], _) => least,
            (_, true) => least.max(6),
            // One of so many that answer equally often is missed once in some thousand probes; in user-mode Linux, where a
            // connection is dear, more often, and the probe is made again.
            (several, false) if uml::is_inside() => (2 + 2 * several.len()).max(least),
            (several, false) => (4 + 7 * several.len()).max(least),
        };
        if ends.len() >= wanted {
            return Ok(ends);
        }
        // The first connection of a client to a Service with affinity decides about the others: two at once would get two
        // endpoints. Who gets none can wait for all at once.
        let first = target.sticky && ends.is_empty();
        let batch = if first { 1 } else { (wanted - ends.len()).min(16) };
        let connections = (0..batch).map(|_| connect(world, ports, target.proto, target.to));
        ends.extend(futures::future::try_join_all(connections).await?);
    }
}
