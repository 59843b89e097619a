//! What a status says of a pool's releases.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rulecast_api::{Pending, Release as Event};

use super::{Asked, Choice, Release};

/// The longest message of what waits, in bytes.
const MESSAGE: usize = 512;

/// What is live, what waits, and what is asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Released {
    pub(crate) revision: Option<u64>,
    pub(crate) shape: Option<String>,
    pub(crate) pending: Option<Pending>,
    pub(crate) releases: Vec<Event>,
    /// Conditions that are said only where they matter: type, reason, message.
    pub(crate) conditions: Vec<(&'static str, &'static str, String)>,
    /// What the RulePool asks for and cannot be had.
    pub(crate) problem: Option<(&'static str, String)>,
    /// Why the candidate does not go live, if it is the guard against sudden loss.
    pub(crate) shrink: Option<String>,
}

impl Released {
    pub(super) fn of(release: &Release, asked: &Asked) -> Self {
        let decision = release.decision.as_ref();
        let waits = decision.and_then(|decision| decision.waits.as_ref());
        let pending = release.waiting_since.and_then(|(digest, since)| {
            let mut message = waits?.message.clone();
            message.truncate(message.floor_char_boundary(MESSAGE));
            Some(Pending {
                revision: release.journal.number_of(digest),
                digest: digest.to_string(),
                reason: waits?.reason.to_owned(),
                message,
                since: Time(since),
            })
        });
        let mut this = Self {
            revision: release.live_revision(),
            shape: release.live_digest().map(|digest| digest.to_string()),
            releases: release.journal.releases.clone(),
            conditions: Vec::new(),
            problem: decision.and_then(|decision| decision.problem.clone()),
            shrink: decision.and_then(|decision| decision.shrink.as_ref()).map(ToString::to_string),
            pending,
        };
        this.conditions = this.conditions(release, asked);
        this
    }

    fn conditions(&self, release: &Release, asked: &Asked) -> Vec<(&'static str, &'static str, String)> {
        let pool = &release.pool;
        let mut conditions = Vec::new();
        if asked.hold {
            let reason = if asked.hold_reason.is_empty() {
                String::new()
            } else {
                format!(" ({})", asked.hold_reason)
            };
            let message = format!(
                "no new shape goes live{reason}; endpoints follow. To go on: kubectl rulecast resume {pool}"
            );
            conditions.push(("Held", "Hold", message));
        }
        if let Some(number) = asked.pinned {
            let message = format!(
                "revision {number} stays live, with today's endpoints, and nothing takes its place. To go on with the newest \
                 shape: kubectl rulecast resume {pool}"
            );
            conditions.push(("HeldByRollback", "Rollback", message));
        }
        if let Some(Choice::Exact(number)) = release.decision.as_ref().map(|decision| decision.choice) {
            let until = asked.exact.map(|exact| exact.until.to_string()).unwrap_or_default();
            let message = format!(
                "the last bundle of revision {number} is replayed as it was until {until}: endpoints do not follow, and \
                 some may be dead"
            );
            conditions.push(("ExactReplay", "ExactReplay", message));
        }
        if let Some(Pending { revision, reason, message, digest, .. }) = &self.pending {
            let number = revision.map(|number| format!("revision {number}, ")).unwrap_or_default();
            let kind = match reason.as_str() {
                "Approval" | "Shrink" => Some(("PendingApproval", "WaitsForApproval")),
                "Soak" => Some(("Promoting", "WaitsForProof")),
                "Wave" => Some(("Promoting", "InWaves")),
                _ => None,
            };
            conditions
                .extend(kind.map(|(kind, word)| (kind, word, format!("{number}digest {digest}: {message}"))));
        }
        conditions
    }
}
