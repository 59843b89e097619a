//! Many nodes at once, and what came to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::frames::{Encoding, Frames, Kind};
use crate::live::Traffic;
use crate::progress::Progress;

/// Connections that are made at once: handshakes cost the API server, and a storm of them is not the subject.
const AT_ONCE: usize = 8;

/// What all nodes of a fleet have seen. Nothing is ordered by these counts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    events: AtomicU64,
    event_bytes: AtomicU64,
    reports: AtomicU64,
}

impl Seen {
    /// Notes an event of so many bytes.
    pub(super) fn event(&self, bytes: usize) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.event_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that a node reported.
    pub(super) fn report(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }
}

/// What came to a fleet so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Bytes below TLS.
    pub(super) bytes: u64,
    /// Events.
    pub(super) events: u64,
    /// Bytes of the events alone, without frames and TLS.
    pub(super) event_bytes: u64,
    /// What the nodes wrote.
    pub(super) reports: u64,
}

impl Counts {
    /// What came since.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            events: self.events - before.events,
            event_bytes: self.event_bytes - before.event_bytes,
            reports: self.reports - before.reports,
        }
    }
}

/// A node that is connected: its connections' traffic, and what it goes on doing.
pub(super) struct Node<F> {
    pub(super) traffic: Vec<Arc<Traffic>>,
    pub(super) work: F,
}

/// Nodes that run. They end with this value.
pub(super) struct Fleet {
    tasks: JoinSet<Result<()>>,
    traffic: Vec<Arc<Traffic>>,
    seen: Arc<Seen>,
}

impl Fleet {
    /// Connects `count` nodes, a few at a time.
    pub(super) async fn start<F>(
        count: u32,
        what: &str,
        connect: impl AsyncFn(u32, Arc<Seen>) -> Result<Node<F>>,
        progress: &mut Progress,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let seen = Arc::new(Seen::default());
        let mut fleet = Self { tasks: JoinSet::new(), traffic: Vec::new(), seen: seen.clone() };
        let nodes = stream::iter(0..count).map(|n| connect(n, seen.clone()));
        let mut nodes = std::pin::pin!(nodes.buffer_unordered(AT_ONCE));
        while let Some(node) = nodes.try_next().await.with_context(|| format!("connecting {what}"))? {
            fleet.traffic.extend(node.traffic);
            fleet.tasks.spawn(node.work);
            progress.step(&format!("connecting {what}: {} of {count}", fleet.tasks.len()));
        }
        Ok(fleet)
    }

    /// What came so far. A node that no longer runs is an error.
    pub(super) fn counts(&mut self) -> Result<Counts> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended?.context("a node")?;
            bail!("a node's watch ended");
        }
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Counts {
            bytes: self.traffic.iter().map(|traffic| traffic.received()).sum(),
            events: load(&self.seen.events),
            event_bytes: load(&self.seen.event_bytes),
            reports: load(&self.seen.reports),
        })
    }

    /// Number of connections.
    pub(super) fn connections(&self) -> usize {
        self.traffic.len()
    }
}

/// Gives each event of a watch to `each` until it says that it has enough, or the API server ends the watch; returns
/// whether it had.
pub(super) async fn follow(
    mut body: Incoming,
    encoding: Encoding,
    mut each: impl FnMut(Kind, &[u8]) -> Result<bool>,
) -> Result<bool> {
    let mut frames = Frames::new(encoding);
    let mut enough = false;
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.context("a watch")?.into_data() else { continue };
        frames.push(&bytes, |event| {
            let kind = encoding.kind(event);
            if kind == Kind::Error {
                bail!("a watch: {}", String::from_utf8_lossy(event));
            }
            enough |= each(kind, event)?;
            Ok(())
        })?;
        if enough {
            break;
        }
    }
    Ok(enough)
}
