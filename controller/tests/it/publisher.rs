//! Publications of one pool, step by step, against a sink in memory.

use crate::common::{Follower, POOL, apply, compiled, endpoints, no_service, pool, service, world};
use rulecast_bundle::Delta;
use rulecast_controller::objects::PoolConfig;
use rulecast_controller::publisher::{Limits, Next, Outcome, PublishError, Publisher};
use rulecast_controller::sink::{Fault, MemorySink, Sink};
use rulecast_controller::world::World;

async fn publish(
    publisher: &mut Publisher,
    sink: &MemorySink,
    world: &mut World,
) -> Result<Outcome, PublishError> {
    publisher.publish(sink, world.compiler_mut().pool_mut(POOL).expect("the pool")).await
}

async fn head(sink: &MemorySink) -> rulecast_bundle::Head {
    sink.read_head(POOL).await.unwrap().expect("a head").0
}

/// Checks that a new node, and one that followed all along, are where the compiler is.
async fn check(sink: &MemorySink, world: &World, follower: &mut Follower) {
    follower.follow(sink).await;
    assert_eq!(follower.root(), compiled(world));
    let mut fresh = Follower::new();
    fresh.follow(sink).await;
    assert_eq!(fresh.root(), compiled(world));
}

#[tokio::test]
async fn the_first_publication_is_a_checkpoint_and_the_next_ones_deltas() {
    let (sink, mut world, mut publisher) = (MemorySink::default(), world(3), Publisher::new(POOL));
    let first = publish(&mut publisher, &sink, &mut world).await.unwrap();
    assert!(matches!(
        first,
        Outcome::Published { sequence: 1, changes: None, checkpoint_bytes: Some(_), .. }
    ));
    assert!(head(&sink).await.delta.is_empty());
    assert_eq!(publish(&mut publisher, &sink, &mut world).await.unwrap(), Outcome::Unchanged);

    let mut follower = Follower::new();
    check(&sink, &world, &mut follower).await;
    apply(&mut world, [endpoints(1, [1, 2, 3])]);
    let second = publish(&mut publisher, &sink, &mut world).await.unwrap();
    assert!(matches!(
        second,
        Outcome::Published { sequence: 2, changes: Some(_), checkpoint_bytes: None, .. }
    ));
    // What is inline needs no reading.
    assert_eq!(follower.follow(&sink).await, 0);
    check(&sink, &world, &mut follower).await;
    let delta = |head: &rulecast_bundle::Head| Delta::decode(&head.delta_bytes().unwrap().unwrap()).unwrap();
    let one = head(&sink).await;
    assert_eq!(
        (delta(&one).from, delta(&one).previous),
        (1, None),
        "right after a checkpoint nothing is before"
    );
    apply(&mut world, [endpoints(1, [1])]);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    let two = head(&sink).await;
    assert_eq!(
        delta(&two).previous,
        Some(rulecast_bundle::ChunkId::of(&one.delta_bytes().unwrap().unwrap()))
    );
    check(&sink, &world, &mut follower).await;
}

