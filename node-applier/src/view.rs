//! What this node makes of a bundle: for each target the most specific list that has members.
//!
//! Resolving is filtering. The node knows its own tag and, from its node fact, its zone; it keeps the members that are
//! for all nodes, for its zone or for itself, and forgets the others.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rulecast_bundle::nft::{Family, Ruleset};
use rulecast_bundle::{
    Bundle, Change, FamilyOptions, GroupId, HealthCheck, Key, Mode, Name, NodeFact, Part, Scope, Settings,
    Tag, Value, prefix_contains,
};

mod counts;
mod port;
mod target;

pub use counts::{Counts, NoLocal};
pub use port::PortId;
pub use target::{Endpoint, Shape, Target, Usable};
use target::{SERVING, set_member};

/// An element of a static set.
pub type Element = (Family, Name, Vec<Part>);

/// The records of a bundle.
pub trait Records {
    /// A record's value.
    fn get(&self, key: &Key) -> Option<Value>;

    /// All of them, what is said of nodes before members.
    fn iter(&self) -> impl Iterator<Item = (Key, Value)>;
}

impl Records for Bundle {
    fn get(&self, key: &Key) -> Option<Value> {
        Self::get(self, key)
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Value)> {
        Self::iter(self)
    }
}

/// A bundle as one node sees it.
pub struct View {
    me: Tag,
    fact: NodeFact,
    /// All nodes of the pool.
    nodes: BTreeSet<Tag>,
    rules: [Option<Box<Ruleset>>; 2],
    options: [Option<Box<FamilyOptions>>; 2],
    targets: HashMap<GroupId, Target>,
    elements: BTreeSet<Element>,
    health_checks: BTreeMap<u16, HealthCheck>,
    /// The groups that health checks count, and whether any of this changed.
    counted: HashMap<GroupId, usize>,
    counts_changed: bool,
    settings: Settings,
    counts: Counts,
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
    /// The fixed rules changed, or what the node puts in their place, or what was kept depends on a zone that is no
    /// longer this node's: begin anew.
    pub everything: bool,
}

impl View {
    /// The node `name`'s view of a bundle.
    #[must_use]
    pub fn new(name: &str, bundle: &impl Records) -> Self {
        let me = Tag::of(name);
        let fact = match bundle.get(&Key::Node(me)) {
            // A tag names one node; another name under it would be a collision that the controller refuses.
            Some(Value::Node(fact)) if fact.name == name => fact,
            _ => NodeFact { name: name.to_owned(), ..NodeFact::default() },
        };
        let mut view = Self {
            me,
            fact,
            nodes: BTreeSet::new(),
            rules: [None, None],
            options: [None, None],
            targets: HashMap::new(),
            elements: BTreeSet::new(),
            health_checks: BTreeMap::new(),
            counted: HashMap::new(),
            counts_changed: true,
            settings: Settings::default(),
            counts: Counts::default(),
        };
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
            (Key::Options(family), value) => {
                self.options[index(family)] =
                    value.and_then(|v| if let Value::Options(o) = v { Some(o) } else { None });
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
            (Key::HealthCheck(port), value) => {
                let check = value.and_then(|v| if let Value::HealthCheck(c) = v { Some(c) } else { None });
                self.set_health_check(port, check);
            }
            (Key::Settings, Some(Value::Settings(settings))) => self.settings = settings,
            (Key::Settings, _) => self.settings = Settings::default(),
            (Key::Group(id), value) => {
                let shape = value.and_then(|v| if let Value::Group(g) = v { Some(g.into()) } else { None });
                self.change_target(id, touched, |target| target.shape = shape);
            }
            (Key::Member { group, scope, port, addr }, value) => {
                let Some(list) = self.list_of(scope) else { return };
                let member = value.and_then(|v| if let Value::Member(m) = v { Some(m) } else { None });
                let me = self.me.short();
                self.change_target(group, touched, |target| {
                    set_member(&mut target.lists[list], Endpoint { addr, port }, member, me);
                });
            }
        }
    }

    fn take_fact(&mut self, tag: Tag, value: Option<Value>, touched: &mut Touched) {
        if value.is_some() {
            self.nodes.insert(tag);
        } else {
            self.nodes.remove(&tag);
        }
        if tag != self.me {
            return;
        }
        let fact = match value {
            Some(Value::Node(fact)) if fact.name == self.fact.name => fact,
            _ => NodeFact { name: self.fact.name.clone(), ..NodeFact::default() },
        };
        touched.fact |= fact != self.fact;
        touched.everything |= fact.zone != self.fact.zone || fact.pod_cidrs != self.fact.pod_cidrs;
        self.fact = fact;
    }

