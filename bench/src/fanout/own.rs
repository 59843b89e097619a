//! Synthetic rulecast nodes: what `rulecast-node` asks an API server for (`node-applier/src/source/cluster.rs` and
//! `report.rs`, through `kube`): HTTP/1.1 and JSON, nothing compressed.
//!
//! One connection lists and then watches one RuleBundle; the pool of connections opens a second one for the node's reports,
//! and another one when the API server has closed that in the meantime. Each node has a token of its own, which names it: without, the admission
//! policy would not let it report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::BodyExt as _;
use hyper::Method;
use rulecast_bundle::Head;
use rulecast_node::report::spread_of_versions;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::fleet::{Fleet, Node, Seen, follow};
use super::frames::{Encoding, Kind, field};
use crate::cluster::POOL;
use crate::live::{Api, Ask, Connection, Live, Protocol};
use crate::progress::Progress;

const GROUP: &str = "/apis/rulecast.dev/v1alpha1";
/// As `WATCH_SECONDS` of the applier.
const WATCH_SECONDS: u32 = 280;

/// A list of the one bundle, from the watch cache.
pub(super) fn list_path() -> String {
    format!(
        "{GROUP}/rulebundles?&fieldSelector=metadata.name%3D{POOL}&resourceVersion=0\
         &resourceVersionMatch=NotOlderThan"
    )
}

fn watch_path(version: &str) -> String {
    format!(
        "{GROUP}/rulebundles?&watch=true&timeoutSeconds={WATCH_SECONDS}&fieldSelector=metadata.name%3D{POOL}\
         &allowWatchBookmarks=true&resourceVersion={version}"
    )
}

/// When nodes report new versions, as the applier's schedule has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reports {
    /// When the endpoints begin to change.
    pub(super) start: Instant,
    /// The least time between two reports of a node.
    interval: Duration,
    /// Up to this much is added, at random.
    spread: Duration,
}

impl Reports {
    /// In a cluster with so many nodes, at least `interval` apart.
    pub(super) fn new(start: Instant, interval: Duration, nodes: u32) -> Self {
        let spread = spread_of_versions(nodes as usize);
        Self { start, interval: interval.max(spread), spread }
    }

    /// The time from one report of a node to its next.
    fn pause(&self) -> Duration {
        self.interval + self.spread.mul_f64(fastrand::f64())
    }

    /// The first report since the start: as if the nodes had been at it for long.
    fn first(&self) -> Instant {
        self.start + self.pause().mul_f64(fastrand::f64())
    }
}

/// Connects nodes that have read everything. Each reports once now, and again as `reports` says.
pub(super) async fn fleet(
    live: &Live,
    count: u32,
    reports: &Receiver<Option<Reports>>,
    progress: &mut Progress,
) -> Result<Fleet> {
    let connect = async |n: u32, seen: Arc<Seen>| {
        let mut admin = live.api().connect(Protocol::Http1, live.admin()).await?;
        let token = live.applier_token(&mut admin, n).await?;
        let mut watching = live.api().connect(Protocol::Http1, &token).await?;
        let (head, version) = list(&mut watching).await?;
        let latest = Latest { sequence: head.sequence, digest: head.digest, version };
        let latest = Arc::new(Mutex::new(latest));
        let reporting = live.api().connect(Protocol::Http1, &token).await?;
        let traffic = vec![watching.traffic(), reporting.traffic()];
        let name = live.cluster().node_name(n);
        let mut reporter = Reporter {
            api: live.api().clone(),
            token,
            connection: reporting,
            name,
            latest: latest.clone(),
            seen: seen.clone(),
        };
        reporter.first().await?;
        let reports = reports.clone();
        // Both go on until the fleet ends.
        let work =
            async move { tokio::try_join!(watch(watching, &latest, &seen), reporter.run(reports)).map(drop) };
        Ok(Node { traffic, work })
    };
    Fleet::start(count, "rulecast nodes", connect, progress).await
}

/// The version that a node follows.
#[derive(Debug, Clone)]
struct Latest {
    sequence: u64,
    digest: String,
    /// The object's resourceVersion.
    version: String,
}

type Shared = Arc<Mutex<Latest>>;

