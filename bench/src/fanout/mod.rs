//! What many nodes cost an API server while endpoints change: kube-proxies beside rulecast nodes.
//!
//! One real API server with a synthetic cluster in it ([`crate::live`]), on which the same number of endpoints a second
//! changes in each of these phases:
//!
//! 1. nobody watches but the API server's own controllers;
//! 2. synthetic kube-proxies watch ([`peer`]);
//! 3. the real rulecast-controller watches and publishes, and no node listens;
//! 4. synthetic rulecast nodes listen to it, and report ([`own`]).
//!
//! Then single nodes join ([`join`]). The nodes are synthetic, so that hundreds fit on one machine: each has connections of
//! its own, with TLS, as the real client has them, and asks what the real client asks; what comes is counted and cut into
//! events, and not used. Bytes are those on the wire, below TLS and above TCP, from the API server to the nodes. Processor
//! time is the kube-apiserver process's own, over exactly the phase: starting is not part of it. kube-proxy reports
//! nothing but events about failures, so nothing is counted for it; a rulecast node's reports are part of its cost, as are the
//! controller's watches and writes.

mod fleet;
mod frames;
mod join;
mod own;
mod peer;
mod table;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rulecast_tests::namespace::{self, Namespace};
use rulecast_tests::process::Process;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::fleet::{Counts, Fleet};
use self::own::Reports;
pub use self::table::Comparison;
use crate::cluster::Size;
use crate::live::{Churn, Live, Protocol, cpu};
use crate::memory;
use crate::progress::Progress;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The size of the cluster.
    pub size: Size,
    /// Number of rulecast nodes.
    pub nodes: u32,
    /// Number of kube-proxies.
    pub peer_nodes: u32,
    /// Number of kube-proxies that join; five times as many rulecast nodes do. 0: none does.
    pub joins: u32,
    /// Endpoints that change in a second.
    pub rate: u32,
    /// How long each phase takes.
    pub time: Duration,
    /// The least time between two reports of a node; none: nodes do not report new versions.
    pub report_interval: Option<Duration>,
}

/// Beginning of the namespace's name.
const PREFIX: &str = "rc-fanout";
/// The processor time that an API server takes for itself when it is at rest, in processors.
const AT_REST: f64 = 0.1;
/// How long to wait for that.
const SETTLE: Duration = Duration::from_mins(3);
/// A rulecast node costs the API server so little that more of them have to join than kube-proxies.
const OWN_JOINS: u32 = 5;

/// What one phase took.
#[derive(Debug, Clone, Copy, Default)]
struct Phase {
    /// The API server's processor time.
    cpu: Duration,
    /// What came to the nodes.
    counts: Counts,
    /// The longest that a change was late.
    late: Duration,
}

/// Measures.
pub fn measure(plan: &Plan, progress: &mut Progress) -> Result<Comparison> {
    namespace::require(&["ip"])?;
    namespace::remove_leftovers(PREFIX)?;
    raise_file_limit(u64::from(2 * plan.nodes.max(plan.peer_nodes)) + 500)?;
    let hub = Namespace::new(&format!("{PREFIX}-{}", std::process::id()))?;
    let live = Live::start(hub, Ipv4Addr::LOCALHOST, plan.size, progress)?;
    let token = peer::account(&live)?;
    let mut controller = live.controller()?;
    let result = live.run(async || phases(&live, plan, &token, &mut controller, progress).await);
    result.inspect_err(|_| eprintln!("{}\n{}", controller.log_tail(), live.control_plane.log_tails()))
}

/// Two connections a node are more than most systems allow a process by default. The API server inherits the limit.
fn raise_file_limit(needed: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    let enough = limit.current.is_none_or(|current| current >= needed);
    ensure!(enough, "this needs {needed} open files a process: raise the hard limit with `ulimit -Hn`");
    Ok(())
}

