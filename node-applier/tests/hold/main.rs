//! A node that keeps its shape, or goes back to the one before, while versions are published.

mod disk;
mod kernel;
mod model;

use proptest::prelude::*;
use rulecast_bundle::{Bundle, Delta, FORMAT, Head, Mode, Way};
use rulecast_node::applier::Applier;
use rulecast_node::hold::{Fulfilled, HoldError, Wish};
use rulecast_node::store::Store;
use rulecast_node::view::View;

use disk::Memory;
use kernel::{Held, Kernel};
use model::{Content, GROUPS, Model};

const NODE: &str = "n";
const POOL: &str = "p";

#[derive(Debug, Clone)]
enum Act {
    /// A version that changes this of what is published; read anew instead of by deltas; and how many writes the kernel
    /// refuses before.
    Publish(Change, bool, u8),
    Hold,
    UsePrevious,
    Resume,
    Restart,
    Repair,
}

#[derive(Debug, Clone)]
enum Change {
    Group(usize, Option<u16>),
    Empty(usize, bool),
    Members(usize, u8),
    Rest(u8),
    Both(usize, Option<u16>, usize, u8),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match *self {
            Self::Group(n, port) => content.groups[n].at = port,
            Self::Empty(n, drops) => content.groups[n].drops = drops,
            Self::Members(n, members) => content.groups[n].members = members,
            Self::Rest(rest) => content.rest = rest,
            Self::Both(n, port, m, members) => {
                content.groups[n].at = port;
                content.groups[m].members = members;
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let port = || proptest::option::weighted(0.7, 80u16..83);
    prop_oneof![
        4 => (0..GROUPS, port()).prop_map(|(n, port)| Change::Group(n, port)),
        1 => (0..GROUPS, any::<bool>()).prop_map(|(n, drops)| Change::Empty(n, drops)),
        4 => (0..GROUPS, 0u8..8).prop_map(|(n, members)| Change::Members(n, members)),
        1 => (0u8..8).prop_map(Change::Rest),
        2 => (0..GROUPS, port(), 0..GROUPS, 0u8..8).prop_map(|(n, port, m, members)| Change::Both(n, port, m, members)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let refused = prop_oneof![6 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    prop_oneof![
        10 => (change(), proptest::bool::weighted(0.2), refused)
            .prop_map(|(change, anew, refused)| Act::Publish(change, anew, refused)),
        2 => Just(Act::Hold),
        1 => Just(Act::UsePrevious),
        1 => Just(Act::Resume),
        2 => Just(Act::Restart),
        1 => Just(Act::Repair),
    ]
}

struct Node {
    disk: Memory,
    kernel: Kernel,
    applier: Applier<Kernel>,
    sequence: u64,
    content: Content,
    model: Model,
}

impl Node {
    fn new() -> Self {
        let (disk, kernel) = (Memory::default(), Kernel::default());
        let applier = applier(&disk, &kernel);
        let mut this =
            Self { disk, kernel, applier, sequence: 0, content: Content::default(), model: Model::default() };
        this.publish(Content::default(), true);
        this
    }

    /// Whether the kernel took it.
    fn publish(&mut self, content: Content, anew: bool) -> bool {
        let (before, after) = (self.content.bundle(), content.bundle());
        self.sequence += 1;
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence: self.sequence,
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest(POOL, after.root()).to_string();
        let (from, to) = (self.sequence - 1, self.sequence);
        let delta = Delta { from, to, previous: None, changes: before.diff(&after) };
        let way = if anew { Way::Anew(Box::new(after), Vec::new()) } else { Way::Deltas(vec![delta]) };
        let took = self.applier.offer(head, way).is_ok();
        if took {
            self.model.publish(&self.content, &content);
            self.content = content;
        }
        took
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Publish(change, anew, refused) => {
                let mut content = self.content.clone();
                change.apply(&mut content);
                self.kernel.refuse(*refused);
                self.publish(content, *anew);
                self.kernel.refuse(0);
                self.applier.repair().unwrap();
            }
            Act::Hold => {
                let fulfilled = self.applier.ask(Wish::Hold, "why").unwrap();
                assert_eq!(fulfilled == Fulfilled::Done, self.model.hold(&self.content));
            }
            Act::UsePrevious => match self.applier.ask(Wish::UsePrevious, "") {
                Ok(fulfilled) => assert_eq!(Some(fulfilled == Fulfilled::Done), self.model.use_previous()),
                Err(HoldError::NothingBefore) => assert_eq!(self.model.use_previous(), None),
                Err(error) => panic!("{error}"),
            },
            Act::Resume => {
                let fulfilled = self.applier.resume().unwrap();
                assert_eq!(fulfilled == Fulfilled::Done, self.model.resume());
            }
            Act::Restart => {
                self.applier = applier(&self.disk, &self.kernel);
                self.applier.restore().unwrap().expect("a version is on disk");
            }
            Act::Repair => drop(self.applier.rebuild().unwrap()),
        }
    }

    fn check(&self, when: &str) {
        let effective: Bundle = self.model.effective(&self.content);
        let expected = Held::of(&View::new(NODE, &effective));
        assert_eq!(Held::of(self.applier.view()), expected, "the view {when}");
        assert_eq!(self.kernel.held(), expected, "the kernel {when}");
        let shape =
            self.applier.hold().map(|hold| hold.mask.shape(Mode::Nftables, self.applier.look().published));
        let whole = rulecast_bundle::Shape::of(Mode::Nftables, &effective);
        assert!(shape.is_none_or(|shape| shape.digest() == whole.digest()), "the shape's digest {when}");
        let last_known = self.applier.hold().map_or(0, |hold| hold.mask.last_known().endpoints);
        assert_eq!(last_known, self.model.last_known(&self.content), "last known endpoints {when}");
    }
}

fn applier(disk: &Memory, kernel: &Kernel) -> Applier<Kernel> {
    Applier::new(NODE, POOL, kernel.clone(), Some(Store::on(disk.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// While a shape is kept: it is that of the hold; members of Service ports that are published are the published ones;
    /// those of others are the last known; a restart changes nothing. Afterwards everything is as published.
    #[test]
    fn a_kept_shape_stays_and_membership_is_followed(acts in proptest::collection::vec(act(), 1..40)) {
        let mut node = Node::new();
        for (n, act) in acts.iter().enumerate() {
            node.act(act);
            node.check(&format!("after act {n}, {act:?}, of {acts:?}"));
        }
        node.act(&Act::Resume);
        prop_assert_eq!(node.kernel.held(), Held::of(&View::new(NODE, &node.content.bundle())));
    }
}

#[test]
fn a_damaged_hold_is_told_and_not_used() {
    let mut node = Node::new();
    node.act(&Act::Publish(Change::Group(0, Some(81)), false, 0));
    node.act(&Act::Hold);
    node.act(&Act::Publish(Change::Group(0, Some(82)), false, 0));
    for name in ["hold", "previous"] {
        node.disk.damage(name);
    }
    node.applier = applier(&node.disk, &node.kernel);
    node.applier.restore().unwrap().unwrap();
    assert!(node.applier.hold().is_none());
    let damage = node.applier.look().hold_damage.expect("it is told").to_owned();
    assert!(damage.contains("hold: it is damaged"), "{damage}");
    assert_eq!(
        node.kernel.held(),
        Held::of(&View::new(NODE, &node.content.bundle())),
        "the pool is followed"
    );
    let refused = node.applier.ask(Wish::UsePrevious, "").unwrap_err();
    assert!(matches!(&refused, HoldError::Damaged(why) if why.contains("previous")), "{refused}");
    assert_eq!(node.applier.resume().unwrap(), Fulfilled::Done, "the file is forgotten");
    node.applier = applier(&node.disk, &node.kernel);
    node.applier.restore().unwrap().unwrap();
    assert!(node.applier.look().hold_damage.is_none());
}