fn get(latest: &Shared) -> Latest {
    latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The head, and the version to watch from.
pub(super) async fn list(connection: &mut Connection) -> Result<(Head, String)> {
    let mut list = connection.json(Method::GET, &list_path(), None).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list's version")?.to_owned();
    let bundle = list.pointer_mut("/items/0/spec").context("there is no RuleBundle yet")?.take();
    Ok((serde_json::from_value(bundle).context("the RuleBundle")?, version))
}

/// Watches for ever, as one watch after the other.
async fn watch(mut connection: Connection, latest: &Shared, seen: &Seen) -> Result<()> {
    loop {
        let path = watch_path(&get(latest).version);
        let ask = Ask { accept: "*/*", ..Ask::default() };
        let body = connection.send(Method::GET, &path, ask, Vec::new()).await?.into_body();
        follow(body, Encoding::Json, |kind, event| {
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            let version =
                field(event, b"\"resourceVersion\":\"", b"\"").context("an event without version")?;
            version.clone_into(&mut latest.version);
            if kind == Kind::Object {
                seen.event(event.len());
                let sequence = field(event, b"\"sequence\":", b",}").and_then(|text| text.parse().ok());
                let sequence: u64 = sequence.context("a bundle without sequence")?;
                ensure!(sequence > latest.sequence, "sequence {sequence} came after {}", latest.sequence);
                latest.sequence = sequence;
                field(event, b"\"digest\":\"", b"\"").context("a digest")?.clone_into(&mut latest.digest);
            }
            Ok(false)
        })
        .await?;
    }
}

/// Writes a node's RuleNode.
struct Reporter {
    api: Api,
    token: String,
    connection: Connection,
    name: String,
    latest: Shared,
    seen: Arc<Seen>,
}

impl Reporter {
    /// The first report: there is no object yet.
    async fn first(&mut self) -> Result<()> {
        let version = get(&self.latest);
        self.patch("", &self.object(None)).await?;
        self.patch("/status", &self.object(Some(&version))).await
    }

    /// Reports new versions once it is said when to.
    async fn run(mut self, mut reports: Receiver<Option<Reports>>) -> Result<()> {
        // Nobody says so when there are to be none.
        let Some(reports) = reports.wait_for(Option::is_some).await.ok().and_then(|reports| *reports) else {
            return std::future::pending().await;
        };
        let mut due = reports.first();
        let mut reported = 0;
        loop {
            sleep_until(due).await;
            let latest = get(&self.latest);
            if latest.sequence != reported {
                reported = latest.sequence;
                self.patch("/status", &self.object(Some(&latest))).await?;
                self.seen.report();
            }
            due += reports.pause();
        }
    }

    fn object(&self, version: Option<&Latest>) -> Value {
        let mut object = json!({
            "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleNode", "metadata": { "name": self.name },
        });
        if let Some(Latest { sequence, digest, .. }) = version {
            let now = format!("{:.6}", jiff::Timestamp::now());
            object["status"] = json!({
                "pool": POOL, "mode": "nftables", "version": env!("CARGO_PKG_VERSION"), "restored": false,
                "sequence": sequence, "epoch": 0, "digest": digest, "appliedAt": now,
            });
        }
        object
    }

    /// Server-side apply, as the applier does it.
    async fn patch(&mut self, subresource: &str, object: &Value) -> Result<()> {
        let path =
            format!("{GROUP}/rulenodes/{}{subresource}?&force=true&fieldManager=rulecast-node", self.name);
        let ask = Ask { content_type: "application/apply-patch+yaml", ..Ask::default() };
        let body = object.to_string().into_bytes();
        if self.connection.is_closed() {
            let traffic = self.connection.traffic();
            self.connection = self.api.connect_counted(Protocol::Http1, &self.token, traffic).await?;
        }
        let answer = self.connection.send(Method::PATCH, &path, ask, body).await?;
        answer.into_body().collect().await?;
        Ok(())
    }
}

/// Reads a chunk that is not new, from the watch cache.
pub(super) async fn chunk(connection: &mut Connection, name: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let ask = Ask { accept: "*/*", ..Ask::default() };
    let path = format!("{GROUP}/rulechunks/{name}?&resourceVersion=0");
    let answer = connection.send(Method::GET, &path, ask, Vec::new()).await?;
    let object: Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
    let Some(data) = object["spec"]["data"].as_str() else { bail!("RuleChunk {name} has no data") };
    Ok(base64::engine::general_purpose::STANDARD_NO_PAD.decode(data)?)
}

/// Opens a node's watch, and returns once the API server has accepted it.
pub(super) async fn begin_watch(connection: &mut Connection, version: &str) -> Result<hyper::body::Incoming> {
    let ask = Ask { accept: "*/*", ..Ask::default() };
    Ok(connection.send(Method::GET, &watch_path(version), ask, Vec::new()).await?.into_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_together_write_a_report_a_second() {
        fastrand::seed(5);
        let start = Instant::now();
        let reports = Reports::new(start, Duration::from_secs(10), 500);
        let firsts = (0..500).map(|_| (reports.first() - start).as_secs());
        let within = firsts.filter(|second| *second < 60).count();
        // 500 nodes once in 500 to 1,000 seconds.
        assert!((20..=65).contains(&within), "{within}");
        assert_eq!(Reports::new(start, Duration::from_secs(10), 2).interval, Duration::from_secs(10));
    }
}
