//! What the sets and maps of a family's table hold on a node, by what the bundle format says of lanes.
//!
//! The node applier fills the kernel's sets in its own way, by differences; this is the same said plainly, from the
//! contract alone.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::nft::{Family, Field, Ruleset};
use rulecast_bundle::{Empty, GroupId, LaneKey, Name, Part};
use rulecast_node::view::{Endpoint, View};

use crate::model::contains;
use crate::packet::Machine;

/// A component of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Addr(IpAddr),
    Proto(u8),
    Port(u16),
    Index(u32),
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    None,
    Drop,
    Goto(Chain),
    Endpoint(SocketAddr),
}

/// A chain that verdicts lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chain {
    /// A fixed one.
    Fixed(Name),
    /// Picks one of so many.
    Pick { lane: usize, members: u32 },
    /// Looks up the client of a Service port, else picks one of so many.
    Sticky { lane: usize, members: u32 },
    /// Remembers the client.
    Remember { lane: usize },
}

/// The components before the last, and the last.
type Range = (Vec<Value>, (IpAddr, u8));

/// One family's sets.
#[derive(Default)]
pub(crate) struct Sets {
    elements: HashMap<Name, HashMap<Vec<Value>, Content>>,
    /// Elements of which the last component is a prefix.
    ranges: HashMap<Name, Vec<Range>>,
}

/// What an element stands for.
#[derive(Clone, Copy)]
struct Subject {
    proto: u8,
    vip: Option<IpAddr>,
    port: u16,
    member: Option<Endpoint>,
    index: u32,
}

impl Subject {
    fn key(&self, fields: &[Field]) -> Vec<Value> {
        fields.iter().map(|field| self.value(*field)).collect()
    }

    /// A packet to a member has been translated: its destination is the member's, and for a hairpin so is its source.
    fn value(&self, field: Field) -> Value {
        let vip = || self.vip.expect("a key with an address is a VIP's");
        match (field, self.member) {
            (Field::SourceAddr | Field::DestAddr, Some(member)) => Value::Addr(member.addr),
            (Field::DestPort, Some(member)) => Value::Port(member.port),
            (Field::DestAddr | Field::OriginalDestAddr, _) => Value::Addr(vip()),
            (Field::DestPort | Field::OriginalDestPort, _) => Value::Port(self.port),
            (Field::Proto, _) => Value::Proto(self.proto),
            (Field::RandomIndex, _) => Value::Index(self.index),
            (Field::SourceAddr, None) => panic!("no element of a target has a client in it"),
        }
    }
}

impl Sets {
    /// The sets of a family that has rules.
    pub(crate) fn of(view: &View, family: Family, rules: &Ruleset, machine: &Machine) -> Self {
        let mut sets = Self::default();
        for (id, target) in view.targets().filter(|(id, _)| id.family() == family) {
            let shape = target.shape().expect("no member without its group");
            let members: Vec<Endpoint> = target.members().iter().map(|m| m.endpoint).collect();
            for key in shape.keys.iter() {
                sets.target(rules, id, key, &members, shape.affinity.is_some(), shape.empty);
            }
            let own = target.members().iter().filter(|m| m.own);
            for (set, member) in rules.hairpin.iter().flat_map(|set| own.clone().map(move |m| (set, m))) {
                let subject = Subject {
                    proto: id.proto as u8,
                    vip: None,
                    port: 0,
                    member: Some(member.endpoint),
                    index: 0,
                };
                sets.add(rules, set, &subject, Content::None);
            }
        }
        for (element_family, set, parts) in view.elements() {
            if *element_family == family {
                sets.fixed(set, parts);
            }
        }
        sets.node_addresses(view, family, rules, machine);
        sets.own_sources(view, family, rules);
        sets
    }