async fn phases(
    live: &Live,
    plan: &Plan,
    token: &str,
    controller: &mut Process,
    progress: &mut Progress,
) -> Result<Comparison> {
    let mut churn = live.churn().await?;
    let mut comparison = Comparison::new(plan);
    let mut bench = Bench { live, plan, churn: &mut churn, progress };
    comparison.churn = bench.phase("changes alone", None).await?;
    if plan.peer_nodes > 0 {
        let mut fleet = peer::fleet(live, token, plan.peer_nodes, bench.progress).await?;
        comparison.peer = Some(bench.phase("kube-proxies", Some(&mut fleet)).await?);
        comparison.peer_connections = fleet.connections();
        comparison.peer_api_server = Some(memory::of(&live.pid()?.to_string())?);
    }
    bench.controller(controller, &mut comparison).await?;
    if plan.joins > 0 {
        bench.settle().await?;
        bench.progress.step("nodes join: rulecast");
        comparison.own_join = Some(join::own(live, OWN_JOINS * plan.joins).await?);
        bench.progress.step("nodes join: kube-proxy");
        comparison.peer_join = Some(join::peers(live, token, plan.joins).await?);
    }
    Ok(comparison)
}

struct Bench<'a> {
    live: &'a Live,
    plan: &'a Plan,
    churn: &'a mut Churn,
    progress: &'a mut Progress,
}

impl Bench<'_> {
    /// Waits until the API server is at rest.
    async fn settle(&mut self) -> Result<()> {
        let pid = self.live.pid()?;
        let end = Instant::now() + SETTLE;
        let mut calm = 0;
        while calm < 3 {
            ensure!(Instant::now() < end, "the API server does not come to rest within {SETTLE:?}");
            let before = cpu::of(pid)?;
            sleep(Duration::from_secs(1)).await;
            let used = cpu::of(pid)?.saturating_sub(before).as_secs_f64();
            calm = if used < AT_REST { calm + 1 } else { 0 };
        }
        Ok(())
    }

    /// Measures the changes and what they cause.
    async fn phase(&mut self, what: &str, mut fleet: Option<&mut Fleet>) -> Result<Phase> {
        self.progress.step(&format!("{what}: waiting for the API server to come to rest"));
        self.settle().await?;
        let Plan { rate, time, .. } = *self.plan;
        self.progress.step(&format!("{what}: {rate} changes a second for {time:?}"));
        let mut counts = || fleet.as_mut().map_or(Ok(Counts::default()), |fleet| fleet.counts());
        let pid = self.live.pid()?;
        let (before, counted) = (cpu::of(pid)?, counts()?);
        let run = self.churn.run(rate, time).await?;
        let (after, counts) = (cpu::of(pid)?, counts()?);
        Ok(Phase { cpu: after.saturating_sub(before), counts: counts.since(counted), late: run.late })
    }

    /// The phases with the controller.
    async fn controller(&mut self, controller: &mut Process, comparison: &mut Comparison) -> Result<()> {
        let (live, plan) = (self.live, self.plan);
        let appliers = plan.nodes.max(OWN_JOINS * plan.joins);
        live.add_appliers(0..appliers, self.progress).await?;
        self.progress.step("the controller reads and publishes everything");
        controller.start(&live.hub)?;
        let admin = live.admin();
        wait_for_bundle(live, admin, controller).await?;
        comparison.controller = self.phase("the controller alone", None).await?;
        let (start, reports) = watch::channel(None);
        let mut fleet = own::fleet(live, plan.nodes, &reports, self.progress).await?;
        self.settle().await?;
        let process = controller.pid().context("the controller runs")?;
        let before = cpu::of(process)?;
        if let Some(interval) = plan.report_interval {
            let nodes = live.cluster().nodes().max(appliers);
            start.send_replace(Some(Reports::new(Instant::now(), interval, nodes)));
        }
        comparison.own = self.phase("rulecast nodes", Some(&mut fleet)).await?;
        comparison.controller_cpu = cpu::of(process)?.saturating_sub(before);
        comparison.controller_memory = Some(memory::of(&process.to_string())?);
        comparison.own_connections = fleet.connections();
        comparison.own_api_server = Some(memory::of(&live.pid()?.to_string())?);
        ensure!(controller.is_running()?, "the controller ended");
        Ok(())
    }
}

/// Waits until the controller has published something.
async fn wait_for_bundle(live: &Live, token: &str, controller: &mut Process) -> Result<()> {
    let mut connection = live.api().connect(Protocol::Http1, token).await?;
    let end = Instant::now() + SETTLE;
    while own::list(&mut connection).await.is_err() {
        ensure!(controller.is_running()?, "the controller ended");
        ensure!(Instant::now() < end, "nothing was published within {SETTLE:?}");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
