//! A bundle, and what changed in it since the last publication.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rulecast_bundle::{Bundle, Change, Key, Value};

/// A pool's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Services that the bundle serves.
    pub services: usize,
    /// Load-balancing targets.
    pub groups: usize,
    /// Members of all targets and scopes.
    pub endpoints: usize,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) bundle: Bundle,
    pub(super) stats: Stats,
    /// Records that changed since the last publication, with their value then.
    pending: BTreeMap<Key, Option<Value>>,
    /// `pending` as it was when it was last taken.
    taken: BTreeMap<Key, Option<Value>>,
}

impl Ledger {
    pub(super) fn has_changes(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        self.taken = std::mem::take(&mut self.pending);
        let changed = self.taken.keys().map(|key| Change { value: self.bundle.get(key), key: key.clone() });
        changed.collect()
    }

    pub(super) fn confirm(&mut self) {
        self.taken.clear();
    }

    pub(super) fn put_back(&mut self) {
        for (key, published) in std::mem::take(&mut self.taken) {
            if self.bundle.get(&key) == published {
                self.pending.remove(&key);
            } else {
                self.pending.insert(key, published);
            }
        }
    }

    pub(super) fn put(&mut self, key: Key, value: Option<Value>) {
        if self.bundle.get(&key) != value {
            self.put_all(&[Change { key, value }]);
        }
    }

    pub(super) fn put_all(&mut self, changes: &[Change]) {
        // A change that does not fit would be a record that two Services own, which claims rule out.
        let done = self.bundle.apply(changes).expect("compiled changes fit the compiled bundle");
        for (change, (_, before)) in changes.iter().zip(done.before()) {
            self.stats.count(&change.key, before.is_some(), change.value.is_some());
            match self.pending.entry(change.key.clone()) {
                Entry::Occupied(known) if *known.get() == change.value => drop(known.remove()),
                Entry::Occupied(_) => {}
                Entry::Vacant(new) => {
                    let decode =
                        |v| Value::decode(&change.key, v).expect("what the bundle holds is canonical");
                    new.insert(before.map(decode));
                }
            }
        }
    }
}

impl Stats {
    fn count(&mut self, key: &Key, before: bool, after: bool) {
        let counter = match key {
            Key::Group(_) => &mut self.groups,
            Key::Member { .. } => &mut self.endpoints,
            _ => return,
        };
        *counter += usize::from(after);
        *counter -= usize::from(before);
    }
}

/// Records of `before` whose key is not in `after`; both sorted.
pub(super) fn removals(before: &[(Key, Value)], after: &[(Key, Value)], changes: &mut Vec<Change>) {
    let mut after = after.iter().peekable();
    for (key, _) in before {
        while after.next_if(|(k, _)| k < key).is_some() {}
        if after.peek().is_none_or(|(k, _)| k != key) {
            changes.push(Change { key: key.clone(), value: None });
        }
    }
}

/// Records of `after` that are not in `before`, or differ; both sorted.
pub(super) fn additions(before: &[(Key, Value)], after: &[(Key, Value)], changes: &mut Vec<Change>) {
    let mut before = before.iter().peekable();
    for (key, value) in after {
        while before.next_if(|(k, _)| k < key).is_some() {}
        if before.peek().is_none_or(|(k, v)| (k, v) != (key, value)) {
            changes.push(Change { key: key.clone(), value: Some(value.clone()) });
        }
    }
}
