//! The shape that Services and options ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Change, DecodeError, Key, Mode, Value};

use super::PoolBundle;
use super::ledger::{additions, removals};
use crate::compiler::Inputs;
use crate::model::Options;
use crate::options::family_options;
use crate::ruleset::ruleset;
use crate::service::{self, ClaimKey};

impl PoolBundle {
    /// Brings the wanted shape up to date, and returns the Services whose records may have changed with it.
    pub(super) fn compile_shape(
        &mut self,
        dirty: &BTreeSet<Arc<str>>,
        inputs: &Inputs,
    ) -> BTreeSet<Arc<str>> {
        // A claim that moves makes its other claimants dirty, once: their claims stay as they are.
        let mut affected = BTreeSet::new();
        for name in dirty {
            self.update_claims(name, inputs, &mut affected);
        }
        affected.extend(dirty.iter().cloned());
        let compiled: Vec<_> =
            affected.iter().map(|name| (name, self.compile_service(name, inputs))).collect();
        // All removals come before all additions: a key may go from one Service to another.
        let mut changes = Vec::new();
        let wanted = |name: &Arc<str>| self.contributions.get(name).map_or(&[][..], |c| &c.wanted);
        for (name, records) in &compiled {
            removals(wanted(name), records, &mut changes);
        }
        for (name, records) in &compiled {
            additions(wanted(name), records, &mut changes);
        }
        // All at once: every bucket is hashed once, however many Services changed in it.
        self.wanted.apply(&changes).expect("compiled changes fit the compiled shape");
        for (name, records) in compiled {
            self.wanted_services += usize::from(!records.is_empty());
            let contribution = self.contributions.entry(Arc::clone(name)).or_default();
            self.wanted_services -= usize::from(!contribution.wanted.is_empty());
            contribution.wanted = records;
        }
        affected
    }

    pub(super) fn compile_options(&mut self) {
        self.problems.remove("the pool's options");
        let rules = [Family::V4, Family::V6].map(|family| rules(&self.pool.options, family));
        // Both families or none: they are one configuration.
        let mut records = BTreeMap::from([(Key::Settings, Value::Settings(self.pool.options.settings))]);
        let mut keys = Key::OF_POOL.to_vec();
        if let Some(error) = rules.iter().find_map(|(key, value)| unreadable(key, value)) {
            let problem = format!("the rules do not fit the bundle format ({error}): the previous ones stay");
            self.problems.insert("the pool's options".to_owned(), problem);
            keys.retain(|key| *key == Key::Settings);
        } else {
            self.wanted.set_mode(self.pool.options.mode);
            records.extend(rules);
        }
        // What another mode had goes.
        let changes = keys.into_iter().map(|key| Change { value: records.remove(&key), key });
        let changes: Vec<_> =
            changes.filter(|change| self.wanted.records().get(&change.key) != change.value).collect();
        self.wanted.apply(&changes).expect("only what differs");
    }

    fn update_claims(&mut self, name: &Arc<str>, inputs: &Inputs, affected: &mut BTreeSet<Arc<str>>) {
        let service = inputs.services.get(name);
        let wanted = service.map(|s| service::claims(s, &self.pool.options)).unwrap_or_default();
        let known = self.contributions.get(name).map(|c| c.claims.as_slice()).unwrap_or_default();
        if wanted == known {
            return;
        }
        for (key, class) in known {
            let claimants = self.claims.get_mut(key).expect("a known claim");
            claimants.remove(&(*class, Arc::clone(name)));
            affected.extend(claimants.iter().map(|(_, owner)| Arc::clone(owner)));
            if claimants.is_empty() {
                self.claims.remove(key);
            }
        }
        for (key, class) in &wanted {
            let claimants = self.claims.entry(*key).or_default();
            affected.extend(claimants.iter().map(|(_, owner)| Arc::clone(owner)));
            claimants.insert((*class, Arc::clone(name)));
        }
        self.contributions.entry(Arc::clone(name)).or_default().claims = wanted;
    }

    fn compile_service(&mut self, name: &Arc<str>, inputs: &Inputs) -> Vec<(Key, Value)> {
        self.ignored_external_ips.remove(name);
        let Some(service) = inputs.services.get(name) else {
            if let Some(contribution) = self.contributions.get_mut(name) {
                contribution.problems.clear();
            }
            return Vec::new();
        };
        let claims = &self.claims;
        let wins = |key: &ClaimKey| {
            claims.get(key).and_then(BTreeSet::first).is_some_and(|(_, owner)| owner == name)
        };
        let mut compiled = service::compile(name, service, &self.pool.options, wins);
        // What no node would read must not get into the bundle: one Service would take all the others with it.
        if let Some(error) = compiled.records.iter().find_map(|(key, value)| unreadable(key, value)) {
            compiled.records.clear();
            compiled.problems =
                vec![format!("it does not fit the bundle format ({error}): all of it is left out")];
        }
        if compiled.ignores_external_ips {
            self.ignored_external_ips.insert(Arc::clone(name));
        }
        self.contributions.entry(Arc::clone(name)).or_default().problems = compiled.problems;
        compiled.records
    }
}

/// What a family's rules are made from: all of them, or in modes whose layout the applier knows its options.
fn rules(options: &Options, family: Family) -> (Key, Value) {
    match options.mode {
        Mode::Nftables => (Key::Rules(family), Value::Rules(Box::new(ruleset(options, family)))),
        Mode::Iptables | Mode::Ipvs => {
            (Key::Options(family), Value::Options(Box::new(family_options(options, family))))
        }
    }
}

/// Why a node could not read a record, if so.
fn unreadable(key: &Key, value: &Value) -> Option<DecodeError> {
    Value::decode(key, &value.encode(key)).err().or_else(|| Key::decode(&key.encode()).err())
}
