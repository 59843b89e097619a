//! One node beside its pool's head.

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rulecast_api::{RuleNode, RuleNodeStatus};
use serde::Serialize;

use super::{Fleet, Head, release_of};
use crate::output::{Tone, plural};

/// How a node stands.
#[derive(Serialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeState {
    /// Runs what is published.
    Current,
    /// Runs something older, and nothing is known to be wrong.
    Behind,
    /// Somebody has asked the node itself to keep or take back a shape.
    Held,
    /// Runs the last good rules from its disk; the API server has not confirmed them.
    Restored,
    /// Reports an error.
    Failing,
    /// Runs something that was never published under this sequence, or a later sequence than is published.
    Astray,
    /// Has never reported.
    Missing,
    /// Its Node is gone; the report is what is left.
    Gone,
}

impl NodeState {
    /// For a coloured word.
    pub(crate) fn tone(self) -> Tone {
        match self {
            Self::Current => Tone::Good,
            Self::Behind | Self::Held | Self::Restored => Tone::Attention,
            Self::Failing | Self::Astray | Self::Missing => Tone::Bad,
            Self::Gone => Tone::Faint,
        }
    }

    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Current => "Current",
            Self::Behind => "Behind",
            Self::Held => "Held",
            Self::Restored => "Restored",
            Self::Failing => "Failing",
            Self::Astray => "Astray",
            Self::Missing => "Missing",
            Self::Gone => "Gone",
        }
    }
}

/// A node.
#[derive(Serialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    /// Its name.
    pub(crate) node: String,
    /// The pool that it follows, or that its labels are for; of several, the first.
    pub(crate) pool: String,
    /// How it stands.
    pub(crate) state: NodeState,
    /// Why it is not current, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
    /// The sequence in its kernel.
    pub(crate) sequence: u64,
    /// The epoch of that.
    pub(crate) epoch: u64,
    /// The digest of that.
    pub(crate) digest: String,
    /// The revision whose shape that is, by the pool's releases; none: not known, or not the pool's.
    pub(crate) revision: Option<u64>,
    /// How many versions it is behind the head; none: there is no comparison.
    pub(crate) lag: Option<u64>,
    /// Whether it is in a wave and follows the pool's next shape.
    pub(crate) next: bool,
    /// Since when it runs that sequence.
    pub(crate) applied_at: Option<Timestamp>,
    /// What was asked of it on the node: Hold or UsePrevious.
    pub(crate) hold: Option<String>,
    /// The proxy mode in its kernel.
    pub(crate) mode: Option<String>,
    /// The applier's version.
    pub(crate) version: String,
}

/// All nodes of a pool, or of all pools, by name.
pub(crate) fn rows(fleet: &Fleet, pool: Option<&str>) -> Vec<NodeRow> {
    let reported = fleet.reports.iter().map(|report| row(fleet, report));
    let mut rows: Vec<NodeRow> =
        reported.chain(missing(fleet)).filter(|row| pool.is_none_or(|pool| row.pool == pool)).collect();
    rows.sort_by(|a, b| (&a.pool, &a.node).cmp(&(&b.pool, &b.node)));
    rows
}

/// Nodes that some pool is for and that never reported.
fn missing(fleet: &Fleet) -> impl Iterator<Item = NodeRow> {
    let reported: HashSet<&str> =
        fleet.reports.iter().filter_map(|report| report.metadata.name.as_deref()).collect();
    let nodes = fleet.nodes.iter().flatten();
    nodes.filter(move |(name, _)| !reported.contains(name.as_str())).filter_map(|(name, labels)| {
        let pool = (*fleet.pools_of(labels).first()?).to_owned();
        let why = "has never reported: does the applier's pod run there? kubectl get pods -A -o wide \
                   --field-selector spec.nodeName="
            .to_owned()
            + name;
        Some(NodeRow {
            node: name.clone(),
            pool,
            state: NodeState::Missing,
            why,
            sequence: 0,
            epoch: 0,
            digest: String::new(),
            revision: None,
            lag: None,
            next: false,
            applied_at: None,
            hold: None,
            mode: None,
            version: String::new(),
        })
    })
}

fn row(fleet: &Fleet, report: &RuleNode) -> NodeRow {
    let name = report.name_any();
    let status = report.status.clone().unwrap_or_default();
    let head = fleet.head(&status.pool, status.next);
    let lag = head.filter(|head| head.epoch == status.epoch);
    let lag = lag.and_then(|head| head.sequence.checked_sub(status.sequence));
    let gone = fleet.nodes.as_ref().is_some_and(|nodes| !nodes.contains_key(&name));
    let (state, why) = if gone {
        (
            NodeState::Gone,
            "there is no Node of this name any more: kubectl delete rulenode ".to_owned() + &name,
        )
    } else {
        judge(fleet, &status, head, lag)
    };
    NodeRow {
        revision: revision(fleet, &status),
        node: name,
        pool: status.pool,
        state,
        why,
        sequence: status.sequence,
        epoch: status.epoch,
        digest: status.digest,
        lag,
        next: status.next,
        applied_at: status.applied_at.map(|time| time.0),
        hold: status.hold.map(|hold| hold.reason),
        mode: status.mode.map(|mode| mode.to_string()),
        version: status.version,
    }
}

