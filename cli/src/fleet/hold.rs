//! What keeps a pool from following its inputs, since when, and by whose hand.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rulecast_api::RulePool;
use serde::Serialize;

use crate::output::age;

/// The annotation on a RulePool that says in an operator's words why it is held.
pub(crate) const HOLD_REASON: &str = "rulecast.dev/hold-reason";

/// What keeps a pool where it is, and is not approval.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hold {
    /// Hold, PinnedRevision or ExactReplay: the field of the spec.
    pub(crate) by: &'static str,
    /// Since when, as far as it is known.
    pub(crate) since: Option<Timestamp>,
    /// The program that set the field, such as kubectl-edit.
    pub(crate) manager: Option<String>,
    /// Which revision is pinned or replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
    /// When an exact replay ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// Why, in an operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Hold {
    /// All that hold a pool; the field that shuts out the others comes first.
    pub(crate) fn of(pool: &RulePool, now: Timestamp) -> Vec<Self> {
        let spec = &pool.spec;
        let hold = |by, field: &str, revision, until, reason| {
            let (manager, written) = writer(pool, field);
            let since = since(pool, by).or(written);
            Self { by, since, manager, revision, until, reason }
        };
        let mut all = Vec::new();
        if let Some(replay) = spec.exact_replay.as_ref().filter(|replay| replay.until.0 > now) {
            let until = Some(replay.until.0);
            all.push(hold("ExactReplay", "f:exactReplay", Some(replay.revision), until, None));
        }
        if let Some(revision) = spec.pinned_revision {
            all.push(hold("PinnedRevision", "f:pinnedRevision", Some(revision), None, None));
        }
        if spec.hold {
            let reason = pool.annotations().get(HOLD_REASON).cloned();
            all.push(hold("Hold", "f:hold", None, None, reason));
        }
        all
    }

    /// In a sentence.
    pub(crate) fn sentence(&self, now: Timestamp) -> String {
        let revision = self.revision.unwrap_or_default();
        let mut text = match self.by {
            "ExactReplay" => format!("revision {revision} is replayed exactly, dead endpoints included"),
            "PinnedRevision" => format!("rolled back: revision {revision} is pinned (spec.pinnedRevision)"),
            _ => "held (spec.hold): no new shape goes live".to_owned(),
        };
        if let Some(until) = self.until {
            text = format!("{text}, for another {}", age(now, until));
        }
        if let Some(since) = self.since {
            text = format!("{text}, since {}", age(since, now));
        }
        if let Some(manager) = &self.manager {
            text = format!("{text}, set by {manager}");
        }
        if let Some(reason) = &self.reason {
            text = format!("{text}: {reason}");
        }
        text
    }
}

/// Since when the controller says so.
fn since(pool: &RulePool, by: &str) -> Option<Timestamp> {
    let condition = match by {
        "Hold" => "Held",
        "PinnedRevision" => "HeldByRollback",
        _ => return None,
    };
    let conditions = &pool.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|c| c.type_ == condition && c.status == "True")?;
    Some(condition.last_transition_time.0)
}

/// The program that owns a field of the spec, and when it wrote last.
fn writer(pool: &RulePool, field: &str) -> (Option<String>, Option<Timestamp>) {
    let managed = pool.metadata.managed_fields.iter().flatten();
    let owner = managed.into_iter().find(|entry| {
        entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| fields.0.get("f:spec").is_some_and(|f| f.get(field).is_some()))
    });
    owner.map_or((None, None), |entry| (entry.manager.clone(), entry.time.as_ref().map(|time| time.0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::pool;
    use super::*;

    #[test]
    fn who_holds_it_and_since_when() {
        let managed = json!([
            { "manager": "controller", "time": "2026-01-01T00:10:00Z", "fieldsV1": { "f:status": {} } },
            { "manager": "kubectl-rulecast", "time": "2026-01-01T00:55:00Z", "fieldsV1": { "f:spec": { "f:hold": {} } } },
        ]);
        let metadata =
            json!({ "name": "default", "managedFields": managed, "annotations": { HOLD_REASON: "a test" } });
        let pool =
            pool("default", &json!({ "metadata": metadata, "spec": { "hold": true, "pinnedRevision": 4 } }));
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let sentences: Vec<_> = Hold::of(&pool, now).iter().map(|hold| hold.sentence(now)).collect();
        assert_eq!(
            sentences,
            [
                "rolled back: revision 4 is pinned (spec.pinnedRevision)",
                "held (spec.hold): no new shape goes live, since 5m, set by kubectl-rulecast: a test",
            ]
        );
    }

    #[test]
    fn a_replay_that_is_over_holds_nothing() {
        let replay = json!({ "revision": 3, "until": "2026-01-01T01:00:00Z" });
        let pool = pool("default", &json!({ "spec": { "exactReplay": replay } }));
        assert!(Hold::of(&pool, "2026-01-01T01:00:00Z".parse().unwrap()).is_empty());
        assert_eq!(Hold::of(&pool, "2026-01-01T00:50:00Z".parse().unwrap())[0].by, "ExactReplay");
    }
}