    fn set_health_check(&mut self, port: u16, check: Option<HealthCheck>) {
        self.counts_changed = true;
        for id in self.health_checks.remove(&port).into_iter().flat_map(|old| old.groups) {
            if let Entry::Occupied(mut by) = self.counted.entry(id) {
                *by.get_mut() -= 1;
                if *by.get() == 0 {
                    by.remove();
                }
            }
        }
        if let Some(check) = check {
            // One port may come before another of the same Service goes.
            for id in &check.groups {
                *self.counted.entry(*id).or_default() += 1;
            }
            self.health_checks.insert(port, check);
        }
    }

    fn list_of(&self, scope: Scope) -> Option<usize> {
        match scope {
            Scope::All => Some(0),
            Scope::Zone(zone) => (self.fact.zone == Some(zone)).then_some(1),
            Scope::Node(node) => (node == self.me).then_some(2),
            Scope::Serving => Some(SERVING),
        }
    }

    fn change_target(&mut self, id: GroupId, touched: &mut Touched, change: impl FnOnce(&mut Target)) {
        touched.targets.insert(id);
        self.counts_changed |= self.counted.contains_key(&id);
        let target = self.targets.entry(id).or_default();
        self.counts.remove(&id, target);
        change(target);
        self.counts.add(&id, target);
        if target.is_empty() {
            self.targets.remove(&id);
        }
    }

    /// The mode that the records are made for; none: there are none yet. A shape that is kept on this node keeps its mode.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        let options = self.options.iter().flatten().next();
        let other = options.map(|o| if o.ipvs.is_some() { Mode::Ipvs } else { Mode::Iptables });
        self.rules.iter().any(Option::is_some).then_some(Mode::Nftables).or(other)
    }

    /// The fixed rules of a family in nftables mode; none: the family has no table.
    #[must_use]
    pub fn rules(&self, family: Family) -> Option<&Ruleset> {
        self.rules[index(family)].as_deref()
    }

    /// The options of a family in the other modes; none: nothing is served in that family.
    #[must_use]
    pub fn options(&self, family: Family) -> Option<&FamilyOptions> {
        self.options[index(family)].as_deref()
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

    /// How many there are of what.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the pool sets on this node beside rules.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The healthCheckNodePorts.
    pub fn health_check_ports(&self) -> impl Iterator<Item = u16> {
        self.health_checks.keys().copied()
    }

    /// Whether [`Self::health_checks`] may differ from what it was at the last call of this.
    pub fn take_counts_changed(&mut self) -> bool {
        std::mem::take(&mut self.counts_changed)
    }

    /// How many nodes the pool has, as far as something is said of them.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The Services with a healthCheckNodePort, with the number of their ready endpoints on this node in both families. As
    /// with kube-proxy an address counts once, whatever the number of ports.
    pub fn health_checks(&self) -> impl Iterator<Item = (u16, &str, [usize; 2])> {
        self.health_checks.iter().map(|(port, check)| {
            let ready = |family| {
                let targets = check.groups.iter().filter(|id| id.family() == family);
                let members = targets.filter_map(|id| self.targets.get(id)).flat_map(Target::members);
                members
                    .filter(|m| m.own && !m.terminating)
                    .map(|m| m.endpoint.addr)
                    .collect::<BTreeSet<_>>()
                    .len()
            };
            let has = |family| check.groups.iter().any(|id| id.family() == family);
            let counts = match (has(Family::V4), has(Family::V6)) {
                (true, false) => [ready(Family::V4); 2],
                (false, true) => [ready(Family::V6); 2],
                _ => [ready(Family::V4), ready(Family::V6)],
            };
            (*port, check.owner.as_str(), counts)
        })
    }

    /// The node's addresses that answer nodePorts, of those that it has; none: all but loopback do.
    #[must_use]
    pub fn node_port_addrs(&self, family: Family, node_addrs: &[IpAddr]) -> Option<BTreeSet<IpAddr>> {
        let of_rules = || {
            let addresses = self.rules(family)?.node_addresses.as_ref()?;
            Some((addresses.primary, &addresses.prefixes))
        };
        let of_options = || {
            let addresses = self.options(family)?.node_port_addresses.as_ref()?;
            Some((addresses.primary, &addresses.prefixes))
        };
        let (primary, prefixes) = of_rules().or_else(of_options)?;
        let own = node_addrs.iter().copied().filter(|a| Family::of(*a) == family && !a.is_loopback());
        let inside = |a: &IpAddr| prefixes.iter().any(|prefix| prefix_contains(*prefix, *a));
        Some(match self.primary(family) {
            Some(addr) if primary => own.filter(inside).chain([addr]).collect(),
            // As with kube-proxy: of a family in which the node has no primary address, all answer.
            None if primary => own.collect(),
            _ => own.filter(inside).collect(),
        })
    }

    /// The node's primary address of a family.
    #[must_use]
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        self.fact.addrs.iter().copied().find(|a| Family::of(*a) == family)
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
