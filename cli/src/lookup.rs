//! Finds revisions, and says what became of those that are not there.

use anyhow::bail;
use kube::ResourceExt as _;
use rulecast_api::{RulePool, RuleRevision};

use crate::cluster::Cluster;

/// The revision of a pool by its number. When there is none the error says why, and which there are.
pub(crate) async fn revision(
    cluster: &Cluster,
    pool: &RulePool,
    number: u64,
) -> anyhow::Result<RuleRevision> {
    let name = pool.name_any();
    if let Some(found) = cluster.find::<RuleRevision>(&format!("{name}-{number}")).await? {
        // Another pool's revision may have the same name: `a` and revision 1-2, `a-1` and revision 2.
        if found.spec.pool == name && found.spec.number == number {
            return Ok(found);
        }
    }
    let existing: Vec<RuleRevision> = cluster.list_where("spec.pool", &name).await?;
    bail!(absent(pool, number, existing.iter().map(|revision| revision.spec.number).collect()))
}

/// Why there is no revision of this number.
fn absent(pool: &RulePool, number: u64, mut existing: Vec<u64>) -> String {
    existing.sort_unstable();
    let name = pool.name_any();
    let released = pool.status.iter().flat_map(|status| &status.releases);
    let known = released.filter_map(|release| release.revision).chain(existing.iter().copied()).max();
    let Some(newest) = known else {
        return format!(
            "the pool {name} has no revisions yet: its first one comes when it is published (kubectl rulecast status \
             {name} says what keeps it)"
        );
    };
    let there = if existing.is_empty() {
        "none is left".to_owned()
    } else {
        let list: Vec<_> = existing.iter().map(u64::to_string).collect();
        format!("these exist: {}", list.join(", "))
    };
    if number > newest {
        format!("the pool {name} has no revision {number}; the newest is {newest}, and {there}")
    } else {
        format!(
            "revision {number} of the pool {name} has been cleaned up (spec.revisionHistoryLimit is {}); {there}",
            pool.spec.revision_history_limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::{fleet, pool};

    #[test]
    fn a_revision_that_is_not_there() {
        let fleet = fleet();
        let pool_with = &fleet.pools["default"];
        assert_eq!(
            absent(pool_with, 1, vec![3, 2]),
            "revision 1 of the pool default has been cleaned up (spec.revisionHistoryLimit is 10); these exist: 2, 3"
        );
        assert_eq!(
            absent(pool_with, 9, vec![3, 2]),
            "the pool default has no revision 9; the newest is 3, and these exist: 2, 3"
        );
        let fresh = pool("fresh", &serde_json::json!({}));
        assert!(absent(&fresh, 1, Vec::new()).contains("no revisions yet"));
    }
}
