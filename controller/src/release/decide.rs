//! Which shape shall be live: a pure decision.

use k8s_openapi::jiff::Timestamp;
use rulecast_bundle::Digest;

use super::asked::{Approved, Asked};
use super::catalog::Catalog;
use super::shrink::Shrink;

/// What a decision is made from.
pub(crate) struct Facts<'a> {
    pub(crate) pool: &'a str,
    pub(crate) asked: &'a Asked,
    /// None: not read yet.
    pub(crate) catalog: Option<&'a Catalog>,
    /// What is published: digest and number of Services; none: nothing, or nothing that can be read.
    pub(crate) live: Option<(Digest, usize)>,
    /// Its revision.
    pub(crate) live_revision: Option<u64>,
    /// Something is published that cannot be read.
    pub(crate) damaged: bool,
    /// What the inputs ask for, or the pool that this one follows has proved.
    pub(crate) candidate: Candidate,
    pub(crate) allow_shrink: bool,
    pub(crate) now: Timestamp,
}

/// A shape that may go live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// The pool's own: digest and number of Services.
    Wanted(Digest, usize),
    /// Another pool's, which has proved itself there.
    Promoted(Digest),
    /// Another pool's, which has not.
    Unproved(Option<Digest>, String),
}

/// What shall be live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// What the inputs ask for, as it changes.
    Follow,
    /// What is live, or nothing while nothing is.
    Keep,
    /// The candidate as it is now.
    Candidate,
    /// The shape of a revision.
    Revision(u64),
    /// The last bundle of a revision.
    Exact(u64),
}

/// Why something is not live that could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waits {
    /// One word.
    pub(crate) reason: &'static str,
    /// For people, with the next step.
    pub(crate) message: String,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) choice: Choice,
    /// Why `choice` brings what it brings, in one word, for the record of releases.
    pub(crate) why: &'static str,
    pub(crate) waits: Option<Waits>,
    pub(crate) shrink: Option<Shrink>,
    /// What the RulePool asks for and cannot be done.
    pub(crate) problem: Option<(&'static str, String)>,
}

impl Decision {
    fn of(choice: Choice, why: &'static str) -> Self {
        Self { choice, why, waits: None, shrink: None, problem: None }
    }

    fn keep(reason: &'static str, message: String) -> Self {
        Self { waits: Some(Waits { reason, message }), ..Self::of(Choice::Keep, reason) }
    }
}

