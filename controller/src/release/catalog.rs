//! The revisions that a pool has.

use std::collections::{BTreeMap, BTreeSet};

use rulecast_api::RuleRevisionSpec;
use rulecast_bundle::Digest;

/// A pool's revisions by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog(BTreeMap<u64, RuleRevisionSpec>);

impl Catalog {
    pub(crate) fn new(revisions: Vec<RuleRevisionSpec>) -> Self {
        let mut this = Self::default();
        revisions.into_iter().for_each(|revision| this.add(revision));
        this
    }

    /// What people read of it is not kept: it is in the object.
    pub(crate) fn add(&mut self, mut revision: RuleRevisionSpec) {
        (revision.cause, revision.summary) = (Vec::new(), Vec::new());
        self.0.insert(revision.number, revision);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(crate) fn get(&self, number: u64) -> Option<&RuleRevisionSpec> {
        self.0.get(&number)
    }

    pub(crate) fn newest(&self) -> Option<&RuleRevisionSpec> {
        self.0.values().next_back()
    }

    /// The newest one with this digest.
    pub(crate) fn find(&self, digest: Digest) -> Option<u64> {
        let digest = digest.to_string();
        self.0.values().rev().find(|revision| revision.digest == digest).map(|revision| revision.number)
    }

    /// The revision whose successor remembers its last bundle.
    pub(crate) fn after(&self, number: u64) -> Option<&RuleRevisionSpec> {
        let remembers = |revision: &&RuleRevisionSpec| {
            revision.before.as_ref().is_some_and(|before| before.revision == Some(number))
        };
        self.0.values().rev().find(remembers)
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
