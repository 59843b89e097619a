//! Which shape is live: approval, hold, rollback, promotion, the guard against sudden loss.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Follower, POOL, endpoints, no_service, pool, pool_named, report, service, service_at};
use crate::rig::{Rig, some};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rulecast_api::{RulePoolStatus, RuleRevisionSpec};
use rulecast_bundle::{Digest, Key, Value};
use rulecast_controller::objects::{Content, Kind, Object, ObjectId, PoolConfig};
use rulecast_controller::release::{Approved, Asked, Exact, NodeReport, Promotion};
use rulecast_controller::run::RunOptions;
use rulecast_controller::sink::{Fault, MemorySink, Sink};
use rulecast_controller::source::Event;
use tokio::time::sleep;

fn asked(asked: Asked) -> Event {
    pool(PoolConfig { asked, ..PoolConfig::default() })
}

fn manual(approved: Option<Approved>) -> Event {
    asked(Asked { manual: true, approved, ..Asked::default() })
}

fn pinned(number: u64) -> Event {
    asked(Asked { pinned: Some(number), ..Asked::default() })
}

async fn settle() {
    sleep(Duration::from_secs(5)).await;
}

impl Rig {
    /// Twenty Services, published.
    async fn with_services(options: RunOptions) -> Self {
        let rig = Self::start(Arc::default(), options);
        rig.send(some().into_iter().chain([asked(Asked::default()), Event::Synced])).await;
        settle().await;
        rig
    }

    async fn tell(&self, events: impl IntoIterator<Item = Event>) {
        self.send(events).await;
        settle().await;
    }

    async fn revisions(&self) -> Vec<RuleRevisionSpec> {
        let mut revisions: Vec<_> =
            self.sink.list_revisions(POOL).await.unwrap().into_iter().map(|stored| stored.spec).collect();
        revisions.sort_by_key(|spec| spec.number);
        revisions
    }

    async fn numbers(&self) -> Vec<u64> {
        self.revisions().await.iter().map(|spec| spec.number).collect()
    }

    /// The port of Service 3 and the hosts of its endpoints, as nodes have them.
    async fn in_force(&self) -> (Vec<u16>, Vec<u8>) {
        let mut follower = Follower::new();
        follower.follow(&*self.sink).await;
        let addr = [10, 96, 0, 3];
        let (mut ports, mut hosts) = (Vec::new(), Vec::new());
        for (key, _) in follower.bundle().iter() {
            match key {
                Key::Group(id) if id.addr == std::net::IpAddr::from(addr) => ports.push(id.port),
                Key::Member { group, addr: std::net::IpAddr::V4(member), .. }
                    if group.addr == std::net::IpAddr::from(addr) =>
                {
                    hosts.push(member.octets()[3]);
                }
                _ => {}
            }
        }
        (ports, hosts)
    }

    fn condition(&self, kind: &str) -> Option<(String, String)> {
        let status = self.status();
        let found = status.conditions.iter().find(|c| c.type_ == kind)?;
        Some((found.reason.clone(), found.message.clone()))
    }

    fn pending(&self) -> Option<(Option<u64>, String)> {
        self.status().pending.map(|pending| (pending.revision, pending.reason))
    }

    fn releases(&self) -> Vec<(Option<u64>, String)> {
        self.status().releases.into_iter().map(|r| (r.revision, r.reason)).collect()
    }
}

