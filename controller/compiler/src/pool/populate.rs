//! Members for whatever shape is live, and what nodes are told of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rulecast_bundle::{Key, NodeFact, Tag, Value};

use super::ledger::{additions, removals};
use super::{Live, PoolBundle};
use crate::compiler::Inputs;
use crate::endpoints::Tags;
use crate::members;
use crate::model::Node;

impl PoolBundle {
    pub(crate) fn set_node(&mut self, tag: Tag, node: Option<(&String, &Node)>) {
        if matches!(self.live, Live::Exact(..)) {
            return;
        }
        let node = node.filter(|(_, node)| self.selects(node));
        let fact = node.map(|(name, node)| Value::Node(fact(name, node, self.wave.contains(name))));
        self.ledger.put(Key::Node(tag), fact);
    }

    /// Gives these Services' live shapes their members.
    pub(super) fn populate(&mut self, names: &BTreeSet<Arc<str>>, inputs: &Inputs, tags: &mut Tags) {
        let mut changes = Vec::new();
        let mut populated = Vec::with_capacity(names.len());
        for name in names {
            let slices: Vec<_> = inputs.slices.get(name).into_iter().flat_map(BTreeMap::values).collect();
            let contribution = self.contributions.entry(Arc::clone(name)).or_default();
            let shape = match &self.fixed {
                Some(fixed) => fixed.services.get(name).map_or(&[][..], Vec::as_slice),
                None => &contribution.wanted,
            };
            let members::Populated { records, bad } = members::populate(shape, &slices, tags);
            let mut problems = contribution.problems.clone();
            problems.extend(
                bad.into_iter().map(|(addr, why)| format!("endpoint {addr} is {why}: it is left out")),
            );
            removals(&contribution.live, &records, &mut changes);
            populated.push((name, records));
            if problems.is_empty() {
                self.problems.remove(&**name);
            } else {
                problems.sort_unstable();
                self.problems.insert(name.to_string(), problems.join("; "));
            }
        }
        for (name, records) in &populated {
            additions(&self.contributions[*name].live, records, &mut changes);
        }
        self.ledger.put_all(&changes);
        for (name, records) in populated {
            let contribution = self.contributions.get_mut(name).expect("made above");
            self.ledger.stats.services += usize::from(!records.is_empty());
            self.ledger.stats.services -= usize::from(!contribution.live.is_empty());
            contribution.live = records;
            if !inputs.services.contains_key(name) && contribution.live.is_empty() {
                self.contributions.remove(name);
            }
        }
    }

    /// After another shape became live, or the bundle was another one's.
    pub(super) fn populate_everything(&mut self, inputs: &Inputs, tags: &mut Tags) {
        let mut names: BTreeSet<Arc<str>> = self.contributions.keys().cloned().collect();
        names.extend(self.fixed.iter().flat_map(|fixed| fixed.services.keys().cloned()));
        self.put_pool_records(inputs);
        self.populate(&names, inputs, tags);
    }

    /// Rules, settings and node facts.
    pub(super) fn put_pool_records(&mut self, inputs: &Inputs) {
        let shape = if let Live::Fixed(shape) = &self.live { shape } else { &self.wanted };
        let of_pool = |key: Key| (shape.records().get(&key), key);
        let records = Key::OF_POOL.map(of_pool);
        for (value, key) in records {
            self.ledger.put(key, value);
        }
        // Of two nodes with one tag the first keeps it.
        for (name, node) in inputs.nodes.iter().rev() {
            self.set_node(Tag::of(name), Some((name, node)));
        }
    }
}

fn fact(name: &str, node: &Node, next: bool) -> NodeFact {
    NodeFact {
        name: name.to_owned(),
        zone: node.zone.as_deref().map(Tag::of),
        addrs: node.addrs.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        draining: node.draining,
        next,
    }
}