fn judge(
    fleet: &Fleet,
    status: &RuleNodeStatus,
    head: Option<&Head>,
    lag: Option<u64>,
) -> (NodeState, String) {
    if let Some(error) = &status.error {
        return (NodeState::Failing, format!("{}: {}", error.reason, error.message));
    }
    let Some(head) = head else {
        let why = match fleet.pools.contains_key(&status.pool) {
            false if status.pool.is_empty() => "it does not say which pool it follows".to_owned(),
            false => format!("there is no RulePool {}: is --pool right in its DaemonSet?", status.pool),
            true => "nothing is published for its pool".to_owned(),
        };
        return (NodeState::Astray, why);
    };
    let newer = (status.epoch, status.sequence) > (head.epoch, head.sequence);
    if newer {
        let why = format!(
            "runs epoch {} sequence {}, which is later than what is published (epoch {} sequence {}): after a restore \
             from a backup raise spec.epoch of the RulePool",
            status.epoch, status.sequence, head.epoch, head.sequence
        );
        return (NodeState::Astray, why);
    }
    if let Some(hold) = &status.hold {
        return (NodeState::Held, format!("{} on the node: {}", hold.reason, hold.message));
    }
    if status.restored {
        return (
            NodeState::Restored,
            "rules from the node's disk: it has not reached the API server".to_owned(),
        );
    }
    match lag {
        Some(0) if status.digest == head.digest => (NodeState::Current, String::new()),
        Some(0) => (NodeState::Astray, format!("digest {} instead of {}", status.digest, head.digest)),
        _ if status.sequence == 0 => (NodeState::Behind, "has no rules yet".to_owned()),
        Some(lag) => {
            let lag = usize::try_from(lag).unwrap_or(usize::MAX);
            (
                NodeState::Behind,
                format!("{} behind, or has not reported the newest yet", plural(lag, "version")),
            )
        }
        None => (NodeState::Behind, format!("epoch {} instead of {}", status.epoch, head.epoch)),
    }
}

/// The revision whose shape the node has.
fn revision(fleet: &Fleet, status: &RuleNodeStatus) -> Option<u64> {
    // What somebody asked of the node itself makes its shape another one than its sequence says.
    if status.sequence == 0 || status.hold.is_some() {
        return None;
    }
    let pool = fleet.pools.get(&status.pool)?.status.as_ref()?;
    if status.next {
        return pool.pending.as_ref()?.revision;
    }
    release_of(&pool.releases, status.epoch, status.sequence)?.revision
}

#[cfg(test)]
mod tests {
    use super::super::samples::{fleet, node};
    use super::*;

    fn state(report: &RuleNode) -> (NodeState, Option<u64>, Option<u64>, String) {
        let row = row(&fleet(), report);
        (row.state, row.revision, row.lag, row.why)
    }

    #[test]
    fn beside_the_head() {
        use serde_json::json;
        let d40 = json!({ "sequence": 40, "digest": "d".repeat(27) });
        assert_eq!(state(&node("node-a", &d40)), (NodeState::Current, Some(3), Some(0), String::new()));
        let other = json!({ "sequence": 40, "digest": "x".repeat(27) });
        assert_eq!(state(&node("node-a", &other)).0, NodeState::Astray);
        let older = state(&node("node-a", &json!({ "sequence": 29, "digest": "x".repeat(27) })));
        assert_eq!((older.0, older.1, older.2), (NodeState::Behind, Some(2), Some(11)));
        let ahead = state(&node("node-a", &json!({ "sequence": 41, "digest": "x".repeat(27) })));
        assert!(ahead.0 == NodeState::Astray && ahead.3.contains("spec.epoch"), "{ahead:?}");
        let gone = state(&node("node-x", &d40));
        assert_eq!(gone.0, NodeState::Gone);
    }

    #[test]
    fn an_error_comes_before_everything_else() {
        use serde_json::json;
        let error = json!({ "reason": "KernelRefused", "message": "no", "since": "2026-01-01T00:00:00Z" });
        let failing = state(&node("node-a", &json!({ "sequence": 39, "error": error, "restored": true })));
        assert_eq!((failing.0, failing.3.as_str()), (NodeState::Failing, "KernelRefused: no"));
    }

    #[test]
    fn what_was_asked_on_the_node_hides_the_revision() {
        use serde_json::json;
        let hold = json!({ "reason": "UsePrevious", "since": "2026-01-01T00:00:00Z" });
        let held = state(&node("node-a", &json!({ "sequence": 40, "hold": hold })));
        assert_eq!((held.0, held.1), (NodeState::Held, None));
    }

    #[test]
    fn a_node_that_never_reported_is_missing() {
        let mut fleet = fleet();
        fleet.reports = vec![node("node-a", &serde_json::json!({ "sequence": 40 }))];
        let rows = rows(&fleet, Some("default"));
        let states: Vec<_> = rows.iter().map(|row| (row.node.as_str(), row.state)).collect();
        assert_eq!(states[1], ("node-b", NodeState::Missing));
        assert_eq!(rows.len(), 2);
        fleet.nodes = None;
        assert_eq!(super::rows(&fleet, None).len(), 1);
    }
}
