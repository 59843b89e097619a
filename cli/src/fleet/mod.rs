//! Pools and nodes, and what is to be said of them: pure, from objects as they were read.

mod hold;
mod node;
mod pool;
mod read;
mod revision;
#[cfg(test)]
pub(crate) mod samples;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use rulecast_api::{RuleBundle, RuleNode, RulePool};

pub(crate) use hold::{HOLD_REASON, Hold};
pub(crate) use node::{NodeRow, NodeState, rows};
pub(crate) use pool::{PoolState, Tally};
pub(crate) use read::read;
pub(crate) use revision::{RevisionRow, release_of, revisions};

/// What was read of a cluster.
pub(crate) struct Fleet {
    /// The pools, by name.
    pub(crate) pools: BTreeMap<String, RulePool>,
    /// The heads, by name.
    pub(crate) heads: BTreeMap<String, Head>,
    /// What nodes report.
    pub(crate) reports: Vec<RuleNode>,
    /// The cluster's Nodes with their labels; none: they may not be read.
    pub(crate) nodes: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// When.
    pub(crate) now: Timestamp,
}

/// What is published under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) digest: String,
    /// When it was written last, as the API server remembers it.
    pub(crate) written: Option<Timestamp>,
}

impl From<&RuleBundle> for Head {
    fn from(bundle: &RuleBundle) -> Self {
        let spec = &bundle.spec;
        let managed = bundle.metadata.managed_fields.iter().flatten();
        let written = managed.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max();
        Self { epoch: spec.epoch, sequence: spec.sequence, digest: spec.digest.clone(), written }
    }
}

impl Fleet {
    /// The head that a pool's nodes follow; those of a wave follow that of the next shape.
    pub(crate) fn head(&self, pool: &str, next: bool) -> Option<&Head> {
        if next { self.heads.get(&format!("{pool}.next")) } else { self.heads.get(pool) }
    }

    /// The pools that a Node is meant for by its labels. Where several match, those that ask for most labels: a pool for some
    /// nodes stands beside one for all.
    pub(crate) fn pools_of(&self, labels: &BTreeMap<String, String>) -> BTreeSet<&str> {
        let wanted = |pool: &RulePool| {
            let selector = &pool.spec.node_selector;
            selector.iter().all(|(key, value)| labels.get(key) == Some(value)).then_some(selector.len())
        };
        let matching = || self.pools.iter().filter_map(|(name, pool)| Some((wanted(pool)?, name.as_str())));
        let most = matching().map(|(labels, _)| labels).max();
        matching().filter(|(labels, _)| Some(*labels) == most).map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{fleet, pool};

    #[test]
    fn the_more_particular_pool_has_the_node() {
        let mut fleet = fleet();
        let canary = pool("canary", &serde_json::json!({ "spec": { "nodeSelector": { "canary": "yes" } } }));
        fleet.pools.insert("canary".into(), canary);
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(fleet.pools_of(&labels(&[("canary", "yes"), ("x", "y")])), ["canary"].into());
        assert_eq!(fleet.pools_of(&labels(&[("canary", "no")])), ["default"].into());
    }
}
