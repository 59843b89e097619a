//! One pool in short.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rulecast_api::{Approval, Pending, QuarantinedService, RulePool};
use serde::Serialize;

use super::{Fleet, Hold, NodeRow, NodeState, rows};
use crate::output::Tone;

/// How many nodes stand how.
#[derive(Serialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    /// All of them, but not those that are gone.
    pub(crate) total: usize,
    pub(crate) current: usize,
    pub(crate) behind: usize,
    pub(crate) held: usize,
    pub(crate) restored: usize,
    pub(crate) failing: usize,
    pub(crate) astray: usize,
    pub(crate) missing: usize,
    /// Reports whose Node is gone.
    pub(crate) gone: usize,
    /// Those of the others that are in a wave.
    pub(crate) next: usize,
}

impl Tally {
    /// Counts nodes.
    pub(crate) fn of(rows: &[NodeRow]) -> Self {
        let count = |state| rows.iter().filter(|row| row.state == state).count();
        let gone = count(NodeState::Gone);
        Self {
            total: rows.len() - gone,
            current: count(NodeState::Current),
            behind: count(NodeState::Behind),
            held: count(NodeState::Held),
            restored: count(NodeState::Restored),
            failing: count(NodeState::Failing),
            astray: count(NodeState::Astray),
            missing: count(NodeState::Missing),
            gone,
            next: rows.iter().filter(|row| row.next && row.state != NodeState::Gone).count(),
        }
    }

    /// `3/5 current, 1 failing, 1 missing`.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}/{} current", self.current, self.total);
        for (count, word) in [
            (self.behind, "behind"),
            (self.held, "held on the node"),
            (self.restored, "restored from disk"),
            (self.failing, "failing"),
            (self.astray, "astray"),
            (self.missing, "missing"),
            (self.next, "in a wave"),
            (self.gone, "gone"),
        ] {
            if count > 0 {
                text = format!("{text}, {count} {word}");
            }
        }
        text
    }

    /// The worst that is among them.
    pub(crate) fn tone(&self) -> Tone {
        if self.failing + self.astray + self.missing > 0 {
            Tone::Bad
        } else if self.behind + self.held + self.restored > 0 {
            Tone::Attention
        } else {
            Tone::Good
        }
    }
}

/// A condition, judged.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionRow {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
    /// Whether that is as it should be; none for a type that this program does not know.
    pub(crate) good: Option<bool>,
}

impl From<&Condition> for ConditionRow {
    fn from(condition: &Condition) -> Self {
        let good = match condition.type_.as_str() {
            "Ready" | "Synced" | "Accepted" | "ExternalIPsServed" | "WithinLimits" => {
                Some(condition.status == "True")
            }
            "Held" | "HeldByRollback" | "PendingApproval" => Some(condition.status == "False"),
            _ => None,
        };
        Self {
            kind: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.last_transition_time.0,
            good,
        }
    }
}

/// A pool.
#[derive(Serialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolState {
    pub(crate) pool: String,
    pub(crate) mode: String,
    pub(crate) approval: Approval,
    /// Whether the status is about the present spec.
    pub(crate) observed: bool,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) digest: Option<String>,
    /// The revision that is live, and the digest of its shape.
    pub(crate) revision: Option<u64>,
    pub(crate) shape: Option<String>,
    /// When that went live.
    pub(crate) live_since: Option<Timestamp>,
    pub(crate) live_by: Option<String>,
    pub(crate) pending: Option<Pending>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) nodes: Tally,
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
    pub(crate) quarantined_count: u32,
    pub(crate) quarantined: Vec<QuarantinedService>,
    pub(crate) conditions: Vec<ConditionRow>,
    pub(crate) created: Option<Timestamp>,
}

