//! The loop with a sink in memory, on a clock that only moves when nothing else does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{POOL, endpoints, service};
use rulecast_api::RulePoolStatus;
use rulecast_controller::http::Readiness;
use rulecast_controller::leadership::Leadership;
use rulecast_controller::metrics::Metrics;
use rulecast_controller::run::{Controller, RunError, RunOptions, Summary};
use rulecast_controller::sink::{
    ChunkKind, LastBundle, MemorySink, Revision, RuleRevisionSpec, Sink, SinkError, Version,
};
use rulecast_controller::source::Event;
use rulecast_controller::status::{Notice, StatusWriter};
use rulecast_controller::world::World;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<MemorySink>);

impl Sink for Shared {
    async fn read_head(&self, pool: &str) -> Result<Option<(rulecast_bundle::Head, Version)>, SinkError> {
        self.0.read_head(pool).await
    }
    async fn read_chunk(&self, pool: &str, id: rulecast_bundle::ChunkId) -> Result<Vec<u8>, SinkError> {
        self.0.read_chunk(pool, id).await
    }
    async fn write_chunk(
        &self,
        pool: &str,
        kind: ChunkKind,
        id: rulecast_bundle::ChunkId,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        self.0.write_chunk(pool, kind, id, bytes).await
    }
    async fn write_head(
        &self,
        pool: &str,
        head: &rulecast_bundle::Head,
        over: Option<&Version>,
    ) -> Result<Version, SinkError> {
        // As long as an API server takes.
        sleep(Duration::from_millis(5)).await;
        self.0.write_head(pool, head, over).await
    }
    async fn delete_head(&self, pool: &str) -> Result<(), SinkError> {
        self.0.delete_head(pool).await
    }
    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        self.0.list_pools().await
    }
    async fn list_chunks(&self, pool: &str) -> Result<Vec<rulecast_bundle::ChunkId>, SinkError> {
        self.0.list_chunks(pool).await
    }
    async fn delete_chunk(&self, pool: &str, id: rulecast_bundle::ChunkId) -> Result<(), SinkError> {
        self.0.delete_chunk(pool, id).await
    }
    async fn list_revisions(&self, pool: &str) -> Result<Vec<Revision>, SinkError> {
        self.0.list_revisions(pool).await
    }
    async fn write_revision(&self, revision: &RuleRevisionSpec) -> Result<(), SinkError> {
        self.0.write_revision(revision).await
    }
    async fn write_last_bundle(&self, pool: &str, number: u64, last: &LastBundle) -> Result<(), SinkError> {
        self.0.write_last_bundle(pool, number, last).await
    }
    async fn delete_revision(&self, pool: &str, number: u64) -> Result<(), SinkError> {
        self.0.delete_revision(pool, number).await
    }
}

#[derive(Clone, Default)]
pub(crate) struct Statuses(pub(crate) Arc<Mutex<Vec<(Instant, String, RulePoolStatus)>>>);

impl StatusWriter for Statuses {
    async fn write(&self, pool: &str, status: &RulePoolStatus, _: &[Notice]) -> Result<(), String> {
        self.0.lock().unwrap().push((Instant::now(), pool.to_owned(), status.clone()));
        Ok(())
    }
}

pub(crate) struct Rig {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) statuses: Statuses,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) leads: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<Summary, RunError>>,
}

impl Rig {
    pub(crate) fn start(sink: Arc<MemorySink>, options: RunOptions) -> Self {
        Self::start_as(true, sink, options)
    }

    pub(crate) fn start_as(leader: bool, sink: Arc<MemorySink>, options: RunOptions) -> Self {
        let (leads, leadership) = watch::channel(leader);
        let (events, receiver) = mpsc::channel(1000);
        let (stop, stopped) = oneshot::channel::<()>();
        let (statuses, readiness, metrics) =
            (Statuses::default(), Readiness::default(), Arc::new(Metrics::new()));
        let controller = Controller::new(
            World::default().with_default_pool(),
            Shared(Arc::clone(&sink)),
            statuses.clone(),
            Arc::clone(&metrics),
            readiness.clone(),
            options,
        )
        .with_leadership(Leadership::follow(leadership));
        let task = tokio::spawn(controller.run(receiver, async { drop(stopped.await) }));
        Self { events, sink, statuses, readiness, metrics, stop: Some(stop), leads, task }
    }

    pub(crate) async fn send(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.send(event).await.unwrap();
        }
    }

    pub(crate) fn sequences(&self) -> usize {
        self.sink.history(POOL).len()
    }

    pub(crate) async fn stop(&mut self) -> Summary {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap()
    }

    pub(crate) fn status(&self) -> RulePoolStatus {
        self.status_of(POOL)
    }

    pub(crate) fn status_of(&self, pool: &str) -> RulePoolStatus {
        let statuses = self.statuses.0.lock().unwrap();
        statuses.iter().rfind(|(_, name, _)| name == pool).expect("a status").2.clone()
    }

    pub(crate) fn ready(&self) -> (String, String) {
        let status = self.status();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready").expect("Ready");
        (ready.status.clone(), ready.reason.clone())
    }
}

pub(crate) fn some() -> Vec<Event> {
    (0..20).flat_map(|n| [service(n), endpoints(n, [1, 2])]).collect()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