fn digest(status: &RulePoolStatus) -> Digest {
    status.pending.as_ref().expect("something waits").digest.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_change_of_shape_is_a_revision_and_no_change_of_endpoints() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.tell([endpoints(3, [7])]).await;
    assert_eq!(rig.numbers().await, [1]);
    rig.tell([service_at(3, 8080)]).await;
    rig.tell([endpoints(3, [8]), service(20)]).await;
    rig.tell([no_service(20)]).await;
    let revisions = rig.revisions().await;
    assert_eq!(rig.numbers().await, [1, 2, 3, 4]);
    assert_eq!(revisions.iter().map(|r| r.parent).collect::<Vec<_>>(), [None, Some(1), Some(2), Some(3)]);
    assert_eq!(revisions.iter().map(|r| r.services).collect::<Vec<_>>(), [20, 20, 21, 20]);
    assert_eq!(revisions[1].cause, ["Service test/s3"]);
    assert!(revisions[1].summary[0].starts_with("test/s3: "), "{:?}", revisions[1].summary);
    assert!(revisions[2].summary[0].contains("added"), "{:?}", revisions[2].summary);
    assert_eq!(revisions[3].digest, revisions[1].digest, "the same shape again");
    // Most of what a revision consists of is its parent's.
    assert_eq!(revisions[3].chunks[..revisions[2].chunks.len()], revisions[2].chunks);
    let reasons = rig.releases();
    assert_eq!(reasons.iter().map(|(number, _)| number.unwrap()).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!((rig.status().revision, rig.pending()), (Some(4), None));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_shape_waits_for_approval_and_endpoints_do_not() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.tell([manual(None)]).await;
    assert_eq!(rig.pending(), None, "what is live stays live");
    rig.tell([service_at(3, 8080), endpoints(3, [7])]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    assert_eq!(rig.pending(), Some((Some(2), "Approval".to_owned())));
    assert_eq!(rig.condition("PendingApproval").unwrap().0, "WaitsForApproval");
    assert_eq!(rig.ready().0, "True", "what is approved is served");

    // A digest and a number that do not belong together approve nothing.
    let second = digest(&rig.status());
    let first: Digest = rig.revisions().await[0].digest.parse().unwrap();
    rig.tell([manual(Some(Approved { revision: Some(2), digest: first }))]).await;
    assert_eq!(rig.condition("Accepted").unwrap().0, "DigestMismatch");
    rig.tell([manual(Some(Approved { revision: Some(9), digest: Digest::default() }))]).await;
    assert_eq!(rig.condition("Accepted").unwrap().0, "RevisionNotFound");
    assert_eq!(rig.in_force().await.0, [80]);

    // By now there is a third one. Approved is the second, and it goes live as it was looked at.
    rig.tell([service_at(3, 9090)]).await;
    rig.tell([manual(Some(Approved { revision: Some(2), digest: second }))]).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![7]));
    assert_eq!(rig.pending(), Some((Some(3), "Approval".to_owned())));
    assert_eq!(rig.releases()[0], (Some(2), "Approved".to_owned()));
    // By the digest alone, as CI computes it.
    let third = digest(&rig.status());
    rig.tell([manual(Some(Approved { revision: None, digest: third }))]).await;
    assert_eq!(rig.in_force().await.0, [9090]);
    // An old approval leads nowhere.
    rig.tell([manual(Some(Approved { revision: Some(2), digest: second }))]).await;
    assert_eq!(rig.in_force().await.0, [9090]);
    assert_eq!(rig.numbers().await, [1, 2, 3]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shape_approved_before_it_exists_goes_live_when_it_does() {
    // CI computes the digest from manifests; nothing was ever published.
    let mut world = crate::common::world(5);
    let wanted = world.compiler_mut().pool_mut(POOL).unwrap().wanted().digest();
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    let events = (0..4).flat_map(|n| [service(n), endpoints(n, [1, 2])]);
    rig.tell(events.chain([manual(Some(Approved { revision: None, digest: wanted })), Event::Synced])).await;
    assert_eq!(rig.sequences(), 0, "four Services are another shape");
    assert_eq!(rig.ready(), ("False".to_owned(), "NothingReleased".to_owned()));
    rig.tell([service(4), endpoints(4, [1, 2])]).await;
    assert_eq!(rig.sequences(), 1);
    assert_eq!(rig.ready().0, "True");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_deposed_leader_publishes_late_is_what_is_held() {
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    let hold = asked(Asked { hold: true, ..Asked::default() });
    rig.tell(some().into_iter().chain([hold, Event::Synced])).await;
    assert_eq!(rig.sequences(), 0, "nothing was ever live");
    let mut other = crate::common::world(20);
    let bundle = other.compiler_mut().pool_mut(POOL).unwrap();
    rulecast_controller::publisher::Publisher::new(POOL).publish(&*rig.sink, bundle).await.unwrap();
    sleep(Duration::from_mins(1)).await;
    rig.tell([service_at(3, 8080), endpoints(3, [9])]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![9]));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_damaged_on_its_way_is_read_again_while_it_is_held() {
    let mut first = Rig::with_services(RunOptions::default()).await;
    let sink = Arc::clone(&first.sink);
    first.stop().await;
    sink.delete_revision(POOL, 1).await.unwrap();
    let (head, _) = sink.read_head(POOL).await.unwrap().unwrap();
    let index: rulecast_bundle::ChunkId = head.checkpoint.parse().unwrap();
    let bytes = sink.read_chunk(POOL, index).await.unwrap();
    sink.tamper(POOL, index, Some(b"altered".to_vec()));
    let mut rig = Rig::start(sink, RunOptions::default());
    let hold = asked(Asked { hold: true, ..Asked::default() });
    rig.tell(some().into_iter().chain([hold, endpoints(3, [9]), Event::Synced])).await;
    assert_eq!(rig.sequences(), 1, "what is live is not known");
    rig.sink.tamper(POOL, index, Some(bytes));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![9]));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_stops_shapes_at_once_and_outlives_the_controller_and_its_revisions() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    let hold = || asked(Asked { hold: true, hold_reason: "looking into it".into(), ..Asked::default() });
    rig.send([hold(), service_at(3, 8080), endpoints(3, [7])]).await;
    settle().await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    let (_, message) = rig.condition("Held").unwrap();
    assert!(message.contains("looking into it") && message.contains("resume default"), "{message}");
    assert!(
        rig.metrics.text().contains("held{pool=\"default\",reason=\"Held\"} 1"),
        "{}",
        rig.metrics.text()
    );
    let sink = Arc::clone(&rig.sink);
    rig.stop().await;
    for number in [1, 2] {
        sink.delete_revision(POOL, number).await.unwrap();
    }
    let mut rig = Rig::start(sink, RunOptions::default());
    let events = some().into_iter().filter(|event| !matches!(event, Event::Set(o) if o.id.name == "test/s3"));
    rig.tell(events.chain([hold(), service_at(3, 8080), endpoints(3, [8]), Event::Synced])).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![8]));
    rig.tell([asked(Asked::default())]).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![8]));
    assert_eq!(rig.condition("Held"), None);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_the_old_shape_with_todays_endpoints_and_stays() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.tell([service_at(3, 8080), endpoints(3, [7])]).await;
    let before = rig.sequences();
    rig.tell([pinned(1)]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    assert_eq!(rig.sequences(), before + 1, "one publication, with a higher sequence");
    assert_eq!(rig.condition("HeldByRollback").unwrap().0, "Rollback");
    assert_eq!((rig.status().revision, rig.pending()), (Some(1), Some((Some(2), "Rollback".to_owned()))));
    // Nothing takes its place, not even an approval.
    let newest: Digest = rig.revisions().await[1].digest.parse().unwrap();
    let approved = Some(Approved { revision: Some(2), digest: newest });
    rig.tell([asked(Asked { pinned: Some(1), approved, ..Asked::default() }), service_at(3, 9090)]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    assert_eq!(rig.pending(), Some((Some(3), "Rollback".to_owned())));
    // One that does not exist changes nothing.
    rig.tell([pinned(77)]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    let (reason, message) = rig.condition("Accepted").unwrap();
    assert!(reason == "RevisionNotFound" && message.contains("there are 3, 2, 1"), "{reason}: {message}");
    rig.tell([asked(Asked::default())]).await;
    assert_eq!(rig.in_force().await, (vec![9090], vec![7]));
    assert_eq!((rig.status().revision, rig.condition("HeldByRollback")), (Some(3), None));
    assert_eq!(rig.numbers().await, [1, 2, 3]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_exact_replay_brings_the_old_endpoints_too_and_ends_by_itself() {
    let mut rig = Rig::with_services(RunOptions { clock: virtual_clock, ..RunOptions::default() }).await;
    rig.tell([endpoints(3, [5, 6])]).await;
    rig.tell([service_at(3, 8080)]).await;
    rig.tell([endpoints(3, [7])]).await;
    let until = virtual_clock() + SignedDuration::from_mins(10);
    let exact = Some(Exact { revision: 1, until });
    rig.tell([asked(Asked { pinned: Some(1), exact, ..Asked::default() })]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![5, 6]), "the last bundle of revision 1");
    assert!(rig.condition("ExactReplay").unwrap().1.contains("may be dead"));
    rig.tell([endpoints(3, [8]), service(20)]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![5, 6]));
    sleep(Duration::from_mins(11)).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![8]), "the shape stays, endpoints are today's");
    assert_eq!(rig.condition("ExactReplay"), None);
    rig.tell([asked(Asked::default())]).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![8]));
    let mut fresh = crate::common::world(20);
    crate::common::apply(&mut fresh, [service_at(3, 8080), endpoints(3, [8]), service(20)]);
    let mut follower = Follower::new();
    follower.follow(&*rig.sink).await;
    assert_eq!(follower.root(), crate::common::compiled(&fresh));
    // What cannot be replayed is said, and what is pinned holds.
    let exact = Some(Exact { revision: 9, until: virtual_clock() + SignedDuration::from_mins(10) });
    rig.tell([asked(Asked { pinned: Some(1), exact, ..Asked::default() })]).await;
    assert_eq!(rig.condition("Accepted").unwrap().0, "RevisionNotFound");
    assert_eq!(rig.in_force().await.0, [80]);
    rig.stop().await;
}

