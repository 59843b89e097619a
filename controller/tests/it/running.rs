//! The loop, on a clock that only moves when nothing else does.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use crate::common::{Follower, POOL, endpoints, no_service, pool, service};
use rulecast_api::RulePoolStatus;
use rulecast_controller::http::Readiness;
use rulecast_controller::leadership::Leadership;
use rulecast_controller::metrics::Metrics;
use rulecast_controller::objects::{Kind, ObjectId, PoolConfig};
use rulecast_controller::publisher::Limits;
use rulecast_controller::run::{Controller, RunError, RunOptions, Summary};
use rulecast_controller::sink::{ChunkKind, Fault, MemorySink, Sink, SinkError, Version};
use rulecast_controller::source::Event;
use rulecast_controller::status::{Notice, StatusWriter};
use rulecast_controller::world::World;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

#[derive(Clone, Default)]
struct Shared(Arc<MemorySink>);

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
    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        self.0.list_pools().await
    }
    async fn list_chunks(&self, pool: &str) -> Result<Vec<rulecast_bundle::ChunkId>, SinkError> {
        self.0.list_chunks(pool).await
    }
    async fn delete_chunk(&self, pool: &str, id: rulecast_bundle::ChunkId) -> Result<(), SinkError> {
        self.0.delete_chunk(pool, id).await
    }
}

#[derive(Clone, Default)]
struct Statuses(Arc<Mutex<Vec<(Instant, RulePoolStatus)>>>);

impl StatusWriter for Statuses {
    async fn write(&self, _: &str, status: &RulePoolStatus, _: &[Notice]) -> Result<(), String> {
        self.0.lock().unwrap().push((Instant::now(), status.clone()));
        Ok(())
    }
}

struct Rig {
    events: mpsc::Sender<Event>,
    sink: Arc<MemorySink>,
    statuses: Statuses,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    leads: watch::Sender<bool>,
    task: JoinHandle<Result<Summary, RunError>>,
}

impl Rig {
    fn start(sink: Arc<MemorySink>, options: RunOptions) -> Self {
        Self::start_as(true, sink, options)
    }

    fn start_as(leader: bool, sink: Arc<MemorySink>, options: RunOptions) -> Self {
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

    async fn send(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.send(event).await.unwrap();
        }
    }

    fn sequences(&self) -> usize {
        self.sink.history(POOL).len()
    }

    async fn stop(&mut self) -> Summary {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap()
    }

    fn status(&self) -> RulePoolStatus {
        self.statuses.0.lock().unwrap().last().expect("a status").1.clone()
    }

    fn ready(&self) -> (String, String) {
        let status = self.status();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready").expect("Ready");
        (ready.status.clone(), ready.reason.clone())
    }
}

fn some() -> Vec<Event> {
    (0..20).flat_map(|n| [service(n), endpoints(n, [1, 2])]).collect()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_everything_is_read() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some()).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.sequences(), 0);
    assert!(!rig.readiness.is_ready());
    rig.send([Event::Synced]).await;
    sleep(ms(100)).await;
    assert_eq!(rig.sequences(), 1);
    assert!(rig.readiness.is_ready());
    assert_eq!(rig.stop().await.pools[POOL].services(), 20);
}

#[tokio::test(start_paused = true)]
async fn the_first_change_goes_out_at_once_and_a_storm_once_a_second() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.sequences(), 1);
    rig.send([endpoints(0, [9])]).await;
    sleep(ms(20)).await;
    assert_eq!(rig.sequences(), 2, "quiet before: at once");
    // 20 changes a second for 10 seconds.
    for round in 0..200u8 {
        rig.send([endpoints(u16::from(round % 20), [round])]).await;
        sleep(ms(50)).await;
    }
    sleep(Duration::from_secs(3)).await;
    let published = rig.sequences() - 2;
    assert!((10..=11).contains(&published), "{published}");
    let mut follower = Follower::new();
    follower.follow(&*rig.sink).await;
    let summary = rig.stop().await;
    assert_eq!(follower.sequence(), summary.pools[POOL].head.sequence);
    // A RulePool may ask for another pace, and the command line has the last word.
    let fast = RunOptions { publish_interval: Some(ms(100)), ..RunOptions::default() };
    let mut rig = Rig::start(Arc::default(), fast);
    rig.send(some().into_iter().chain([Event::Synced])).await;
    for round in 0..40u8 {
        rig.send([endpoints(1, [round])]).await;
        sleep(ms(50)).await;
    }
    assert!((18..=22).contains(&rig.sequences()), "{}", rig.sequences());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_tried_again_later_and_later() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(ms(100)).await;
    rig.sink.inject(std::iter::repeat_n(Fault::WriteHead, 6).chain([Fault::Read; 2]));
    for round in 0..10u8 {
        rig.send([endpoints(3, [round])]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.ready(), ("False".to_owned(), "PublishFailed".to_owned()));
    assert!(rig.readiness.is_ready(), "once ready, always ready");
    sleep(Duration::from_mins(3)).await;
    assert_eq!(rig.sink.faults_left(), 0);
    assert_eq!(rig.ready(), ("True".to_owned(), "Published".to_owned()));
    let mut follower = Follower::new();
    follower.follow(&*rig.sink).await;
    let text = rig.metrics.text();
    assert!(text.contains("rulecast_controller_publish_failures_total{pool=\"default\"} 8"), "{text}");
    rig.stop().await;
    let mut fresh = crate::common::world(20);
    crate::common::apply(&mut fresh, [endpoints(3, [9])]);
    assert_eq!(follower.root(), crate::common::compiled(&fresh));
}

