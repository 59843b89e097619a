//! What a node far behind has to read, and where checkpoints come in.

use crate::common::{Follower, POOL, apply, compiled, endpoints, world};
use rulecast_controller::publisher::{Limits, Outcome, Publisher};
use rulecast_controller::sink::{MemorySink, Sink};
use rulecast_controller::world::World;

async fn publish(publisher: &mut Publisher, sink: &MemorySink, world: &mut World) -> Outcome {
    publisher.publish(sink, world.compiler_mut().pool_mut(POOL).expect("the pool")).await.unwrap()
}

/// Another version. The hundred last ones are all different.
async fn change(publisher: &mut Publisher, sink: &MemorySink, world: &mut World, round: u8) {
    apply(world, [endpoints(u16::from(round % 7), [round])]);
    assert!(matches!(publish(publisher, sink, world).await, Outcome::Published { .. }), "round {round}");
}

fn index_of(head: &rulecast_bundle::Head) -> &str {
    &head.checkpoint
}

#[tokio::test]
async fn however_far_behind_a_node_reads_a_handful_of_chunks() {
    let (sink, mut world) = (MemorySink::default(), world(7));
    let mut publisher = Publisher::new(POOL);
    publish(&mut publisher, &sink, &mut world).await;
    let mut behind = Vec::new();
    for round in 1..100 {
        change(&mut publisher, &sink, &mut world, round).await;
        let mut follower = Follower::new();
        // The index, the only chunk, one merged delta and some single ones; the last is inline.
        let read = follower.follow(&sink).await;
        assert!(read <= 2 + Limits::default().single, "round {round}: {read}");
        behind.push(follower);
        let names: Vec<_> = publisher.published().unwrap().names().collect();
        for id in Follower::reads(&sink).await {
            assert!(names.contains(&id), "round {round}: {id} would be deleted");
        }
    }
    for mut follower in behind {
        let read = follower.follow(&sink).await;
        assert!(read <= Limits::default().single, "from {}: {read}", follower.sequence());
        assert_eq!(follower.root(), compiled(&world));
    }
    // A new process goes on in the same way.
    let mut publisher = Publisher::new(POOL);
    assert_eq!(publish(&mut publisher, &sink, &mut world).await, Outcome::Unchanged);
    let mut follower = Follower::new();
    for round in 100..130 {
        change(&mut publisher, &sink, &mut world, round).await;
        assert!(follower.follow(&sink).await <= 2 + Limits::default().single);
        assert_eq!(follower.root(), compiled(&world));
        follower = Follower::new();
    }
}

#[tokio::test]
async fn a_checkpoint_is_written_while_versions_go_out() {
    let limits = Limits { deltas: 5, ..Limits::default() };
    let (sink, mut world) = (MemorySink::default(), world(7));
    let mut publisher = Publisher::new(POOL).limits(limits);
    publish(&mut publisher, &sink, &mut world).await;
    let mut along = Follower::new();
    along.follow(&sink).await;
    let (mut round, mut checkpoints) = (0, 0);
    for between in [0, 1, 3, 9] {
        // Until one is due.
        let rotation = loop {
            round += 1;
            apply(&mut world, [endpoints(u16::from(round % 7), [round])]);
            let bundle = world.compiler_mut().pool_mut(POOL).unwrap();
            let plan = publisher.plan(bundle).expect("a change");
            let written = plan.write(&sink).await;
            publisher.settle(written, bundle).unwrap();
            if let Some(rotation) = publisher.rotation(bundle) {
                assert!(publisher.rotation(bundle).is_none(), "one at a time");
                break rotation;
            }
        };
        let before = sink.read_head(POOL).await.unwrap().unwrap().0;
        for _ in 0..between {
            round += 1;
            change(&mut publisher, &sink, &mut world, round).await;
        }
        publisher.rotated(rotation.write(&sink).await).unwrap();
        round += 1;
        change(&mut publisher, &sink, &mut world, round).await;
        let after = sink.read_head(POOL).await.unwrap().unwrap().0;
        checkpoints += usize::from(index_of(&before) != index_of(&after));
        // One that followed all along, one that was there before, and a new one.
        let mut fresh = Follower::new();
        for follower in [&mut along, &mut fresh] {
            follower.follow(&sink).await;
            assert_eq!(follower.root(), compiled(&world), "{between} between");
        }
    }
    assert_eq!(checkpoints, 4, "each was named by the first head after it");
}

#[tokio::test]
async fn a_checkpoint_of_what_somebody_else_replaced_is_not_used() {
    let limits = Limits { deltas: 2, ..Limits::default() };
    let (sink, mut world) = (MemorySink::default(), world(7));
    let mut publisher = Publisher::new(POOL).limits(limits);
    publish(&mut publisher, &sink, &mut world).await;
    for round in 1..3 {
        apply(&mut world, [endpoints(1, [round])]);
        let bundle = world.compiler_mut().pool_mut(POOL).unwrap();
        let plan = publisher.plan(bundle).expect("a change");
        let written = plan.write(&sink).await;
        publisher.settle(written, bundle).unwrap();
    }
    let rotation = publisher.rotation(world.compiler_mut().pool_mut(POOL).unwrap()).expect("it is due");
    publisher.forget();
    publish(&mut publisher, &sink, &mut world).await;
    publisher.rotated(rotation.write(&sink).await).unwrap();
    change(&mut publisher, &sink, &mut world, 9).await;
    let mut fresh = Follower::new();
    fresh.follow(&sink).await;
    assert_eq!(fresh.root(), compiled(&world));
}

#[tokio::test]
async fn a_higher_epoch_makes_nodes_take_lower_sequences_once() {
    let (sink, mut world) = (MemorySink::default(), world(3));
    let mut publisher = Publisher::new(POOL);
    for round in 1..9 {
        apply(&mut world, [endpoints(1, [round])]);
        publish(&mut publisher, &sink, &mut world).await;
    }
    let mut node = Follower::new();
    node.follow(&sink).await;

    // The cluster is restored from a backup of before, and the controller is a new process.
    let restored = MemorySink::default();
    let mut publisher = Publisher::new(POOL);
    publish(&mut publisher, &restored, &mut world).await;
    let (head, _) = restored.read_head(POOL).await.unwrap().unwrap();
    assert!(head.sequence < node.sequence() && node.refuses(&head), "a replay, as far as the node can know");

    publisher.set_epoch(1);
    assert!(matches!(publish(&mut publisher, &restored, &mut world).await, Outcome::Published { .. }));
    node.follow(&restored).await;
    assert_eq!((node.sequence(), node.root()), (2, compiled(&world)));
    assert_eq!(publish(&mut publisher, &restored, &mut world).await, Outcome::Unchanged);
    // It stays, whatever the RulePool says later.
    publisher.set_epoch(0);
    change(&mut publisher, &restored, &mut world, 9).await;
    assert_eq!(node.follow(&restored).await, 0, "a delta as always");
    assert_eq!(restored.read_head(POOL).await.unwrap().unwrap().0.epoch, 1);
}