/// The wall clock of these tests: it moves with tokio's.
fn virtual_clock() -> Timestamp {
    thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
    let passed = START.with(tokio::time::Instant::elapsed);
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::try_from(passed).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_kept_and_the_rest_of_the_history_is_ten() {
    let mut rig =
        Rig::with_services(RunOptions { keep_chunks: Duration::from_mins(1), ..RunOptions::default() }).await;
    rig.send([report("n1", POOL, 1, None)]).await;
    for port in 1..=20 {
        rig.tell([service_at(3, 8000 + port)]).await;
    }
    // Revision 1 runs on a node.
    assert_eq!(rig.numbers().await, [1].into_iter().chain(12..=21).collect::<Vec<_>>());
    rig.tell([pinned(15), report("n1", POOL, 30, None)]).await;
    for port in 1..=12 {
        rig.tell([service_at(3, 9000 + port)]).await;
    }
    let numbers = rig.numbers().await;
    assert_eq!(numbers, [15].into_iter().chain(24..=33).collect::<Vec<_>>(), "the pinned one, and ten");
    // Long after, every one that is left can still be read.
    sleep(Duration::from_mins(10)).await;
    for number in [24, 33, 15] {
        rig.tell([pinned(number)]).await;
        assert_eq!(rig.status().revision, Some(number));
        assert_eq!(rig.condition("Accepted").unwrap().0, "Accepted");
    }
    assert_eq!(rig.in_force().await.0, [8014]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_take_revisions_holds_nothing_up() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.sink.inject([Fault::WriteRevision; 3]);
    rig.tell([service_at(3, 8080), endpoints(3, [7])]).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![7]));
    rig.tell([service_at(3, 9090)]).await;
    assert_eq!(rig.in_force().await.0, [9090]);
    sleep(Duration::from_mins(2)).await;
    assert_eq!((rig.numbers().await, rig.sink.faults_left()), (vec![1, 2, 3], 0));
    assert_eq!(rig.status().revision, Some(3));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_revision_is_not_gone_back_to() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.tell([service_at(3, 8080)]).await;
    let chunk = rig.revisions().await[0].chunks[1].parse().unwrap();
    let bytes = rig.sink.read_chunk(POOL, chunk).await.unwrap();
    rig.sink.tamper(POOL, chunk, Some(b"altered".to_vec()));
    rig.tell([pinned(1)]).await;
    assert_eq!(rig.in_force().await.0, [8080]);
    assert_eq!(rig.condition("Accepted").unwrap().0, "RevisionUnreadable");
    // It was damaged on its way.
    rig.sink.tamper(POOL, chunk, Some(bytes));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.in_force().await.0, [80]);
    assert_eq!(rig.condition("Accepted").unwrap().0, "Accepted");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shrunken_cluster_waits_for_a_word_and_its_endpoints_do_not() {
    let mut rig = Rig::with_services(RunOptions::default()).await;
    rig.send((0..19).filter(|n| *n != 3).map(no_service)).await;
    rig.tell([endpoints(3, [9])]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![9]));
    assert_eq!(rig.ready(), ("False".to_owned(), "ShrinkRefused".to_owned()));
    assert!(rig.metrics.text().contains("shrink_refused{pool=\"default\"} 1"));
    assert_eq!(rig.pending(), Some((Some(2), "Shrink".to_owned())));
    // Another controller refuses it as well.
    let sink = Arc::clone(&rig.sink);
    let digest = digest(&rig.status());
    rig.stop().await;
    let mut rig = Rig::start(sink, RunOptions::default());
    let left = [service(3), endpoints(3, [9]), service(19), endpoints(19, [1, 2])];
    rig.tell(left.into_iter().chain([asked(Asked::default()), Event::Synced])).await;
    assert_eq!(rig.ready().1, "ShrinkRefused");
    let approved = Some(Approved { revision: None, digest });
    rig.tell([asked(Asked { approved, ..Asked::default() })]).await;
    assert_eq!(rig.ready(), ("True".to_owned(), "Published".to_owned()));
    assert!(rig.metrics.text().contains("shrink_refused{pool=\"default\"} 0"));
    assert_eq!(rig.stop().await.pools[POOL].services(), 2);
}

