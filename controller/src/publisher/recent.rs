//! What changed since the checkpoint, for merged deltas.

use std::collections::BTreeMap;

use rulecast_bundle::frame::Change;
use rulecast_bundle::{Delta, Key, Value};

/// The records that changed since a checkpoint: in which version last, and to what.
#[derive(Debug, Clone, Default)]
pub struct Recent(BTreeMap<Key, (u64, Option<Value>)>);

impl Recent {
    /// Reads it from the deltas that follow a checkpoint, oldest first.
    pub(super) fn of(deltas: &[Delta]) -> Self {
        let mut this = Self::default();
        // Of what is merged, when it happened is unknown: late enough that it is not forgotten too early.
        for delta in deltas {
            this.note(delta.to, delta.changes.clone());
        }
        this
    }

    /// Takes note of a version.
    pub(super) fn note(&mut self, sequence: u64, changes: Vec<Change>) {
        self.0.extend(changes.into_iter().map(|Change { key, value }| (key, (sequence, value))));
    }

    /// Forgets what a checkpoint of this version holds.
    pub(super) fn forget_until(&mut self, sequence: u64) {
        self.0.retain(|_, (at, _)| *at > sequence);
    }

    /// All changes after a version, with those that make the next one, sorted by key.
    pub(super) fn merged(&self, after: u64, next: &[Change]) -> Vec<Change> {
        let recent = self.0.iter().filter(|(_, (at, _))| *at > after);
        let mut merged: BTreeMap<&Key, &Option<Value>> =
            recent.map(|(key, (_, value))| (key, value)).collect();
        merged.extend(next.iter().map(|change| (&change.key, &change.value)));
        let change = |(key, value): (&Key, &Option<Value>)| Change { key: key.clone(), value: value.clone() };
        merged.into_iter().map(change).collect()
    }
}