#[tokio::test]
async fn changes_that_cancel_out_are_not_published() {
    let (sink, mut world, mut publisher) = (MemorySink::default(), world(2), Publisher::new(POOL));
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    apply(&mut world, [endpoints(1, [1, 2, 3])]);
    apply(&mut world, [endpoints(1, [1, 2])]);
    assert_eq!(publish(&mut publisher, &sink, &mut world).await.unwrap(), Outcome::Unchanged);
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let (sink, mut first) = (MemorySink::default(), world(5));
    let mut publisher = Publisher::new(POOL);
    for host in 3..9 {
        publish(&mut publisher, &sink, &mut first).await.unwrap();
        apply(&mut first, [endpoints(1, [host])]);
    }
    publish(&mut publisher, &sink, &mut first).await.unwrap();
    let before = publisher.published().unwrap().clone();
    let mut follower = Follower::new();
    check(&sink, &first, &mut follower).await;

    // The same input, in a new process: nothing to publish, and everything known that was known before.
    let mut second = world(5);
    apply(&mut second, [endpoints(1, [8])]);
    let mut publisher = Publisher::new(POOL);
    assert_eq!(publish(&mut publisher, &sink, &mut second).await.unwrap(), Outcome::Unchanged);
    assert_eq!(head(&sink).await, before.head);
    let names = |p: &rulecast_controller::publisher::Published| p.names().collect::<Vec<_>>();
    let after = publisher.published().unwrap();
    assert_eq!(
        (names(after), after.services(), after.checkpoint_bytes()),
        (names(&before), 5, before.checkpoint_bytes())
    );

    // Another input: only the difference goes out, as a delta.
    let mut third = world(5);
    apply(&mut third, [endpoints(1, [8]), endpoints(2, [7]), no_service(4)]);
    let outcome = publish(&mut Publisher::new(POOL), &sink, &mut third).await.unwrap();
    let Outcome::Published { sequence, changes: Some(changes), checkpoint_bytes: None, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(sequence == before.head.sequence + 1 && changes < 10, "{outcome:?}");
    assert_eq!(follower.follow(&sink).await, 0);
    check(&sink, &third, &mut follower).await;
}

#[tokio::test]
async fn failures_lose_nothing_and_sequences_never_go_back() {
    let (sink, mut world, mut publisher) = (MemorySink::default(), world(4), Publisher::new(POOL));
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    let mut follower = Follower::new();
    let faults = [
        vec![Fault::WriteChunk],
        vec![Fault::WriteHead],
        vec![Fault::LoseAnswer],
        vec![Fault::WriteHead, Fault::Read],
    ];
    for (round, faults) in (0u8..).zip(faults.into_iter().cycle().take(24)) {
        sink.inject(faults);
        let n = u16::from(round % 4);
        apply(&mut world, [endpoints(n, [round + 1, round + 2])]);
        let mut tries = 0;
        while publish(&mut publisher, &sink, &mut world).await.is_err() {
            tries += 1;
            assert!(tries < 5, "round {round}");
            // More happens while it fails, also the opposite.
            apply(&mut world, [endpoints(n, [round + 1]), service(100 + u16::from(round)), no_service(99)]);
        }
        while sink.faults_left() > 0 {
            // A delta's own chunk may fail without the publication failing.
            apply(&mut world, [endpoints(n, [200 + round])]);
            let _ = publish(&mut publisher, &sink, &mut world).await;
        }
        while publisher.next(world.compiler_mut().pool_mut(POOL).unwrap()) != Next::Rest {
            publish(&mut publisher, &sink, &mut world).await.unwrap();
        }
        check(&sink, &world, &mut follower).await;
    }
    let sequences: Vec<u64> = sink.history(POOL).iter().map(|head| head.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a + 1 == *b), "{sequences:?}");
}

#[tokio::test]
async fn after_a_conflict_what_is_there_is_read() {
    let sink = MemorySink::default();
    let (mut ours, mut theirs) = (world(4), world(4));
    let (mut we, mut they) = (Publisher::new(POOL), Publisher::new(POOL));
    publish(&mut we, &sink, &mut ours).await.unwrap();
    publish(&mut they, &sink, &mut theirs).await.unwrap();
    apply(&mut theirs, [endpoints(0, [9])]);
    publish(&mut they, &sink, &mut theirs).await.unwrap();
    apply(&mut ours, [endpoints(1, [9])]);
    let error = publish(&mut we, &sink, &mut ours).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let outcome = publish(&mut we, &sink, &mut ours).await.unwrap();
    assert!(matches!(outcome, Outcome::Published { sequence: 3, changes: Some(_), .. }), "{outcome:?}");
    check(&sink, &ours, &mut Follower::new()).await;
}

#[tokio::test]
async fn checkpoints_rotate_and_nodes_follow_from_any_sequence() {
    let limits = Limits { deltas: 5, ..Limits::default() };
    let (sink, mut world) = (MemorySink::default(), world(6));
    let mut publisher = Publisher::new(POOL).limits(limits);
    let mut followers: Vec<Follower> = Vec::new();
    let mut checkpoints = 0;
    for round in 1..40u8 {
        apply(&mut world, [endpoints(u16::from(round % 6), [round])]);
        let outcome = publish(&mut publisher, &sink, &mut world).await.unwrap();
        if let Outcome::Published { checkpoint_bytes: Some(_), sequence, .. } = outcome {
            checkpoints += 1;
            let head = head(&sink).await;
            assert_eq!(head.delta.is_empty(), sequence == 1, "a later checkpoint carries its delta too");
        }
        // The one that follows all along reads nothing but heads.
        if let Some(first) = followers.first_mut() {
            assert_eq!(first.follow(&sink).await, 0, "round {round}");
        }
        let mut fresh = Follower::new();
        fresh.follow(&sink).await;
        followers.push(fresh);
        // Those at every other older sequence converge, whichever way is the shorter one.
        if round % 7 == 0 {
            for follower in followers.iter_mut().skip(1).step_by(2) {
                follower.follow(&sink).await;
            }
        }
        assert!(
            followers
                .iter()
                .filter(|f| f.sequence() == outcome_sequence(outcome))
                .all(|f| f.root() == compiled(&world))
        );
    }
    assert_eq!(checkpoints, 8, "the first, then one after every five deltas");
    for follower in &mut followers {
        follower.follow(&sink).await;
        assert_eq!(follower.root(), compiled(&world));
    }
}

