//! A node in a wave: it follows the bundle of the pool's next shape as long as its own fact says so.

mod world;

use std::time::Duration;

use rulecast_node::applier::Applier;
use rulecast_node::run::{Local, Runner};
use rulecast_node::status::Shared;
use rulecast_node::store::Store;

use world::{Content, Kernel, NEXT, POOL, World};

const OLD: Content = Content { port: 80, members: &[1, 2], next: false };
const IN_WAVE: Content = Content { next: true, ..OLD };
const NEW: Content = Content { port: 81, ..IN_WAVE };

/// A node that runs until it is dropped, on a clock that does not wait.
struct Node {
    runner: Runner<Kernel, World>,
    shared: Shared,
}

impl Node {
    fn new(world: &World, kernel: &Kernel, store: Option<Store>) -> Self {
        let shared = Shared::default();
        let applier = Applier::new("n", POOL, kernel.clone(), store);
        let mut local = Local::new(applier, shared.clone()).with_addresses(|| Some(Vec::new()));
        local.restore();
        Self { runner: Runner::new(local, world.clone()), shared }
    }

    async fn run(&mut self, seconds: u64) {
        self.runner.run(tokio::time::sleep(Duration::from_secs(seconds))).await;
    }

    /// Sequence, whether it is the next shape's, and the reason why it is not a newer one.
    fn state(&self) -> (u64, bool, Option<&'static str>) {
        let (state, _) = &*self.shared.lock();
        let sequence = state.head.as_ref().map_or(0, |head| head.sequence);
        (sequence, state.is_next(), state.problem.as_ref().map(|problem| problem.reason))
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_goes_through_a_wave_and_takes_the_end_without_reading() {
    let (world, kernel) = (World::default(), Kernel::default());
    let mut node = Node::new(&world, &kernel, None);
    world.publish(POOL, 1, &OLD);
    node.run(1).await;
    assert_eq!((node.state(), kernel.port()), ((1, false, None), 80));

    world.publish(POOL, 2, &IN_WAVE);
    node.run(1).await;
    world.publish(NEXT, 3, &NEW);
    node.run(1).await;
    assert_eq!((node.state(), kernel.port()), ((3, true, None), 81));
    world.publish(POOL, 4, &Content { members: &[2, 3], ..IN_WAVE });
    world.publish(NEXT, 5, &Content { members: &[2, 3], ..NEW });
    node.run(1).await;
    assert_eq!((node.state(), kernel.members()), ((5, true, None), vec![2, 3]), "membership is followed");

    // The wave ends well: everybody is on the new shape.
    let end = Content { next: false, members: &[2, 3], ..NEW };
    world.publish(NEXT, 6, &end);
    node.run(60).await;
    assert_eq!(node.state(), (6, true, None), "the pool's own bundle is older, which is no problem");
    let (reads, writes) = (world.reads(), kernel.writes());
    world.publish(POOL, 7, &end);
    node.run(1).await;
    assert_eq!((node.state(), kernel.port()), ((7, false, None), 81));
    assert_eq!((world.reads(), kernel.writes()), (reads, writes), "nothing is read or written");
    assert_eq!(kernel.rebuilds(), 1, "only the start writes everything");
}

#[tokio::test(start_paused = true)]
async fn a_wave_that_is_called_off_ends_with_its_bundle() {
    let (world, kernel) = (World::default(), Kernel::default());
    let mut node = Node::new(&world, &kernel, None);
    world.publish(POOL, 1, &IN_WAVE);
    world.publish(NEXT, 2, &NEW);
    node.run(1).await;
    assert_eq!(node.state(), (2, true, None));
    world.publish(POOL, 3, &OLD);
    world.delete(NEXT);
    node.run(1).await;
    assert_eq!((node.state(), kernel.port()), ((3, false, None), 80));
    assert_eq!(kernel.rebuilds(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_comes_late_is_found() {
    let (world, kernel) = (World::default(), Kernel::default());
    let mut node = Node::new(&world, &kernel, None);
    world.publish(POOL, 1, &IN_WAVE);
    node.run(10).await;
    world.publish(POOL, 2, &Content { members: &[3], ..IN_WAVE });
    node.run(1).await;
    assert_eq!((node.state(), kernel.members()), ((2, false, None), vec![3]));
    world.publish(NEXT, 3, &NEW);
    node.run(60).await;
    assert_eq!(node.state(), (3, true, None));
}

#[tokio::test(start_paused = true)]
async fn a_shape_that_the_kernel_refuses_is_told_and_endpoints_are_followed_all_the_same() {
    let (world, kernel) = (World::default(), Kernel::default());
    kernel.refuse_port(81);
    let mut node = Node::new(&world, &kernel, None);
    world.publish(POOL, 1, &IN_WAVE);
    world.publish(NEXT, 2, &NEW);
    node.run(1).await;
    assert_eq!(node.state(), (1, false, Some("BadRules")));
    for (sequence, members) in [(3, &[3][..]), (5, &[4, 5])] {
        world.publish(POOL, sequence, &Content { members, ..IN_WAVE });
        world.publish(NEXT, sequence + 1, &Content { members, ..NEW });
        node.run(100).await;
        assert_eq!(
            node.state(),
            (sequence, false, Some("BadRules")),
            "the reason is told as long as it is one"
        );
        assert_eq!((kernel.port(), kernel.members()), (80, members.to_vec()));
    }
    world.publish(POOL, 7, &OLD);
    node.run(60).await;
    assert_eq!(node.state(), (7, false, None), "the wave is over");
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_a_wave_goes_on_from_disk() {
    let (world, kernel, dir) = (World::default(), Kernel::default(), tempfile::tempdir().unwrap());
    let store = || Some(Store::open(dir.path(), POOL).unwrap());
    world.publish(POOL, 1, &IN_WAVE);
    world.publish(NEXT, 2, &NEW);
    let mut node = Node::new(&world, &kernel, store());
    node.run(1).await;
    assert_eq!(node.state(), (2, true, None));

    let mut node = Node::new(&World::default(), &kernel, store());
    assert_eq!((node.state(), kernel.port()), ((2, true, None), 81), "before any source is asked");
    node.run(1).await;
    let mut node = Node::new(&world, &kernel, store());
    let before = world.asked().len();
    world.publish(NEXT, 3, &Content { members: &[7], ..NEW });
    node.run(1).await;
    assert_eq!((node.state(), kernel.members()), ((3, true, None), vec![7]));
    assert_eq!(world.asked()[before..], [NEXT], "the pool's own bundle is not asked for");
}