    fn target(
        &mut self,
        rules: &Ruleset,
        id: &GroupId,
        key: &LaneKey,
        members: &[Endpoint],
        affinity: bool,
        empty: Empty,
    ) {
        let number = usize::from(key.lane);
        let lane = &rules.lanes[number];
        let subject =
            Subject { proto: id.proto as u8, vip: key.addr, port: key.port, member: None, index: 0 };
        for set in &lane.sets {
            self.add(rules, set, &subject, Content::None);
        }
        let goto = Content::Goto;
        if let Some(detour) = lane.detour.as_ref().filter(|_| !members.is_empty()) {
            self.add_once(rules, &detour.map, &subject, goto(Chain::Fixed(detour.chain.clone())));
        }
        for (member, index) in members.iter().zip(0..) {
            let at = SocketAddr::new(member.addr, member.port);
            self.add_once(rules, &lane.endpoints, &Subject { index, ..subject }, Content::Endpoint(at));
        }
        let sticky = lane.affinity.as_ref().filter(|_| affinity);
        if let Some(remember) = sticky.and_then(|sticky| sticky.remember.as_ref()) {
            self.add_once(rules, &remember.verdicts, &subject, goto(Chain::Remember { lane: number }));
        }
        let count = u32::try_from(members.len()).expect("few");
        let pick = goto(Chain::Pick { lane: number, members: count });
        match (count, empty, sticky) {
            (0, Empty::Reject, _) => {}
            (0, Empty::Drop, _) => self.add_once(rules, &lane.verdicts, &subject, Content::Drop),
            (_, _, None) => self.add_once(rules, &lane.verdicts, &subject, pick),
            (_, _, Some(sticky)) => {
                self.add_once(
                    rules,
                    &lane.verdicts,
                    &subject,
                    goto(Chain::Sticky { lane: number, members: count }),
                );
                for member in members {
                    let subject = Subject { member: Some(*member), ..subject };
                    self.add(rules, &sticky.members, &subject, Content::None);
                }
            }
        }
    }

    fn add(&mut self, rules: &Ruleset, set: &Name, subject: &Subject, content: Content) {
        let fields = &rules.set(set).expect("a set that is named is defined").key;
        self.elements.entry(set.clone()).or_default().insert(subject.key(fields), content);
    }

    /// Adds an element that no other target may have: the kernel refuses to add it twice.
    fn add_once(&mut self, rules: &Ruleset, set: &Name, subject: &Subject, content: Content) {
        let fields = &rules.set(set).expect("a set that is named is defined").key;
        let key = subject.key(fields);
        let known = self.elements.entry(set.clone()).or_default().insert(key.clone(), content);
        assert_eq!(known, None, "two targets want the element {key:?} of {set}");
    }

    fn fixed(&mut self, set: &Name, parts: &[Part]) {
        let mut key = Vec::new();
        for part in parts {
            match *part {
                Part::Addr(addr) => key.push(Value::Addr(addr)),
                Part::Proto(proto) => key.push(Value::Proto(proto as u8)),
                Part::Port(port) => key.push(Value::Port(port)),
                Part::Prefix(addr, len) => {
                    self.ranges.entry(set.clone()).or_default().push((key, (addr, len)));
                    return;
                }
            }
        }
        self.elements.entry(set.clone()).or_default().insert(key, Content::None);
    }

    fn node_addresses(&mut self, view: &View, family: Family, rules: &Ruleset, machine: &Machine) {
        let Some(which) = &rules.node_addresses else { return };
        let of_family = |addr: &&IpAddr| Family::of(**addr) == family;
        let primary = view.fact().addrs.iter().find(of_family).filter(|_| which.primary);
        let own = machine.addrs.iter().filter(of_family);
        let all = which.primary && primary.is_none();
        let inside = own.filter(|addr| all || which.prefixes.iter().any(|prefix| contains(*prefix, **addr)));
        let wanted: HashSet<IpAddr> = inside.chain(primary).copied().collect();
        let elements = wanted.into_iter().map(|addr| (vec![Value::Addr(addr)], Content::None));
        self.elements.entry(which.set.clone()).or_default().extend(elements);
    }

    /// Where a VIP's ranges hold the node's address, the VIP itself is a source as well.
    fn own_sources(&mut self, view: &View, family: Family, rules: &Ruleset) {
        let primary = view.fact().addrs.iter().find(|addr| Family::of(**addr) == family);
        let (Some(set), Some(primary)) = (&rules.sources, primary) else { return };
        let ranges = self.ranges.entry(set.clone()).or_default();
        let hold: Vec<_> = ranges.iter().filter(|(_, range)| contains(*range, *primary)).cloned().collect();
        for (key, _) in hold {
            let Some(Value::Addr(vip)) = key.first().copied() else { continue };
            ranges.push((key, (vip, if vip.is_ipv4() { 32 } else { 128 })));
        }
    }

    /// The element of a key.
    pub(crate) fn get(&self, set: &Name, key: &[Value]) -> Option<&Content> {
        if let Some(content) = self.elements.get(set).and_then(|elements| elements.get(key)) {
            return Some(content);
        }
        let (Value::Addr(last), first) = key.split_last()? else { return None };
        let ranges = self.ranges.get(set)?;
        ranges.iter().any(|(k, range)| k == first && contains(*range, *last)).then_some(&Content::None)
    }
}