fn node(name: &str, pool: &str) -> Event {
    let labels = [("pool".to_owned(), pool.to_owned())].into();
    let node = rulecast_compiler::model::Node { labels, ..Default::default() };
    Event::Set(Object {
        id: ObjectId::new(Kind::Node, name),
        content: Content::Node(node),
        warnings: Vec::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_shape_proves_itself_on_the_canaries_first() {
    let selects = |pool: &str| rulecast_compiler::model::Pool {
        node_selector: [("pool".to_owned(), pool.to_owned())].into(),
        ..Default::default()
    };
    let promotion = Some(Promotion { from: "canary".into(), soak: Duration::from_mins(5) });
    let main = PoolConfig {
        pool: selects("main"),
        asked: Asked { promotion, ..Asked::default() },
        ..PoolConfig::default()
    };
    let canary = PoolConfig { pool: selects("canary"), ..PoolConfig::default() };
    let mut rig = Rig::start(Arc::default(), RunOptions::default());
    let nodes = [node("c1", "canary"), node("c2", "canary"), node("m1", "main")];
    rig.tell(some().into_iter().chain(nodes).chain([
        pool(main),
        pool_named("canary", canary),
        Event::Synced,
    ]))
    .await;
    assert_eq!(rig.sequences(), 1, "a pool that has nothing yet has nothing to lose");
    let minutes = |n| sleep(Duration::from_mins(n));
    rig.tell([service_at(3, 8080), endpoints(3, [7])]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]), "endpoints are everybody's at once");
    let pending = rig.status().pending.unwrap();
    assert!(pending.reason == "Soak" && pending.message.contains("2 of 2 nodes"), "{pending:?}");
    let head = |rig: &Rig| rig.sink.history("canary").last().unwrap().sequence;
    let now = head(&rig);
    rig.tell([report("c1", "canary", now, None), report("c2", "canary", now, Some("KernelRefused"))]).await;
    minutes(20).await;
    assert_eq!(rig.in_force().await.0, [80], "a canary failed");
    assert!(rig.condition("Promoting").unwrap().1.contains("c2 says KernelRefused"));
    rig.tell([report("c2", "canary", now, None)]).await;
    minutes(4).await;
    assert_eq!(rig.in_force().await.0, [80]);
    minutes(2).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![7]));
    let newest = rig.revisions().await.pop().unwrap();
    assert_eq!(newest.origin.unwrap().pool, "canary");
    assert_eq!(rig.releases()[0].1, "Promoted");
    // Nothing is promoted over a rollback.
    let promotion = Some(Promotion { from: "canary".into(), soak: Duration::from_secs(1) });
    let back = PoolConfig {
        pool: selects("main"),
        asked: Asked { promotion, pinned: Some(1), ..Asked::default() },
        ..PoolConfig::default()
    };
    rig.tell([pool(back)]).await;
    minutes(10).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_again_after_a_restart() {
    let sink: Arc<MemorySink> = Arc::default();
    let mut rig = Rig::start(Arc::clone(&sink), RunOptions::default());
    rig.tell(some().into_iter().chain([asked(Asked::default()), Event::Synced])).await;
    rig.tell([service_at(3, 8080)]).await;
    let releases = rig.status().releases;
    rig.stop().await;
    let mut rig = Rig::start(sink, RunOptions::default());
    let events = some().into_iter().filter(|event| !matches!(event, Event::Set(o) if o.id.name == "test/s3"));
    let config = PoolConfig { releases: releases.clone(), ..PoolConfig::default() };
    let manual = PoolConfig { asked: Asked { manual: true, ..Asked::default() }, ..config };
    rig.tell(events.chain([pool(manual), service_at(3, 9090), endpoints(3, [1]), Event::Synced])).await;
    assert_eq!(rig.in_force().await.0, [8080]);
    assert_eq!((rig.status().revision, rig.pending()), (Some(2), Some((Some(3), "Approval".to_owned()))));
    assert_eq!(rig.status().releases, releases);
    rig.stop().await;
}

