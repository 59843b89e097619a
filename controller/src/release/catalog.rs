//! The revisions that a pool has.

use std::collections::{BTreeMap, BTreeSet};

use rulecast_api::{LastBundle, RuleRevisionSpec};
use rulecast_bundle::Digest;

use crate::sink::Revision;

/// A pool's revisions by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog(BTreeMap<u64, Revision>);

impl Catalog {
    pub(crate) fn new(revisions: Vec<Revision>) -> Self {
        let mut this = Self::default();
        for revision in revisions {
            this.add(revision);
        }
        this
    }

    /// What people read of it is not kept: it is in the object.
    pub(crate) fn add(&mut self, mut revision: Revision) {
        (revision.spec.cause, revision.spec.summary) = (Vec::new(), Vec::new());
        self.0.insert(revision.spec.number, revision);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(crate) fn get(&self, number: u64) -> Option<&RuleRevisionSpec> {
        self.0.get(&number).map(|revision| &revision.spec)
    }

    pub(crate) fn newest(&self) -> Option<&RuleRevisionSpec> {
        self.0.values().next_back().map(|revision| &revision.spec)
    }

    /// The newest one with this digest.
    pub(crate) fn find(&self, digest: Digest) -> Option<u64> {
        let digest = digest.to_string();
        let mut specs = self.0.values().rev().map(|revision| &revision.spec);
        specs.find(|spec| spec.digest == digest).map(|spec| spec.number)
    }

    /// The last bundle of a revision.
    pub(crate) fn last(&self, number: u64) -> Option<&LastBundle> {
        self.0.get(&number)?.last.as_ref()
    }

    pub(crate) fn set_last(&mut self, number: u64, last: LastBundle) {
        if let Some(revision) = self.0.get_mut(&number) {
            revision.last = Some(last);
        }
    }

    /// Those to delete: beyond the newest `limit`, and not to be kept for another reason.
    pub(crate) fn obsolete(&self, limit: usize, keep: &BTreeSet<u64>) -> Vec<u64> {
        let old = self.0.len().saturating_sub(limit);
        self.0.keys().take(old).copied().filter(|number| !keep.contains(number)).collect()
    }

    /// The numbers there are, for a message: the newest ten.
    pub(crate) fn numbers(&self) -> String {
        let numbers: Vec<String> = self.0.keys().rev().take(10).map(u64::to_string).collect();
        if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
    }
}
