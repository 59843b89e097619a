//! The API server as the node's source: a watch of one head, as `node-applier/src/source/cluster.rs` and `kube` keep it.

use std::sync::Arc;
use std::time::Duration;

use rulecast_bundle::ChunkId;
use rulecast_connect::{between, jitter};
use rulecast_node::source::{News, Source, SourceError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::Universe;
use crate::faults::{Client, Fault};
use crate::requests::ask;

/// The shortest and the longest wait after a watch broke.
const BACKOFF: [Duration; 2] = [Duration::from_millis(800), Duration::from_secs(30)];
/// The longest wait after the API server no longer knew where to go on from.
const SOON: Duration = Duration::from_secs(1);
/// The longest that a watch event takes.
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// One node's watch and reads. The watch ends with it.
pub(crate) struct ApiSource {
    universe: Arc<Universe>,
    client: Client,
    heads: mpsc::Receiver<Result<News, SourceError>>,
    watch: JoinHandle<()>,
}

impl ApiSource {
    pub(crate) fn start(universe: &Arc<Universe>, client: Client, pool: &str) -> Self {
        // A watch is read only as fast as its events are taken.
        let (told, heads) = mpsc::channel(1);
        let watch = Watch {
            universe: Arc::clone(universe),
            client,
            pool: pool.to_owned(),
            told,
            pause: BACKOFF[0],
            at: None,
        };
        Self { universe: Arc::clone(universe), client, heads, watch: tokio::spawn(watch.run()) }
    }
}

impl Drop for ApiSource {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Source for ApiSource {
    fn follow(&mut self, name: &str) {
        *self = Self::start(&self.universe, self.client, name);
    }

    async fn next(&mut self) -> Result<News, SourceError> {
        match self.heads.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        let what = format!("get chunk {id}");
        let answer = ask(&self.universe, self.client, &what, move |api| api.chunk(id)).await;
        let mut bytes = answer.map_err(SourceError::Timeout)?.ok_or_else(|| {
            self.universe.trace.note(format_args!("{}: chunk {id} is not there", self.client));
            SourceError::Malformed { what, why: "not found".to_owned() }
        })?;
        self.universe.corrupt(self.client, id, &mut bytes);
        Ok(bytes)
    }
}

struct Watch {
    universe: Arc<Universe>,
    client: Client,
    pool: String,
    told: mpsc::Sender<Result<News, SourceError>>,
    pause: Duration,
    /// The version up to which everything was told; none: a list comes first.
    at: Option<u64>,
}

impl Watch {
    async fn run(mut self) {
        loop {
            let end = match self.at {
                None => self.list().await,
                Some(at) => self.follow(at).await,
            };
            match end {
                Ok(()) => self.pause = BACKOFF[0],
                Err(problem) => {
                    self.universe.trace.note(format_args!("{}: {problem}", self.client));
                    if self.told.send(Err(SourceError::Watch(problem))).await.is_err() {
                        return;
                    }
                    sleep(jitter(self.pause)).await;
                    self.pause = (self.pause * 2).min(BACKOFF[1]);
                }
            }
        }
    }

    async fn list(&mut self) -> Result<(), String> {
        let lag = if self.universe.faults.hits(Fault::Stale) { fastrand::usize(1..8) } else { 0 };
        let pool = self.pool.clone();
        let listed = ask(&self.universe, self.client, "list the head", move |api| api.list_head(&pool, lag));
        let (head, at) = listed.await?;
        self.at = Some(at);
        if let Some(head) = head {
            self.universe.trace.note(format_args!("{}: lists {}", self.client, head.sequence));
            self.tell(News::Head(head)).await;
        } else {
            self.tell(News::Gone { deleted: false }).await;
        }
        Ok(())
    }

    /// Tells what comes after a version, until the watch breaks or ends.
    async fn follow(&mut self, mut at: u64) -> Result<(), String> {
        if self.universe.faults.hits(Fault::Gone) {
            self.universe.trace.note(format_args!("{}: 410, it lists again", self.client));
            self.at = None;
            sleep(jitter(SOON)).await;
            return Ok(());
        }
        let end = between(Duration::from_secs(5), Duration::from_mins(2));
        loop {
            let changed = self.universe.changed();
            let next = self.universe.api().head_after(&self.pool, at).map(|r| (r.version, r.head.clone()));
            let Some((version, head)) = next else {
                if timeout(end, changed).await.is_err() {
                    return if self.is_broken() { Err("the watch broke".to_owned()) } else { Ok(()) };
                }
                continue;
            };
            let delayed = self.universe.faults.hits(Fault::Delayed);
            sleep(between(
                Duration::from_millis(1),
                if delayed { LONGEST_DELAY } else { Duration::from_millis(20) },
            ))
            .await;
            if self.is_broken() {
                return Err("the watch broke".to_owned());
            }
            at = version;
            self.at = Some(at);
            let Some(head) = head else {
                self.tell(News::Gone { deleted: true }).await;
                continue;
            };
            if self.universe.faults.hits(Fault::Twice) {
                self.tell(News::Head(head.clone())).await;
            }
            self.tell(News::Head(head)).await;
        }
    }

    async fn tell(&self, news: News) {
        let _ended = self.told.send(Ok(news)).await;
    }

    fn is_broken(&self) -> bool {
        !self.universe.faults.reaches(self.client) || self.universe.faults.hits(Fault::Cut)
    }
}
