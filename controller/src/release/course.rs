//! Carrying a decision out: which shape the compiler makes the bundle of.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rulecast_bundle::Shape;
use rulecast_compiler::{Live, PoolBundle};
use tokio::time::Instant;

use super::decide::{Candidate, Choice, Decision, Facts, Waits};
use super::promotion::Proof;
use super::wave::{Fleet, Progress, Wave};
use super::{Asked, Release, Wanting};

impl Release {
    /// Decides what shall be live and tells the compiler. Returns what is missing for that, if something is.
    pub(crate) fn decide(
        &mut self,
        asked: &Asked,
        bundle: &mut PoolBundle,
        proof: Option<&Proof>,
        fleet: &Fleet<'_>,
        now: Timestamp,
    ) -> Option<Wanting> {
        let candidate = match proof {
            None => Candidate::Wanted(bundle.wanted().digest(), bundle.wanted_services()),
            Some(Proof::Proved { shape, .. }) => Candidate::Promoted(shape.digest()),
            Some(Proof::Unproved(digest, why)) => Candidate::Unproved(*digest, why.clone()),
        };
        self.candidate = candidate.digest();
        self.origin = proof.and_then(Proof::origin).cloned();
        let facts = Facts {
            pool: &self.pool,
            asked,
            catalog: self.journal.catalog.as_ref(),
            live: self.live.as_ref().map(|live| (live.shape.digest(), live.services)),
            live_revision: self.live_revision(),
            damaged: self.damaged,
            candidate,
            allow_shrink: self.allow_shrink,
            now,
        };
        let mut decision = facts.decide();
        let wanting = self.carry_out(&mut decision, bundle, proof, asked.waves.map(|pause| (pause, fleet)));
        self.note_waiting(&decision, now);
        self.log(&decision);
        self.decision = Some(decision);
        wanting
    }

    fn carry_out(
        &mut self,
        decision: &mut Decision,
        bundle: &mut PoolBundle,
        proof: Option<&Proof>,
        waves: Option<(Duration, &Fleet<'_>)>,
    ) -> Option<Wanting> {
        if decision.choice == Choice::Keep
            && self.live.is_none()
            && let Some(number) = self.lost()
        {
            decision.choice = Choice::Revision(number);
        }
        let mut wanting = None;
        let live = match decision.choice {
            Choice::Follow => Some(Live::Wanted),
            Choice::Keep => None,
            Choice::Candidate => Some(Live::Fixed(candidate_shape(bundle, proof))),
            Choice::Revision(number) => {
                let shape = self.shapes.get(&number).map(Arc::clone);
                if shape.is_none() {
                    let catalog = self.journal.catalog.as_ref();
                    wanting = catalog.and_then(|c| c.get(number)).cloned().map(Wanting::Shape);
                }
                shape.map(Live::Fixed)
            }
            Choice::Exact(number) => match &self.exact {
                Some((known, mode, bundle)) if *known == number => {
                    Some(Live::Exact(*mode, Arc::clone(bundle)))
                }
                _ => {
                    let last = self.journal.catalog.as_ref().and_then(|catalog| catalog.last(number));
                    wanting = last.cloned().map(|last| Wanting::Exact(number, last));
                    None
                }
            },
        };
        if let Choice::Revision(number) | Choice::Exact(number) = decision.choice
            && let Some((problem, again)) = self.unreadable.get(&number)
            && live.is_none()
        {
            decision.problem = Some(("RevisionUnreadable", problem.clone()));
            wanting = wanting.filter(|_| *again <= Instant::now());
        }
        if let Some(live) = self.in_waves(live, decision, bundle, waves) {
            bundle.set_live(live);
        } else {
            decision.choice = Choice::Keep;
            if let Some(live) = &self.live {
                bundle.set_live(Live::Fixed(Arc::clone(&live.shape)));
            }
        }
        wanting
    }

    /// The revision that was live last, where what is published does not tell: somebody deleted or damaged it.
    fn lost(&self) -> Option<u64> {
        let last = self.journal.releases.first()?;
        self.journal.number_of(last.digest.parse().ok()?)
    }

    /// Lets a new shape through where it may go live on every node; otherwise it goes on with its wave.
    fn in_waves(
        &mut self,
        new: Option<Live>,
        decision: &mut Decision,
        bundle: &PoolBundle,
        waves: Option<(Duration, &Fleet<'_>)>,
    ) -> Option<Live> {
        // A hold stops a wave where it is. A rollback is for everybody at once.
        if decision.why == "Hold" {
            return new;
        }
        let emergency = matches!(decision.why, "Rollback" | "ExactReplay");
        let (Some(target), Some(live), Some((pause, fleet)), false) = (&new, &self.live, waves, emergency)
        else {
            self.wave = None;
            return new;
        };
        let wanted = match target {
            Live::Wanted => bundle.wanted().digest(),
            Live::Fixed(shape) => shape.digest(),
            Live::Exact(..) => return new,
        };
        if wanted == live.shape.digest() || fleet.len() < 2 {
            self.wave = None;
            return new;
        }
        let shape = || match target {
            Live::Fixed(shape) => Arc::clone(shape),
            _ => Arc::new(bundle.wanted().clone()),
        };
        let wave = self.wave.get_or_insert_with(|| Wave::new(shape(), fleet));
        let mut progress = wave.look(fleet, pause, Instant::now());
        if matches!(progress, Progress::Stopped(_)) && wave.digest() != wanted {
            // Perhaps the newer one mends it.
            *wave = Wave::new(shape(), fleet);
            progress = wave.look(fleet, pause, Instant::now());
        }
        match progress {
            Progress::Finished => {
                let wave = self.wave.take().expect("it was just looked at");
                // A newer one comes after it.
                Some(if wave.digest() == wanted { new? } else { Live::Fixed(Arc::clone(wave.shape())) })
            }
            Progress::Runs(message) | Progress::Stopped(message) => {
                decision.waits = Some(Waits { reason: "Wave", message });
                None
            }
        }
    }

    fn note_waiting(&mut self, decision: &Decision, now: Timestamp) {
        let pending =
            self.candidate.filter(|digest| decision.waits.is_some() && Some(*digest) != self.live_digest());
        self.waiting_since = match (pending, self.waiting_since) {
            (Some(digest), Some((known, since))) if digest == known => Some((digest, since)),
            (Some(digest), _) => Some((digest, now)),
            (None, _) => None,
        };
    }

    /// Says what is new in a decision.
    fn log(&self, decision: &Decision) {
        let pool = &self.pool;
        let before = self.decision.as_ref();
        if before.map(|before| &before.problem) != Some(&decision.problem)
            && let Some((reason, problem)) = &decision.problem
        {
            tracing::error!(pool, reason, problem, "what the RulePool asks for cannot be done");
        }
        let reason = decision.waits.as_ref().map(|waits| waits.reason);
        if before.and_then(|before| before.waits.as_ref()).map(|waits| waits.reason) == reason {
            return;
        }
        match &decision.waits {
            Some(waits) => tracing::warn!(pool, reason, "no new shape goes live: {}", waits.message),
            None if before.is_some() => tracing::info!(pool, "new shapes go live again"),
            None => {}
        }
    }
}

/// The candidate as it is now.
fn candidate_shape(bundle: &PoolBundle, proof: Option<&Proof>) -> Arc<Shape> {
    match (proof, bundle.live()) {
        (Some(Proof::Proved { shape, .. }), _) => Arc::clone(shape),
        (_, Live::Fixed(shape)) if shape.digest() == bundle.wanted().digest() => Arc::clone(shape),
        _ => Arc::new(bundle.wanted().clone()),
    }
}