#[tokio::test(start_paused = true)]
async fn a_shrunken_cluster_waits_for_a_word() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([pool(PoolConfig::default()), Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    rig.send((0..19).map(no_service)).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.sequences(), 1);
    assert_eq!(rig.ready(), ("False".to_owned(), "ShrinkRefused".to_owned()));
    assert!(rig.metrics.text().contains("shrink_refused{pool=\"default\"} 1"));
    rig.send([pool(PoolConfig { allow_shrink: Some(1), ..PoolConfig::default() })]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.sequences(), 2);
    assert_eq!(rig.ready(), ("True".to_owned(), "Published".to_owned()));
    assert!(rig.metrics.text().contains("shrink_refused{pool=\"default\"} 0"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn old_chunks_go_when_nobody_can_be_reading_them() {
    let limits = Limits { deltas: 3, ..Limits::default() };
    let keep = Duration::from_mins(10);
    let mut rig =
        Rig::start(Arc::default(), RunOptions { limits, keep_chunks: keep, ..RunOptions::default() });
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    for round in 0..20u8 {
        rig.send([endpoints(3, [round])]).await;
        sleep(Duration::from_secs(2)).await;
    }
    let many = rig.sink.chunk_ids(POOL).len();
    sleep(Duration::from_mins(9)).await;
    assert_eq!(rig.sink.chunk_ids(POOL).len(), many, "not before the time");
    sleep(Duration::from_mins(3)).await;
    let few = rig.sink.chunk_ids(POOL).len();
    assert!(few < many && few <= 7, "{few} of {many}");
    let mut follower = Follower::new();
    follower.follow(&*rig.sink).await;
    let published = rig.stop().await.pools[POOL].clone();
    assert_eq!(follower.sequence(), published.head.sequence);
    let there = rig.sink.chunk_ids(POOL);
    assert!(published.names().filter(|id| there.contains(id)).count() + 1 >= published.names().count());
}

#[tokio::test(start_paused = true)]
async fn a_restart_publishes_nothing_that_is_there_already() {
    let sink: Arc<MemorySink> = Arc::default();
    let mut first = Rig::start(Arc::clone(&sink), RunOptions::default());
    first.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    first.stop().await;
    let mut second = Rig::start(Arc::clone(&sink), RunOptions::default());
    second.send(some().into_iter().rev().chain([Event::Synced])).await;
    sleep(Duration::from_secs(5)).await;
    assert!(second.readiness.is_ready());
    assert_eq!(second.stop().await.pools[POOL].head.sequence, 1);
    assert_eq!(sink.history(POOL).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_finishes_what_is_in_flight() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    rig.send([endpoints(1, [7])]).await;
    sleep(ms(2)).await;
    assert_eq!(rig.sequences(), 1, "the head is being written");
    let summary = rig.stop().await;
    assert_eq!(summary.pools[POOL].head.sequence, 2);
    assert_eq!(rig.sequences(), 2);
}

#[tokio::test(start_paused = true)]
async fn bad_objects_keep_their_previous_version_and_are_shown() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    let bad = ObjectId::new(Kind::Service, "test/s3");
    rig.send([Event::Bad(bad.clone(), "spec.ports[0].port: must be from 1 to 65535".to_owned())]).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.sequences(), 1, "its rules stay");
    let status = rig.status();
    assert_eq!((status.quarantined_count, status.quarantined[0].service.as_str()), (1, "test/s3"));
    assert!(rig.metrics.text().contains("quarantined{kind=\"Service\"} 1"));
    rig.send([service(3)]).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.status().quarantined_count, 0);
    // The status is written when it says something new, not all the time.
    let written = rig.statuses.0.lock().unwrap().len();
    assert!(written <= 5, "{written}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn once_publishes_and_ends() {
    let rig = Rig::start(Arc::default(), RunOptions { once: true, ..RunOptions::default() });
    let bad = ObjectId::new(Kind::File, "x.yaml");
    rig.send(some().into_iter().chain([Event::Bad(bad, "cut off".to_owned()), Event::Synced])).await;
    let summary = rig.task.await.unwrap().unwrap();
    assert_eq!(summary.pools[POOL].head.sequence, 1);
    assert_eq!(summary.quarantined, ["file x.yaml: cut off"]);
    let rig = Rig::start(Arc::default(), RunOptions { once: true, ..RunOptions::default() });
    rig.sink.inject([Fault::WriteHead]);
    rig.send(some().into_iter().chain([Event::Synced])).await;
    assert!(matches!(rig.task.await.unwrap(), Err(RunError::Publish(_))));
}

#[tokio::test(start_paused = true)]
async fn the_one_that_stands_by_takes_over_where_the_leader_was() {
    let sink: Arc<MemorySink> = Arc::default();
    let mut leader = Rig::start(Arc::clone(&sink), RunOptions::default());
    let mut second = Rig::start_as(false, Arc::clone(&sink), RunOptions::default());
    for rig in [&leader, &second] {
        rig.send(some().into_iter().chain([Event::Synced])).await;
    }
    for host in 1..4u8 {
        sleep(Duration::from_secs(2)).await;
        leader.send([endpoints(1, [host])]).await;
        second.send([endpoints(1, [host])]).await;
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.history(POOL).len(), 4);
    assert!(second.readiness.is_ready(), "standing by is all it can do");
    assert!(second.statuses.0.lock().unwrap().is_empty(), "nor does it speak for the pool");

    // The leader dies with a change unpublished; both have seen it.
    leader.stop().await;
    second.send([endpoints(2, [9])]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.history(POOL).len(), 4);
    second.leads.send_replace(true);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.history(POOL).len(), 5);
    let mut follower = Follower::new();
    follower.follow(&*sink).await;
    assert_eq!(second.stop().await.pools[POOL].head.sequence, follower.sequence());
}