impl Facts<'_> {
    pub(crate) fn decide(&self) -> Decision {
        if let Some(exact) = self.asked.exact.filter(|exact| exact.until > self.now)
            && let Some(decision) = self.exact(exact.revision)
        {
            return decision;
        }
        if let Some(number) = self.asked.pinned {
            return self.pinned(number);
        }
        if self.asked.hold {
            let reason = Some(self.asked.hold_reason.as_str()).filter(|reason| !reason.is_empty());
            let because = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message =
                format!("the pool is held{because}; to go on: kubectl rulecast resume {}", self.pool);
            return Decision::keep("Hold", message);
        }
        if let Candidate::Unproved(_, why) = &self.candidate {
            return Decision::keep("Soak", why.clone());
        }
        if self.asked.manual { self.manual() } else { self.automatic() }
    }

    fn exact(&self, number: u64) -> Option<Decision> {
        let catalog = self.catalog?;
        if catalog.last(number).is_some() {
            return Some(Decision::of(Choice::Exact(number), "ExactReplay"));
        }
        // What pinnedRevision says holds all the same.
        let message = format!(
            "exactReplay.revision {number}: its last bundle is not known: it is live, was never, or was cleaned up; there are {}",
            catalog.numbers()
        );
        let rest = self.asked.pinned.map_or(Decision::of(Choice::Keep, "Kept"), |pinned| self.pinned(pinned));
        Some(Decision { problem: Some(("RevisionNotFound", message)), ..rest })
    }

    fn pinned(&self, number: u64) -> Decision {
        let message = format!(
            "revision {number} is pinned by a rollback; to go on with the newest shape: kubectl rulecast resume {}",
            self.pool
        );
        let waits = Some(Waits { reason: "Rollback", message });
        let keep = Decision { waits, ..Decision::of(Choice::Keep, "Rollback") };
        let Some(catalog) = self.catalog else { return keep };
        match catalog.get(number) {
            Some(revision) if self.is_live(&revision.digest) => keep,
            Some(_) => Decision { choice: Choice::Revision(number), ..keep },
            None => {
                let message = format!(
                    "pinnedRevision {number}: there is no such RuleRevision, or it was cleaned up; there are {}. What is \
                     live stays",
                    catalog.numbers()
                );
                Decision { problem: Some(("RevisionNotFound", message)), ..keep }
            }
        }
    }

    fn is_live(&self, digest: &str) -> bool {
        self.live.is_some_and(|(live, _)| live.to_string() == digest)
    }

    fn manual(&self) -> Decision {
        let candidate = self.candidate.digest();
        let live = self.live.map(|(digest, _)| digest);
        let Some(approved) = self.asked.approved else {
            return if candidate.is_some() && candidate == live {
                Decision::of(Choice::Keep, "Approved")
            } else {
                self.unapproved()
            };
        };
        if let Some(problem) = self.contradiction(approved) {
            return Decision { problem: Some(problem), ..self.unapproved() };
        }
        let choice = if live == Some(approved.digest) {
            Choice::Keep
        } else if candidate == Some(approved.digest) {
            Choice::Candidate
        } else {
            match self.catalog.and_then(|catalog| approved.revision.or(catalog.find(approved.digest))) {
                // An approval leads forward. Going back is a rollback, which stays until it is ended.
                Some(number) if self.live_revision.is_none_or(|live| number > live) => {
                    Choice::Revision(number)
                }
                _ => Choice::Keep,
            }
        };
        if candidate == Some(approved.digest) || choice == Choice::Keep && candidate == live {
            return Decision::of(choice, "Approved");
        }
        Decision { choice, why: "Approved", ..self.unapproved() }
    }

    fn unapproved(&self) -> Decision {
        let message = format!(
            "a new shape waits for approval; to look at it: kubectl rulecast diff --pool {}",
            self.pool
        );
        Decision::keep("Approval", message)
    }

    /// An approval whose number and digest name different shapes.
    fn contradiction(&self, approved: Approved) -> Option<(&'static str, String)> {
        let (number, catalog) = (approved.revision?, self.catalog?);
        let Some(revision) = catalog.get(number) else {
            // What is live or wanted is known by its digest alone.
            let known = [self.live.map(|(digest, _)| digest), self.candidate.digest()];
            let message = format!(
                "approved.revision {number}: there is no such RuleRevision, or it was cleaned up; there are {}",
                catalog.numbers()
            );
            return (!known.contains(&Some(approved.digest))).then_some(("RevisionNotFound", message));
        };
        let message = format!(
            "approved.revision {number} has the digest {}, not {}: look at it again, then kubectl rulecast approve {} {number}",
            revision.digest, approved.digest, self.pool
        );
        (revision.digest != approved.digest.to_string()).then_some(("DigestMismatch", message))
    }

    fn automatic(&self) -> Decision {
        let Candidate::Wanted(digest, services) = self.candidate else {
            return Decision::of(Choice::Candidate, "Promoted");
        };
        let approved = self.asked.approved.is_some_and(|approved| approved.digest == digest);
        let before = self.live.map(|(_, services)| services);
        let known = before.is_some() || self.damaged;
        let is_new = self.live.is_none_or(|(live, _)| live != digest);
        if known
            && is_new
            && !self.allow_shrink
            && !approved
            && let Err(shrink) = Shrink::check(self.pool, before, services, digest)
        {
            let waits = Decision::keep("Shrink", shrink.to_string());
            return Decision { shrink: Some(shrink), ..waits };
        }
        Decision::of(Choice::Follow, if approved { "Approved" } else { "Automatic" })
    }
}

impl Candidate {
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Wanted(digest, _) | Self::Promoted(digest) => Some(*digest),
            Self::Unproved(digest, _) => *digest,
        }
    }
}
