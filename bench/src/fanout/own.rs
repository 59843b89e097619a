//! Synthetic rulecast nodes: what `rulecast-node` asks an API server for (`node-applier/src/source/cluster.rs` and
//! `report.rs`, through `kube`): HTTP/1.1 and JSON, nothing compressed.
//!
//! One connection lists and then watches one RuleBundle; the pool of connections opens a second one for the node's reports,
//! which come often enough to keep it open. Each node has a token of its own, which names it: without, the admission
//! policy would not let it report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::BodyExt as _;
use hyper::Method;
use rulecast_bundle::Head;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::fleet::{Fleet, Node, Seen, follow};
use super::frames::{Encoding, Kind, field};
use crate::cluster::POOL;
use crate::live::{Ask, Connection, Live, Protocol};
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

/// When the nodes begin to report new versions: each once in `interval`, spread over it. None: they never do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reports {
    pub(super) start: Instant,
    pub(super) interval: Option<Duration>,
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
        let mut reporter =
            Reporter { connection: reporting, name, latest: latest.clone(), seen: seen.clone() };
        reporter.first().await?;
        let (place, reports) = (f64::from(n) / f64::from(count), reports.clone());
        // Both go on until the fleet ends.
        let work = async move {
            tokio::try_join!(watch(watching, &latest, &seen), reporter.run(reports, place)).map(drop)
        };
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

    /// Reports new versions once in the interval, as `place` (from 0 to 1) says when in it.
    async fn run(mut self, mut reports: Receiver<Option<Reports>>, place: f64) -> Result<()> {
        let begin = *reports.wait_for(Option::is_some).await.context("the end of the measurement")?;
        let (start, interval) = match begin {
            Some(Reports { start, interval: Some(interval) }) => (start, interval),
            _ => std::future::pending().await,
        };
        let mut due = start + interval.mul_f64(place);
        let mut reported = 0;
        loop {
            sleep_until(due).await;
            due += interval;
            let latest = get(&self.latest);
            if latest.sequence != reported {
                reported = latest.sequence;
                self.patch("/status", &self.object(Some(&latest))).await?;
                self.seen.report();
            }
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
        let answer = self.connection.send(Method::PATCH, &path, ask, body).await?;
        answer.into_body().collect().await?;
        Ok(())
    }
}

/// Reads a chunk.
pub(super) async fn chunk(connection: &mut Connection, name: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let ask = Ask { accept: "*/*", ..Ask::default() };
    let answer = connection.send(Method::GET, &format!("{GROUP}/rulechunks/{name}"), ask, Vec::new()).await?;
    let object: Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
    let Some(data) = object["spec"]["data"].as_str() else { bail!("RuleChunk {name} has no data") };
    Ok(base64::engine::general_purpose::STANDARD_NO_PAD.decode(data)?)
}

/// Opens a node's watch, and returns once the API server has accepted it.
pub(super) async fn begin_watch(connection: &mut Connection, version: &str) -> Result<hyper::body::Incoming> {
    let ask = Ask { accept: "*/*", ..Ask::default() };
    Ok(connection.send(Method::GET, &watch_path(version), ask, Vec::new()).await?.into_body())
}
