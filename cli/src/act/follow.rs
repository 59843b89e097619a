//! Waits until a change has come to the nodes.

use kube::ResourceExt as _;
use rulecast_api::{Release, RulePool};

use super::name_of;
use crate::cluster::Cluster;
use crate::exit::Outcome;
use crate::fleet::{self, Fleet, NodeRow, NodeState, rows};
use crate::waiting::{WaitArgs, wait};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// The controller has seen the spec.
    Observed,
    /// The shape of this digest is live, and every node runs it.
    Live(String),
    /// Nothing waits for the operator any more, and every node runs what is live.
    Released,
}

/// Waits for a goal that the spec of `pool`, as it was written, is to lead to.
pub(super) async fn follow(
    cluster: &Cluster,
    pool: &RulePool,
    goal: &Goal,
    args: &WaitArgs,
) -> anyhow::Result<Outcome> {
    let (name, generation) = (pool.name_any(), pool.metadata.generation);
    let look = async || {
        let fleet = fleet::read(cluster).await?;
        let (reached, progress) = judge(&fleet, &name, generation, goal);
        Ok(((), reached, progress))
    };
    wait(args, look).await.map(|((), outcome)| outcome)
}

/// Whether the goal is reached, and how far it is.
fn judge(fleet: &Fleet, name: &str, generation: Option<i64>, goal: &Goal) -> (bool, String) {
    let Some(pool) = fleet.pools.get(name) else {
        return (false, format!("there is no RulePool {name} any more"));
    };
    let status = pool.status.clone().unwrap_or_default();
    if status.observed_generation < generation {
        return (false, "the controller has not seen it yet".to_owned());
    }
    let waits = status.pending.as_ref().map(|pending| {
        let why = if pending.message.is_empty() { &pending.reason } else { &pending.message };
        format!("{} waits: {why}", name_of(pending))
    });
    let release = status.releases.first();
    match goal {
        Goal::Observed => (true, String::new()),
        Goal::Live(digest) => match release.filter(|release| release.digest == *digest) {
            Some(release) => arrived(&rows(fleet, Some(name)), release),
            None => (false, waits.unwrap_or_else(|| "it is not live yet".to_owned())),
        },
        Goal::Released => match (&status.pending, release) {
            (Some(pending), _) if matches!(pending.reason.as_str(), "Hold" | "Rollback") => {
                (false, waits.unwrap_or_default())
            }
            (_, Some(release)) => arrived(&rows(fleet, Some(name)), release),
            (_, None) => (false, "nothing is live yet".to_owned()),
        },
    }
}

/// Whether all nodes of the pool run a release or something later.
fn arrived(rows: &[NodeRow], release: &Release) -> (bool, String) {
    let has = |row: &&NodeRow| !row.next && (row.epoch, row.sequence) >= (release.epoch, release.sequence);
    let nodes = || rows.iter().filter(|row| row.state != NodeState::Gone);
    let (there, all) = (nodes().filter(has).count(), nodes().count());
    let mut text = format!("live since sequence {}; {there} of {all} nodes run it", release.sequence);
    let late: Vec<&str> = nodes().filter(|row| !has(row)).map(|row| row.node.as_str()).take(3).collect();
    if !late.is_empty() {
        text = format!(
            "{text}, not yet: {}{}",
            late.join(", "),
            if all - there > late.len() { ", ..." } else { "" }
        );
    }
    (there == all, text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::samples::{digest, fleet, node};

    fn with_reports(a: u64, b: u64) -> Fleet {
        let mut fleet = fleet();
        fleet.reports =
            vec![node("node-a", &json!({ "sequence": a })), node("node-b", &json!({ "sequence": b }))];
        fleet.pools.get_mut("default").unwrap().status.as_mut().unwrap().observed_generation = Some(5);
        fleet
    }

    #[test]
    fn live_means_every_node() {
        let live = Goal::Live(digest(3));
        assert!(judge(&with_reports(40, 30), "default", Some(5), &live).0);
        let (reached, progress) = judge(&with_reports(40, 29), "default", Some(5), &live);
        assert!(!reached);
        assert_eq!(progress, "live since sequence 30; 1 of 2 nodes run it, not yet: node-b");
        let (reached, progress) = judge(&with_reports(40, 40), "default", Some(6), &live);
        assert!(!reached && progress.contains("has not seen it"), "{progress}");
        assert!(!judge(&with_reports(40, 40), "default", Some(5), &Goal::Live(digest(2))).0);
    }

    #[test]
    fn a_node_that_never_reported_has_not_arrived() {
        let mut fleet = with_reports(40, 40);
        fleet.reports.pop();
        assert!(!judge(&fleet, "default", Some(5), &Goal::Live(digest(3))).0);
    }

    #[test]
    fn released_means_that_nothing_is_held_back() {
        let mut fleet = with_reports(40, 40);
        let pending = |reason: &str| {
            serde_json::from_value(json!({
                "revision": 4, "digest": digest(4), "reason": reason, "since": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        for (reason, reached) in [("Hold", false), ("Rollback", false), ("Approval", true)] {
            fleet.pools.get_mut("default").unwrap().status.as_mut().unwrap().pending = pending(reason);
            assert_eq!(judge(&fleet, "default", Some(5), &Goal::Released).0, reached, "{reason}");
        }
    }
}