fn outcome_sequence(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Published { sequence, .. } => sequence,
        Outcome::Unchanged => panic!("something was published"),
    }
}

#[tokio::test]
async fn deltas_that_are_too_large_for_the_head_become_checkpoints() {
    let limits = Limits { inline: 100, ..Limits::default() };
    let (sink, mut world) = (MemorySink::default(), world(4));
    let mut publisher = Publisher::new(POOL).limits(limits);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    let mut follower = Follower::new();
    follower.follow(&sink).await;
    apply(&mut world, [endpoints(1, 1..100)]);
    let outcome = publish(&mut publisher, &sink, &mut world).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Published { sequence: 2, checkpoint_bytes: Some(_), .. }),
        "{outcome:?}"
    );
    assert!(head(&sink).await.delta.is_empty());
    check(&sink, &world, &mut follower).await;
    apply(&mut world, [endpoints(2, [1])]);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    check(&sink, &world, &mut follower).await;
}

#[tokio::test]
async fn damage_is_replaced_by_a_checkpoint_with_a_higher_sequence() {
    let (sink, mut world) = (MemorySink::default(), world(4));
    let mut publisher = Publisher::new(POOL);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    apply(&mut world, [endpoints(1, [7])]);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    let mut follower = Follower::new();
    follower.follow(&sink).await;
    for damage in [None, Some(b"nonsense".to_vec())] {
        let before = head(&sink).await;
        sink.tamper(POOL, before.checkpoint.parse().unwrap(), damage);
        let mut publisher = Publisher::new(POOL);
        let outcome = publish(&mut publisher, &sink, &mut world).await.unwrap();
        let wanted = before.sequence + 1;
        assert!(
            matches!(outcome, Outcome::Published { sequence, changes: None, .. } if sequence == wanted),
            "{outcome:?}"
        );
        check(&sink, &world, &mut follower).await;
    }
}

#[tokio::test]
async fn a_pool_that_changes_its_options_is_published() {
    let (sink, mut world) = (MemorySink::default(), world(2));
    let mut publisher = Publisher::new(POOL);
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    let mut config = PoolConfig::default();
    config.pool.options.masquerade_all = true;
    apply(&mut world, [pool(config)]);
    let mut follower = Follower::new();
    publish(&mut publisher, &sink, &mut world).await.unwrap();
    check(&sink, &world, &mut follower).await;
    assert_eq!(head(&sink).await.sequence, 2);
}

#[tokio::test]
async fn a_deleted_head_does_not_take_sequences_back() {
    let dir = tempfile::tempdir().unwrap();
    let sink = rulecast_controller::sink::DirectorySink::new(dir.path()).unwrap();
    let (mut world, mut publisher) = (world(2), Publisher::new(POOL));
    let mut follower = Follower::new();
    for host in 1..6 {
        apply(&mut world, [endpoints(1, [host])]);
        publisher.publish(&sink, world.compiler_mut().pool_mut(POOL).unwrap()).await.unwrap();
        follower.follow(&sink).await;
    }
    std::fs::remove_file(sink.head_path(POOL)).unwrap();
    apply(&mut world, [endpoints(1, [9])]);
    let pool = world.compiler_mut().pool_mut(POOL).unwrap();
    assert!(publisher.publish(&sink, pool).await.unwrap_err().is_conflict());
    publisher.publish(&sink, pool).await.unwrap();
    follower.follow(&sink).await;
    assert!(follower.sequence() > 5);
    assert_eq!(follower.root(), compiled(&world));
}
