//! What a bundle says about one node's sets and maps, worked out here from its records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rulecast_bundle::nft::{Data, Family, Field, Ruleset};
use rulecast_bundle::{
    Bundle, CatchUp, Empty, Group, GroupId, Head, Key, LaneKey, Name, NodeFact, Part, Proto, Scope, Tag,
    Value, Way,
};

/// Elements as `KEY` or `KEY : DATA`, by table and set. Sets that the kernel fills by itself are not there.
pub(crate) type Sets = BTreeMap<(String, String), BTreeSet<String>>;

/// Reads a published bundle as a node does, digest and all.
pub(crate) fn read(bundles: &Path) -> (Head, Bundle) {
    let dir = bundles.join("default");
    let head: Head = serde_json::from_slice(&fs::read(dir.join("head.json")).unwrap()).unwrap();
    let mut catch_up = CatchUp::new(&head, None).unwrap();
    while let Some(id) = catch_up.need() {
        catch_up.supply(fs::read(dir.join("chunks").join(id.to_string())).unwrap()).unwrap();
    }
    let Way::Anew(mut bundle, deltas) = catch_up.finish().unwrap() else {
        panic!("a whole bundle was asked for")
    };
    for delta in deltas {
        let _final = bundle.apply(&delta.changes).unwrap();
    }
    assert_eq!(head.digest, head.expected_digest("default", bundle.root()).to_string());
    (head, *bundle)
}

struct Target {
    id: GroupId,
    group: Group,
    /// Those of the most specific list, and whether they are this node's own.
    members: Vec<((IpAddr, u16), bool)>,
}

/// What node `name` should have in its kernel.
pub(crate) fn sets(bundle: &Bundle, name: &str, node_addrs: &[IpAddr]) -> Sets {
    let me = Tag::of(name);
    let fact = match bundle.get(&Key::Node(me)) {
        Some(Value::Node(fact)) => fact,
        _ => NodeFact::default(),
    };
    let mut sets = Sets::new();
    for family in [Family::V4, Family::V6] {
        let Some(Value::Rules(rules)) = bundle.get(&Key::Rules(family)) else { panic!("no rules") };
        for set in rules.sets.iter().filter(|s| !s.dynamic) {
            sets.insert((table(family), set.name.to_string()), BTreeSet::new());
        }
        let mut out = Out { family, rules: &rules, sets: &mut sets };
        for target in targets(bundle, me, &fact).iter().filter(|t| t.id.family() == family) {
            out.target(target);
        }
        out.static_elements(bundle);
        if let Some(nodeport) = &rules.node_addresses {
            assert!(nodeport.primary, "the sample pool has the default");
            for addr in node_addrs.iter().filter(|a| Family::of(**a) == family && fact.addrs.contains(a)) {
                out.add(&nodeport.set, addr.to_string());
            }
        }
    }
    sets
}

fn table(family: Family) -> String {
    if family == Family::V4 { "ip".to_owned() } else { "ip6".to_owned() }
}

fn targets(bundle: &Bundle, me: Tag, fact: &NodeFact) -> Vec<Target> {
    let mut targets = BTreeMap::new();
    let mut members: BTreeMap<GroupId, BTreeMap<u8, Vec<_>>> = BTreeMap::new();
    for (key, value) in bundle.iter() {
        match (key, value) {
            (Key::Group(id), Value::Group(group)) => drop(targets.insert(id, group)),
            (Key::Member { group, scope, port, addr }, Value::Member(member)) => {
                let rank = match scope {
                    Scope::All => 0,
                    Scope::Zone(zone) if fact.zone == Some(zone) => 1,
                    Scope::Node(node) if node == me => 2,
                    _ => continue,
                };
                let own = member.node == me.short();
                members.entry(group).or_default().entry(rank).or_default().push(((addr, port), own));
            }
            _ => {}
        }
    }
    let list = |id: &GroupId| {
        members.get(id).and_then(|lists| lists.values().next_back()).cloned().unwrap_or_default()
    };
    targets.into_iter().map(|(id, group)| Target { members: list(&id), id, group }).collect()
}

fn join(parts: &[&dyn Display]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

fn proto(proto: Proto) -> String {
    proto.to_string().to_lowercase()
}

struct Out<'a> {
    family: Family,
    rules: &'a Ruleset,
    sets: &'a mut Sets,
}

impl Out<'_> {
    fn add(&mut self, set: &Name, element: String) {
        let list = self.sets.get_mut(&(table(self.family), set.to_string()));
        list.unwrap_or_else(|| panic!("there is no set {set}")).insert(element);
    }

    fn target(&mut self, target: &Target) {
        let Target { id, group, members } = target;
        let rules = self.rules;
        let proto = proto(id.proto);
        for LaneKey { lane, addr, port } in &group.keys {
            let lane = &rules.lanes[usize::from(*lane)];
            let key = match addr {
                Some(addr) => join(&[addr, &proto, port]),
                None => join(&[&proto, port]),
            };
            for set in &lane.sets {
                let only_address = rules.set(set).unwrap().key == [Field::DestAddr];
                self.add(set, addr.filter(|_| only_address).map_or_else(|| key.clone(), |a| a.to_string()));
            }
            if let Some(detour) = lane.detour.as_ref().filter(|_| !members.is_empty()) {
                self.add(&detour.map, format!("{key} : goto {}", detour.chain));
            }
            for (index, ((addr, port), _)) in members.iter().enumerate() {
                // A node numbers members as it likes; numbers and endpoints are compared apart from each other.
                self.add(&lane.endpoints, format!("{key} . {index}"));
                self.add(&lane.endpoints, format!("{key} : {}", join(&[addr, port])));
            }
            let count = members.len();
            let affinity = lane.affinity.as_ref().zip(group.affinity);
            let port = format!("{proto}-{}-{}", id.addr.to_string().replace(':', "."), id.port);
            if let Some((Some(remember), timeout)) = affinity.map(|(a, timeout)| (&a.remember, timeout)) {
                let chain = format!("{}-{timeout}-{port}", remember.chain);
                self.add(&remember.verdicts, format!("{key} : goto {chain}"));
            }
            match (count, group.empty, affinity) {
                (0, Empty::Reject, _) => {}
                (0, Empty::Drop, _) => self.add(&lane.verdicts, format!("{key} : drop")),
                (_, _, None) => self.add(&lane.verdicts, format!("{key} : goto {}-{count}", lane.chain)),
                (_, _, Some((affinity, _))) => {
                    self.add(&lane.verdicts, format!("{key} : goto {}-{port}", affinity.chain));
                    for ((addr, port), _) in members {
                        self.add(&affinity.members, format!("{key} . {}", join(&[addr, port])));
                    }
                }
            }
        }
        for ((addr, port), _) in members.iter().filter(|(_, own)| *own) {
            let set = rules.hairpin.as_ref().expect("a set for hairpins");
            self.add(set, join(&[addr, addr, &proto, port]));
        }
    }

    fn static_elements(&mut self, bundle: &Bundle) {
        for (key, _) in bundle.iter() {
            let Key::Element { family, set, parts } = key else { continue };
            if family != self.family {
                continue;
            }
            assert_eq!(self.rules.set(&set).unwrap().data, Data::None);
            let texts: Vec<String> = parts
                .iter()
                .map(|part| match part {
                    Part::Addr(addr) => addr.to_string(),
                    Part::Proto(p) => proto(*p),
                    Part::Port(port) => port.to_string(),
                    Part::Prefix(addr, len) => format!("{addr}/{len}"),
                })
                .collect();
            self.add(&set, texts.join(" . "));
        }
    }
}
