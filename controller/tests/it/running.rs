//! The loop, on a clock that only moves when nothing else does.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Follower, POOL, endpoints, service};
use crate::rig::{Rig, ms, some};
use rulecast_controller::garbage::{Garbage, Named};
use rulecast_controller::objects::{Kind, ObjectId};
use rulecast_controller::publisher::{Limits, Publisher};
use rulecast_controller::run::{RunError, RunOptions};
use rulecast_controller::sink::{ChunkKind, Fault, MemorySink, Sink};
use rulecast_controller::source::Event;
use tokio::time::sleep;

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
    sleep(Duration::from_mins(5)).await;
    let few = rig.sink.chunk_ids(POOL).len();
    assert!(few < many, "{few} of {many}");
    let mut follower = Follower::new();
    follower.follow(&*rig.sink).await;
    let published = rig.stop().await.pools[POOL].clone();
    assert_eq!(follower.sequence(), published.head.sequence);
    let there = rig.sink.chunk_ids(POOL);
    assert!(published.names().all(|id| there.contains(&id)));
    // Beside those: the revision, and the deltas that the one merged last made superfluous: they still have some time.
    let revision: usize =
        rig.sink.list_revisions(POOL).await.unwrap().iter().map(|stored| stored.spec.chunks.len()).sum();
    let most = published.names().count() + revision + 1;
    assert!(there.len() <= most, "{} are there", there.len());
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_not_old_because_nobody_looked() {
    let (sink, keep) = (MemorySink::default(), Duration::from_mins(10));
    let mut world = crate::common::world(3);
    let bundle = world.compiler_mut().pool_mut(POOL).unwrap();
    Publisher::new(POOL).publish(&sink, bundle).await.unwrap();
    let id = rulecast_bundle::ChunkId::of(b"a chunk");
    sink.write_chunk(POOL, ChunkKind::Checkpoint, id, b"a chunk").await.unwrap();
    let mut garbage = Garbage::new(keep);
    let mut look = async || garbage.collect(&sink, Named::default()).await.unwrap().deleted;
    assert_eq!(look().await, 0);
    // A head may have led to it meanwhile.
    sleep(keep * 2).await;
    assert_eq!(look().await, 0);
    let mut minutes = 0;
    while look().await == 0 {
        sleep(Duration::from_mins(1)).await;
        minutes += 1;
    }
    assert!((10..=15).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_somebody_else_wrote_does_not_stay() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    rig.send(some().into_iter().chain([Event::Synced])).await;
    sleep(Duration::from_secs(2)).await;
    let (mut head, version) = rig.sink.read_head(POOL).await.unwrap().unwrap();
    let digest = std::mem::replace(&mut head.digest, "another".to_owned());
    rig.sink.write_head(POOL, &head, Some(&version)).await.unwrap();
    sleep(Duration::from_mins(2)).await;
    let (repaired, _) = rig.sink.read_head(POOL).await.unwrap().unwrap();
    assert_eq!((repaired.sequence, repaired.digest == digest), (2, false));
    Follower::new().follow(&*rig.sink).await;
    // A chunk that a person deleted is not missed before somebody joins.
    rig.sink.tamper(POOL, repaired.checkpoint.parse().unwrap(), None);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.sequences(), 4, "with the one that somebody else wrote");
    Follower::new().follow(&*rig.sink).await;
    rig.stop().await;
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