impl PoolState {
    /// A pool as it is now.
    pub(crate) fn of(fleet: &Fleet, pool: &RulePool) -> Self {
        let name = pool.name_any();
        let status = pool.status.clone().unwrap_or_default();
        // The controller writes its status rarely where only numbers change; the head is always the newest.
        let head = fleet.head(&name, false);
        let live = status.releases.first().filter(|release| release.revision == status.revision);
        Self {
            mode: pool.spec.mode.to_string(),
            approval: pool.spec.approval,
            observed: status.observed_generation >= pool.metadata.generation,
            epoch: head.map_or(status.epoch, |head| head.epoch),
            sequence: head.map_or(status.sequence, |head| head.sequence),
            digest: head.map(|head| head.digest.clone()).or(status.digest),
            revision: status.revision,
            live_since: live.map(|release| release.at.0),
            live_by: live.map(|release| release.reason.clone()),
            shape: status.shape,
            pending: status.pending,
            holds: Hold::of(pool, fleet.now),
            nodes: Tally::of(&rows(fleet, Some(&name))),
            services: status.services,
            endpoints: status.endpoints,
            quarantined_count: status.quarantined_count,
            quarantined: status.quarantined,
            conditions: status.conditions.iter().map(ConditionRow::from).collect(),
            created: pool.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pool: name,
        }
    }

    /// The pool in a word or two.
    pub(crate) fn word(&self) -> (Tone, String) {
        let holds = |by| self.holds.iter().any(|hold| hold.by == by);
        if !self.observed {
            return (Tone::Attention, "Unobserved".to_owned());
        }
        if let Some(bad) = self.conditions.iter().find(|c| c.good == Some(false) && is_ready_part(&c.kind)) {
            return (Tone::Bad, bad.reason.clone());
        }
        if !self.conditions.iter().any(|c| c.kind == "Ready") {
            return (Tone::Bad, "NotReady".to_owned());
        }
        if holds("ExactReplay") {
            return (Tone::Bad, "ExactReplay".to_owned());
        }
        if holds("PinnedRevision") {
            return (Tone::Attention, "RolledBack".to_owned());
        }
        if holds("Hold") {
            return (Tone::Attention, "Held".to_owned());
        }
        match &self.pending {
            Some(pending) => (Tone::Attention, format!("Pending{}", pending.reason)),
            None => (Tone::Good, "Live".to_owned()),
        }
    }

    /// Whether everything that goes on by itself has come to its end, well.
    pub(crate) fn is_settled(&self) -> bool {
        let ready = self.conditions.iter().any(|c| c.kind == "Ready" && c.good == Some(true));
        let nodes = &self.nodes;
        self.observed && ready && nodes.current + nodes.held == nodes.total
    }
}

fn is_ready_part(kind: &str) -> bool {
    matches!(kind, "Ready" | "Synced" | "Accepted")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{fleet, node};
    use super::*;

    fn state(change: impl FnOnce(&mut RulePool)) -> PoolState {
        let mut fleet = fleet();
        let current = json!({ "sequence": 40, "digest": "d".repeat(27) });
        fleet.reports = vec![node("node-a", &current), node("node-b", &current), node("old", &current)];
        let mut pool = fleet.pools["default"].clone();
        pool.metadata.generation = Some(2);
        let status = pool.status.as_mut().unwrap();
        status.observed_generation = Some(2);
        status.conditions = vec![condition("Ready", "True", "Published")];
        change(&mut pool);
        PoolState::of(&fleet, &pool)
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(json!({
            "type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_pool_in_a_word() {
        let fine = state(|_| ());
        assert_eq!(fine.word(), (Tone::Good, "Live".to_owned()));
        assert_eq!(fine.nodes.text(), "2/2 current, 1 gone");
        assert!(fine.is_settled());
        let held = state(|pool| pool.spec.hold = true);
        assert_eq!(held.word().1, "Held");
        let failed = state(|pool| {
            pool.status.as_mut().unwrap().conditions = vec![condition("Ready", "False", "PublishFailed")];
        });
        assert_eq!(failed.word(), (Tone::Bad, "PublishFailed".to_owned()));
        assert!(!failed.is_settled());
        let unseen = state(|pool| pool.metadata.generation = Some(3));
        assert!(unseen.word().1 == "Unobserved" && !unseen.is_settled());
    }

    #[test]
    fn a_condition_of_an_unknown_type_is_not_judged() {
        assert_eq!(ConditionRow::from(&condition("Held", "True", "x")).good, Some(false));
        assert_eq!(ConditionRow::from(&condition("Novel", "True", "x")).good, None);
    }
}
