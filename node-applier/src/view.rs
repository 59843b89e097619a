//! What this node makes of a bundle: for each target the most specific list that has members.
//!
//! Resolving is filtering. The node knows its own tag and, from its node fact, its zone; it keeps the members that are
//! for all nodes, for its zone or for itself, and forgets the others.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::nft::{Family, Ruleset};
use rulecast_bundle::{
    Bundle, Change, Empty, Group, GroupId, Key, LaneKey, Name, NodeFact, Part, Scope, Tag, Value,
};

/// Where an endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
}

/// An endpoint that this node may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// It runs on this node.
    pub own: bool,
}

/// What the node needs of a [`Group`]; the rest stays in the bundle.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// See [`Group::keys`].
    pub keys: Arc<[LaneKey]>,
    /// See [`Group::affinity`].
    pub affinity: Option<u32>,
    /// See [`Group::empty`].
    pub empty: Empty,
}

impl From<Group> for Shape {
    fn from(group: Group) -> Self {
        Self { keys: group.keys.into(), affinity: group.affinity, empty: group.empty }
    }
}

/// A load-balancing target with the members that concern this node.
#[derive(Debug, Default)]
pub struct Target {
    shape: Option<Shape>,
    /// By scope: all nodes, this zone, this node. Each sorted.
    lists: [Vec<Usable>; 3],
}

impl Target {
    /// The group's shape; none when only members have been seen, which a complete bundle never leaves behind.
    #[must_use]
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// The members that this node uses.
    #[must_use]
    pub fn members(&self) -> &[Usable] {
        let specific = self.lists.iter().rev().find(|list| !list.is_empty());
        specific.map_or(&[], Vec::as_slice)
    }

    fn is_empty(&self) -> bool {
        self.shape.is_none() && self.lists.iter().all(Vec::is_empty)
    }
}

/// An element of a static set.
pub type Element = (Family, Name, Vec<Part>);

/// A bundle as one node sees it.
pub struct View {
    me: Tag,
    fact: NodeFact,
    rules: [Option<Box<Ruleset>>; 2],
    targets: HashMap<GroupId, Target>,
    elements: BTreeSet<Element>,
}

/// What an update may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Targets to compare.
    pub targets: BTreeSet<GroupId>,
    /// Elements added.
    pub added: BTreeSet<Element>,
    /// Elements removed.
    pub removed: BTreeSet<Element>,
    /// The node's own fact changed, its addresses perhaps.
    pub fact: bool,
    /// The fixed rules changed, or what was kept depends on a zone that is no longer this node's: begin anew.
    pub everything: bool,
}

impl View {
    /// The node `name`'s view of a bundle.
    #[must_use]
    pub fn new(name: &str, bundle: &Bundle) -> Self {
        let me = Tag::of(name);
        let fact = match bundle.get(&Key::Node(me)) {
            // A tag names one node; another name under it would be a collision that the controller refuses.
            Some(Value::Node(fact)) if fact.name == name => fact,
            _ => NodeFact { name: name.to_owned(), ..NodeFact::default() },
        };
        let mut view =
            Self { me, fact, rules: [None, None], targets: HashMap::new(), elements: BTreeSet::new() };
        for (key, value) in bundle.iter() {
            view.take(key, Some(value), &mut Touched::default());
        }
        // Lists grow by doubling; with a hundred thousand members the slack would be most of their memory.
        for target in view.targets.values_mut() {
            target.lists.iter_mut().for_each(Vec::shrink_to_fit);
        }
        view.targets.shrink_to_fit();
        view
    }

    /// Applies changes. When [`Touched::everything`] comes back, make a new view from the bundle.
    pub fn apply(&mut self, changes: &[Change]) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            self.take(change.key.clone(), change.value.clone(), &mut touched);
        }
        touched
    }

    fn take(&mut self, key: Key, value: Option<Value>, touched: &mut Touched) {
        match (key, value) {
            (Key::Rules(family), value) => {
                self.rules[index(family)] =
                    value.and_then(|v| if let Value::Rules(r) = v { Some(r) } else { None });
                touched.everything = true;
            }
            (Key::Node(tag), value) => self.take_fact(tag, value, touched),
            (Key::Element { family, set, parts }, value) => {
                let element = (family, set, parts);
                if value.is_some() {
                    self.elements.insert(element.clone());
                    touched.added.insert(element);
                } else {
                    self.elements.remove(&element);
                    touched.removed.insert(element);
                }
            }
            (Key::Group(id), value) => {
                let shape = value.and_then(|v| if let Value::Group(g) = v { Some(g.into()) } else { None });
                self.change_target(id, touched, |target| target.shape = shape);
            }
            (Key::Member { group, scope, port, addr }, value) => {
                let Some(list) = self.list_of(scope) else { return };
                let endpoint = Endpoint { addr, port };
                let me = self.me.short();
                self.change_target(group, touched, |target| {
                    let list = &mut target.lists[list];
                    let at = list.binary_search_by_key(&endpoint, |usable| usable.endpoint);
                    match (at, value) {
                        (Ok(at), Some(Value::Member(member))) => list[at].own = member.node == me,
                        (Err(at), Some(Value::Member(member))) => {
                            list.insert(at, Usable { endpoint, own: member.node == me });
                        }
                        (Ok(at), _) => drop(list.remove(at)),
                        (Err(_), _) => {}
                    }
                });
            }
        }
    }

    fn take_fact(&mut self, tag: Tag, value: Option<Value>, touched: &mut Touched) {
        if tag != self.me {
            return;
        }
        let fact = match value {
            Some(Value::Node(fact)) if fact.name == self.fact.name => fact,
            _ => NodeFact { name: self.fact.name.clone(), ..NodeFact::default() },
        };
        touched.fact |= fact != self.fact;
        touched.everything |= fact.zone != self.fact.zone;
        self.fact = fact;
    }

    fn list_of(&self, scope: Scope) -> Option<usize> {
        match scope {
            Scope::All => Some(0),
            Scope::Zone(zone) => (self.fact.zone == Some(zone)).then_some(1),
            Scope::Node(node) => (node == self.me).then_some(2),
        }
    }

    fn change_target(&mut self, id: GroupId, touched: &mut Touched, change: impl FnOnce(&mut Target)) {
        touched.targets.insert(id);
        let target = self.targets.entry(id).or_default();
        change(target);
        if target.is_empty() {
            self.targets.remove(&id);
        }
    }

    /// The fixed rules of a family; none: the family has no table.
    #[must_use]
    pub fn rules(&self, family: Family) -> Option<&Ruleset> {
        self.rules[index(family)].as_deref()
    }

    /// A target.
    #[must_use]
    pub fn target(&self, id: &GroupId) -> Option<&Target> {
        self.targets.get(id)
    }

    /// All targets, in no order.
    pub fn targets(&self) -> impl Iterator<Item = (&GroupId, &Target)> {
        self.targets.iter()
    }

    /// All elements of static sets.
    #[must_use]
    pub fn elements(&self) -> &BTreeSet<Element> {
        &self.elements
    }

    /// What the bundle says of this node.
    #[must_use]
    pub fn fact(&self) -> &NodeFact {
        &self.fact
    }
}

fn index(family: Family) -> usize {
    usize::from(family == Family::V6)
}