fn in_waves(asked: Asked) -> Event {
    self::asked(Asked { waves: Some(Duration::from_mins(1)), ..asked })
}

fn in_wave(name: &str, sequence: u64, error: Option<&str>) -> Event {
    let error = error.map(ToOwned::to_owned);
    let report = NodeReport { pool: POOL.into(), position: (0, sequence), next: true, error, held: false };
    Event::Set(Object {
        id: ObjectId::new(Kind::RuleNode, name),
        content: Content::Report(report),
        warnings: Vec::new(),
    })
}

impl Rig {
    /// Thirty nodes that run what is published.
    async fn with_nodes() -> Self {
        let rig = Self::start(Arc::default(), RunOptions::default());
        let nodes =
            (0..30).flat_map(|n| [node(&format!("n{n}"), POOL), report(&format!("n{n}"), POOL, 1, None)]);
        rig.tell(some().into_iter().chain(nodes).chain([in_waves(Asked::default()), Event::Synced])).await;
        rig
    }

    fn sequence_of(&self, pool: &str) -> u64 {
        self.sink.history(pool).last().map_or(0, |head| head.sequence)
    }

    /// The nodes that a bundle sends to the next one.
    async fn sent(&self, pool: &str) -> Vec<String> {
        let mut follower = Follower::of(pool);
        follower.follow(&*self.sink).await;
        let facts = follower.bundle().iter().filter_map(|record| match record {
            (Key::Node(_), Value::Node(fact)) if fact.next => Some(fact.name),
            _ => None,
        });
        facts.collect()
    }

