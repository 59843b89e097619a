//! How long a change takes from the write of an EndpointSlice to the kernel of a node, with rulecast and with kube-proxy.
//!
//! Both serve the same cluster at the same time, on one real API server, each on a node of its own: one write, and two
//! arrivals, which the two kernels tell themselves. All programs are the real ones with their defaults, in particular at
//! most one publication, and one sync, a second.

mod notification;
mod observer;
pub(crate) mod proxies;
mod table;

use std::net::{IpAddr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rulecast_tests::namespace;
use rulecast_tests::network::{HUB, Network};
use tokio::time::{sleep, sleep_until};

use self::notification::Proxy;
use self::observer::Observer;
use self::table::{Load, Sample};
use crate::cluster::Size;
use crate::live::{Churn, Live};
use crate::progress::Progress;

pub use self::table::Row;

/// Beginning of the namespaces' names.
const PREFIX: &str = "rc-propagation";
/// The node that both proxies are on, each in a namespace of its own.
const NODE: u32 = 0;
/// So many changes on a quiet cluster are measured even when time is up: each takes kube-proxy half a minute at 10,000
/// Services on a busy machine.
const QUIET_CHANGES: usize = 10;
/// Longer than the publish interval and kube-proxy's minSyncPeriod, by any part of either.
const PAUSE_MS: Range<u64> = 1500..2500;
/// How long a change may take to arrive. Generous: it bounds failures only. kube-proxy lists its whole table before each
/// sync, which takes nft many seconds at 10,000 Services (<https://github.com/kubernetes/kubernetes/issues/139513>).
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks whether it has arrived. The time is the kernel's word, not that of the look.
const LOOK: Duration = Duration::from_millis(20);
/// If writing all changes takes so much longer than it should, in percent, the rate is not what was asked for.
const LATE: u32 = 5;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Changes a second, in the second half.
    pub rate: u32,
    /// How long each half takes: single changes on a quiet cluster, and many.
    pub time: Duration,
}

/// Measures at one size: on a quiet cluster, and while changes go on. Each is told as soon as it is known.
pub fn measure(
    size: Size,
    options: Options,
    progress: &mut Progress,
    mut tell: impl FnMut(Row) -> Result<()> + Send,
) -> Result<()> {
    namespace::require(&["ip", "nft"])?;
    let title = format!("propagation {} x {}", size.services, size.endpoints);
    let Network { nodes, hub, .. } = Network::new(PREFIX, 0)?;
    let [peer_node, own_node] = nodes.as_slice() else { bail!("a network of two nodes is wanted") };
    let live = Live::start(hub, HUB, size, progress)?;
    progress.step(&format!("{title}: rulecast writes its rules"));
    let controller = proxies::controller(&live)?;
    let applier = proxies::applier(&live, &own_node.namespace, progress)?;
    progress.step(&format!("{title}: kube-proxy writes its rules"));
    let kube_proxy = proxies::kube_proxy(&live, &peer_node.namespace)?;
    let kernels = Kernels {
        own: Observer::start("rulecast", &own_node.namespace, Proxy::Rulecast)?,
        peer: Observer::start("kube-proxy", &peer_node.namespace, Proxy::KubeProxy)?,
    };
    let measured = live.run(async || {
        let mut churn = live.churn().await?;
        progress.step(&format!("{title}: until both follow"));
        kernels.wait(&write(&mut churn).await?).await?;
        let quiet = quiet(&mut churn, &kernels, options.time, |n| {
            progress.step(&format!("{title}: change {n} on a quiet cluster"));
        });
        let quiet = quiet.await?;
        progress.clear();
        tell(Row::new(size, Load::Quiet, &quiet))?;
        sleep(Duration::from_millis(PAUSE_MS.end)).await;
        progress.step(&format!("{title}: {} changes a second", options.rate));
        let busy = busy(&mut churn, &kernels, options.rate, options.time).await?;
        progress.clear();
        tell(Row::new(size, Load::Changes(options.rate), &busy))
    });
    measured.inspect_err(|_| {
        for process in [&controller, &applier, &kube_proxy] {
            eprintln!("{}", process.log_tail());
        }
    })
}

/// A change that was written.
struct Written {
    /// Its endpoint, which was nowhere before: who has it has the change.
    endpoint: SocketAddrV4,
    /// When it was sent.
    at: Instant,
    /// Until the API server answered.
    put: Duration,
}

async fn write(churn: &mut Churn) -> Result<Written> {
    // kube-proxy may have taken minutes.
    churn.refresh().await?;
    let at = Instant::now();
    let change = churn.change().await?;
    let IpAddr::V4(address) = change.new else { bail!("the cluster has IPv4 only") };
    Ok(Written { endpoint: SocketAddrV4::new(address, change.port), at, put: at.elapsed() })
}

/// Single changes, each when the one before has been everywhere for a while.
async fn quiet(
    churn: &mut Churn,
    kernels: &Kernels,
    time: Duration,
    mut show: impl FnMut(usize),
) -> Result<Vec<Sample>> {
    let end = Instant::now() + time;
    let mut random = fastrand::Rng::with_seed(1);
    let mut samples = Vec::new();
    while Instant::now() < end || samples.len() < QUIET_CHANGES {
        sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
        samples.push(kernels.wait(&write(churn).await?).await?);
        show(samples.len());
    }
    Ok(samples)
}

/// Changes at an even rate, all of them measured.
async fn busy(churn: &mut Churn, kernels: &Kernels, rate: u32, time: Duration) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let count = u32::try_from(u128::from(rate) * time.as_millis() / 1000).context("too many changes")?;
    let mut written = Vec::new();
    for n in 0..count {
        let due = start + time * n / count;
        sleep_until(due.into()).await;
        // One that is late is written at once; its time begins with it.
        written.push(write(churn).await?);
    }
    let took = start.elapsed();
    ensure!(took < time + time * LATE / 100, "{count} changes took {took:?} to write instead of {time:?}");
    let mut samples = Vec::new();
    for written in &written {
        samples.push(kernels.wait(written).await?);
    }
    Ok(samples)
}

/// Both nodes' kernels.
struct Kernels {
    own: Observer,
    peer: Observer,
}

impl Kernels {
    /// Waits until a change is in both.
    async fn wait(&self, written: &Written) -> Result<Sample> {
        let own = arrival(&self.own, written).await?;
        let peer = arrival(&self.peer, written).await?;
        Ok(Sample { put: written.put, own: own - written.at, peer: peer - written.at })
    }
}

async fn arrival(observer: &Observer, written: &Written) -> Result<Instant> {
    loop {
        let (name, endpoint) = (observer.name(), written.endpoint);
        if let Some(arrival) = observer.arrival(endpoint)? {
            ensure!(arrival >= written.at, "{name}'s kernel had {endpoint} before it was written");
            return Ok(arrival);
        }
        ensure!(written.at.elapsed() < PATIENCE, "{name}'s kernel never had {endpoint} in {PATIENCE:?}");
        sleep(LOOK).await;
    }
}
