//! The first packet of a connection: how long it takes and how many rules it meets, with kube-proxy and with rulecast.
//!
//! Both run at the same time, each on a node of its own between a client and the pods, in network namespaces. A hundred
//! connections here, a hundred there: what else the machine does hits both. Nothing waits for connections on the other
//! side, so what is measured is the kernel's way there and back: two namespaces, one node, and that node's rules.

pub(crate) mod api_server;
mod path;
pub(crate) mod proxies;
mod table;
mod trace;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rulecast_tests::namespace;
use rustix::process::{getpriority_process, setpriority_process};

use self::proxies::Side;
use self::trace::{Met, Trace};
use crate::cluster::{Cluster, Size};
use crate::objects::{self, Kind};
use crate::progress::Progress;

pub use self::table::Comparison;

/// Connections made on one path before it is the other's turn.
const BATCH: usize = 100;
/// Beginning of the namespaces' names.
const PREFIX: &str = "rc-connect";

/// Measures at one size: `connections` to cluster IPs by each of the two.
pub fn measure(size: Size, connections: u32, progress: &mut Progress) -> Result<Comparison> {
    namespace::require(&["ip", "nft"])?;
    namespace::remove_leftovers(PREFIX)?;
    ensure!(size.services >= 10 * SAMPLES, "at least {} Services are needed", 10 * SAMPLES);
    let cluster = Cluster::new(size)?;
    let prefix = format!("{PREFIX}-{}", std::process::id());
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let title = format!("connect {} x {}", size.services, size.endpoints);
    progress.step(&format!("{title}: kube-proxy writes its rules"));
    let kube_proxy = proxies::kube_proxy(&cluster, size, &prefix, dirs[0].path())?;
    progress.step(&format!("{title}: rulecast writes its rules"));
    let rulecast = proxies::rulecast(&cluster, size, &prefix, dirs[1].path())?;
    let sides = [kube_proxy, rulecast];
    let mut comparison = Comparison::new(size);
    // Before the clients of Services with affinity are known.
    progress.step(&format!("{title}: counting rules"));
    count_rules(&cluster, &sides, &mut comparison)?;
    let direct = targets(connections, |n| {
        let service = cluster.scattered_service(n);
        let slice = &cluster.slices(service)[0].1;
        SocketAddr::new(slice.endpoints[0].addr, slice.ports[0].port)
    });
    let services = targets(connections, |n| objects::cluster_ip(&cluster, cluster.scattered_service(n)));
    for (what, targets) in [("connect to a pod", direct), ("connect to a cluster IP", services)] {
        progress.step(&format!("{title}: {what}"));
        comparison.add_times(what, undisturbed(|| interleaved(&sides, &targets))?);
    }
    Ok(comparison)
}

fn targets(connections: u32, target: impl Fn(u32) -> SocketAddr) -> Vec<SocketAddr> {
    (0..connections).map(target).collect()
}

/// Does something with priority, in this thread and those it makes: what else the machine does should not look like a slow
/// path.
fn undisturbed<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = getpriority_process(None)?;
    setpriority_process(None, -20).context("asking for priority")?;
    let result = work();
    setpriority_process(None, before)?;
    result
}

/// The times of both in microseconds, the same targets for both, batch by batch.
fn interleaved(sides: &[Side; 2], targets: &[SocketAddr]) -> Result<[Vec<f64>; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for side in sides {
        // Neighbours and caches.
        side.path.connect(&targets[..targets.len().min(BATCH)]).context(side.name)?;
    }
    for (number, batch) in targets.chunks(BATCH).enumerate() {
        // Who is first alternates, too.
        for at in [number % 2, 1 - number % 2] {
            let took = sides[at].path.connect(batch).context(sides[at].name)?;
            times[at].extend(took.iter().map(|time| time.as_secs_f64() * 1e6));
        }
    }
    Ok(times)
}

/// Where a connection begins.
#[derive(Clone, Copy)]
enum From {
    /// In the client's namespace; the target decides whether as a pod or from outside.
    Client,
    /// On the node itself.
    Node,
}

/// What to connect to, by the Service's number.
type Target<'a> = &'a dyn Fn(u32) -> SocketAddr;

/// Counts for one packet are always the same, but for kube-proxy's search through the endpoints of a Service with
/// affinity, and endpoints are picked at random: so this many Services of a kind are tried, and the mean is taken.
const SAMPLES: u32 = 10;

fn count_rules(cluster: &Cluster, sides: &[Side; 2], comparison: &mut Comparison) -> Result<()> {
    let ip = |service| objects::cluster_ip(cluster, service);
    let load_balancer = |service| objects::load_balancer(cluster, service).expect("a load balancer");
    let node_port = |service| {
        let port = objects::node_port(service).expect("the first ones have a nodePort");
        SocketAddr::new(objects::node_address(cluster), port)
    };
    let pod = |service| {
        let slice = &cluster.slices(service)[0].1;
        SocketAddr::new(slice.endpoints[0].addr, slice.ports[0].port)
    };
    let cases: [(&str, From, Kind, Target<'_>); 9] = [
        ("pod -> pod", From::Client, Kind::Plain, &pod),
        ("pod -> cluster IP", From::Client, Kind::Plain, &ip),
        ("pod -> cluster IP with affinity", From::Client, Kind::Affinity, &ip),
        ("  and again", From::Client, Kind::Affinity, &ip),
        ("node -> cluster IP", From::Node, Kind::Plain, &ip),
        ("outside -> nodePort", From::Client, Kind::Ranges, &node_port),
        ("outside -> nodePort, Local", From::Client, Kind::Local, &node_port),
        ("outside -> load balancer with source ranges", From::Client, Kind::Ranges, &load_balancer),
        ("outside -> load balancer, Local", From::Client, Kind::Local, &load_balancer),
    ];
    let [a, b] = sides;
    let mut traces = [Trace::start(&a.path, a.table)?, Trace::start(&b.path, b.table)?];
    let mut later = None;
    for (what, from, kind, target) in cases {
        let mut met = [[Met::default(); 2]; 2];
        for service in (0..).filter(|service| objects::kind(*service) == kind).take(SAMPLES as usize) {
            let target = target(service);
            for (at, side) in sides.iter().enumerate() {
                let connection = traces[at].connection(target, |path| match from {
                    From::Client => path.connect(&[target]).map(drop),
                    From::Node => path.connect_from_node(target),
                });
                let connection = connection.with_context(|| format!("{}: {what}", side.name))?;
                for (sum, met) in met[at].iter_mut().zip(connection) {
                    *sum += met;
                }
            }
        }
        comparison.add_met(what, met.map(|[first, _]| first), SAMPLES);
        later = Some(met.map(|[_, later]| later));
    }
    if let Some(met) = later {
        comparison.add_met("every later packet of a connection", met, SAMPLES);
    }
    Ok(())
}