    async fn has_head(&self, pool: &str) -> bool {
        self.sink.read_head(pool).await.unwrap().is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_shape_goes_over_the_nodes_in_waves() {
    let mut rig = Rig::with_nodes().await;
    let next = rulecast_bundle::next_of(POOL);
    rig.tell([service_at(3, 8080), endpoints(3, [7])]).await;
    assert_eq!(rig.in_force().await, (vec![80], vec![7]), "endpoints go everywhere at once");
    let first = rig.sent(POOL).await;
    assert_eq!(first.len(), 1);
    assert_eq!(rig.sent(&next).await, first);
    assert!(rig.sequence_of(&next) > rig.sequence_of(POOL), "the node sees a higher sequence");
    assert_eq!(rig.pending().unwrap().1, "Wave");
    // It waits for the node's word, and stops when that is bad.
    sleep(Duration::from_mins(10)).await;
    assert_eq!(rig.sent(POOL).await, first);
    let at = rig.sequence_of(&next);
    rig.tell([in_wave(&first[0], at, Some("KernelRefused"))]).await;
    sleep(Duration::from_mins(10)).await;
    assert!(rig.condition("Promoting").unwrap().1.contains("KernelRefused"));
    assert_eq!(rig.sent(POOL).await, first);
    rig.tell([in_wave(&first[0], at, None)]).await;
    sleep(Duration::from_secs(62)).await;
    let tenth = rig.sent(POOL).await;
    assert!(tenth.len() == 3 && tenth.contains(&first[0]), "{tenth:?}");
    let reports: Vec<_> = tenth.iter().map(|name| in_wave(name, at, None)).collect();
    rig.tell(reports).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.in_force().await, (vec![8080], vec![7]));
    assert!(rig.sent(POOL).await.is_empty());
    assert!(!rig.has_head(&next).await && rig.sequence_of(POOL) > at, "they are called back");
    assert_eq!((rig.status().revision, rig.pending()), (Some(2), None));
    assert_eq!(rig.numbers().await, [1, 2]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_stops_a_wave_and_a_rollback_ends_it_for_everybody_at_once() {
    let mut rig = Rig::with_nodes().await;
    let next = rulecast_bundle::next_of(POOL);
    rig.tell([service_at(3, 8080)]).await;
    let first = rig.sent(POOL).await;
    rig.tell([in_waves(Asked { hold: true, ..Asked::default() })]).await;
    rig.tell([in_wave(&first[0], rig.sequence_of(&next), None)]).await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(rig.sent(POOL).await, first, "it stays where it is");
    rig.tell([in_waves(Asked::default())]).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.sent(POOL).await.len(), 3);
    rig.tell([in_waves(Asked { pinned: Some(1), ..Asked::default() })]).await;
    assert!(rig.sent(POOL).await.is_empty() && !rig.has_head(&next).await);
    // And one that changes what is live skips them.
    rig.tell([asked(Asked::default())]).await;
    assert_eq!(rig.in_force().await.0, [8080]);
    let before = rig.sequence_of(&next);
    rig.tell([in_waves(Asked { pinned: Some(1), ..Asked::default() })]).await;
    assert_eq!(rig.in_force().await.0, [80]);
    assert_eq!(rig.sequence_of(&next), before);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_controller_goes_on_with_a_wave() {
    let mut rig = Rig::with_nodes().await;
    let next = rulecast_bundle::next_of(POOL);
    rig.tell([service_at(3, 8080)]).await;
    let at = rig.sequence_of(&next);
    let first = rig.sent(POOL).await;
    rig.tell([in_wave(&first[0], at, None)]).await;
    sleep(Duration::from_secs(70)).await;
    let tenth = rig.sent(POOL).await;
    assert_eq!(tenth.len(), 3);
    let at = rig.sequence_of(&next);
    let sink = Arc::clone(&rig.sink);
    rig.stop().await;
    let mut rig = Rig::start(sink, RunOptions::default());
    let reports: Vec<_> = tenth.iter().map(|name| in_wave(name, at, None)).collect();
    let nodes = (0..30).flat_map(|n| [node(&format!("n{n}"), POOL), report(&format!("n{n}"), POOL, 1, None)]);
    let services =
        some().into_iter().filter(|event| !matches!(event, Event::Set(o) if o.id.name == "test/s3"));
    let services = services.chain([service_at(3, 8080), endpoints(3, [1, 2])]);
    rig.tell(services.chain(nodes).chain(reports).chain([in_waves(Asked::default()), Event::Synced])).await;
    assert_eq!(rig.sent(POOL).await, tenth, "nobody is called back");
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.in_force().await.0, [8080]);
    assert!(!rig.has_head(&next).await);
    rig.stop().await;
}
