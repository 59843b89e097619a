//! Releases: which shape of a pool's rules is live, since when and why, and which ones there are to go back to.
//!
//! What is decided here is the shape alone. Its endpoints are always today's: the compiler gives them to whatever shape is
//! live. What is live is known from what is published, so a hold holds even if every RuleRevision is lost.

mod asked;
mod catalog;
mod decide;
mod promotion;
mod read;
mod record;
mod report;
mod shrink;
mod wave;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rulecast_api::{LastBundle, MAX_RELEASES, Origin, Release as Event, RuleRevisionSpec};
use rulecast_bundle::{Bundle, Digest, Mode, Shape};
use rulecast_compiler::{Live, PoolBundle};
use tokio::time::Instant;

use crate::publisher::{Gate, PublishError, Published};
use crate::sink::{Revision, SinkError};

pub use asked::{Approved, Asked, Exact, Promotion};
pub(crate) use decide::{Candidate, Choice, Decision};
pub use promotion::NodeReport;
pub(crate) use promotion::{Proof, Soak, Trial};
pub use read::{RevisionError, Revisions};
pub(crate) use read::{read_exact, read_revisions, read_shape};
pub use record::Recorded;
pub(crate) use record::{Last, Recording};
pub(crate) use report::Released;
pub use shrink::Shrink;
pub(crate) use wave::{Fleet, Wave};

use catalog::Catalog;
use decide::Facts;
use decide::Waits;
use record::{Chain, Parent, Wish};
use wave::Progress;

/// Shapes that wait to be written down. More than that, and the oldest is left out.
const QUEUE: usize = 64;

/// A shape that is published.
#[derive(Clone)]
struct LiveShape {
    shape: Arc<Shape>,
    services: usize,
    revision: Option<u64>,
}

/// What is to be read before a decision can be carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanting {
    Shape(RuleRevisionSpec),
    Exact(u64, rulecast_api::LastBundle),
}

/// One pool's releases.
pub(crate) struct Release {
    pool: String,
    allow_shrink: bool,
    gate: Gate,
    live: Option<LiveShape>,
    /// Something is published that cannot be read.
    damaged: bool,
    /// None: not read yet.
    catalog: Option<Catalog>,
    /// The newest revision, for the next one.
    recorded: Option<(Arc<Shape>, Option<Chain>)>,
    queue: VecDeque<Wish>,
    recording: bool,
    /// There are more revisions than when it was last looked which are obsolete.
    grown: bool,
    /// Last bundles that are not noted at their revision yet, and whether one is being written.
    lasts: VecDeque<Last>,
    noting: bool,
    /// Shapes of revisions, and a last bundle, that were read.
    shapes: BTreeMap<u64, Arc<Shape>>,
    exact: Option<(u64, Mode, Arc<Bundle>)>,
    unreadable: BTreeMap<u64, String>,
    decision: Option<Decision>,
    candidate: Option<Digest>,
    /// Where the candidate has proved itself.
    origin: Option<Origin>,
    waiting_since: Option<(Digest, Timestamp)>,
    /// The shape of the publication in flight, and why.
    planned: Option<(LiveShape, &'static str)>,
    releases: Vec<Event>,
    wave: Option<Wave>,
}

impl Release {
    pub(crate) fn new(pool: &str, allow_shrink: bool, gate: Gate, releases: Vec<Event>) -> Self {
        Self {
            pool: pool.to_owned(),
            allow_shrink,
            gate,
            live: None,
            damaged: false,
            catalog: None,
            recorded: None,
            queue: VecDeque::new(),
            recording: false,
            grown: true,
            lasts: VecDeque::new(),
            noting: false,
            shapes: BTreeMap::new(),
            exact: None,
            unreadable: BTreeMap::new(),
            decision: None,
            candidate: None,
            origin: None,
            waiting_since: None,
            planned: None,
            releases,
            wave: None,
        }
    }

    /// What is published was read: it is what is live.
    pub(crate) fn found(&mut self, published: Option<(Shape, usize)>, damaged: bool) {
        self.damaged = damaged;
        self.planned = None;
        self.wave = None;
        let Some((shape, services)) = published else {
            self.live = None;
            return;
        };
        let digest = shape.digest();
        let same = self.live.as_ref().filter(|live| live.shape.digest() == digest);
        let shape = same.map_or_else(|| Arc::new(shape), |live| Arc::clone(&live.shape));
        let told = self.releases.first().filter(|release| release.digest == digest.to_string());
        let revision = told.and_then(|release| release.revision).or_else(|| self.number_of(digest));
        self.live = Some(LiveShape { shape, services, revision });
    }

    /// Whether the pool's revisions have to be read, now that it is known what is live.
    pub(crate) fn needs_revisions(&self) -> bool {
        self.catalog.is_none()
    }

    pub(crate) fn live_digest(&self) -> Option<Digest> {
        self.live.as_ref().map(|live| live.shape.digest())
    }

    pub(crate) fn live_shape(&self) -> Option<&Arc<Shape>> {
        self.live.as_ref().map(|live| &live.shape)
    }

    pub(crate) fn live_revision(&self) -> Option<u64> {
        self.live.as_ref()?.revision
    }

    /// The pool's revisions were read.
    pub(crate) fn adopt(&mut self, revisions: Revisions, now: Timestamp) {
        let Revisions { catalog, newest } = revisions;
        let newest_digest = catalog.newest().map(|revision| revision.digest.clone());
        self.catalog = Some(catalog);
        if let Some(live) = &mut self.live {
            let digest = live.shape.digest();
            let known = self.catalog.as_ref().and_then(|catalog| catalog.find(digest));
            live.revision = live.revision.or(known);
            let is_newest = newest_digest.as_ref() == Some(&digest.to_string());
            self.recorded = newest.or_else(|| is_newest.then(|| Arc::clone(&live.shape))).map(|s| (s, None));
            if known.is_none() {
                let (shape, services) = (Arc::clone(&live.shape), live.services);
                self.wish(Wish { shape, services, origin: None, created: now });
            }
        } else {
            self.recorded = newest.map(|shape| (shape, None));
        }
    }

    /// Somebody else may have written: what is known of revisions is read again.
    pub(crate) fn forget(&mut self) {
        self.catalog = None;
        self.queue.clear();
        self.shapes.clear();
        self.unreadable.clear();
    }

    fn number_of(&self, digest: Digest) -> Option<u64> {
        self.catalog.as_ref()?.find(digest)
    }

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
            catalog: self.catalog.as_ref(),
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
        let mut wanting = None;
        let live = match decision.choice {
            Choice::Follow => Some(Live::Wanted),
            Choice::Keep => None,
            Choice::Candidate => Some(Live::Fixed(self.candidate_shape(bundle, proof))),
            Choice::Revision(number) => match self.shapes.get(&number) {
                Some(shape) => Some(Live::Fixed(Arc::clone(shape))),
                None => {
                    let catalog = self.catalog.as_ref();
                    wanting = catalog.and_then(|c| c.get(number)).cloned().map(Wanting::Shape);
                    None
                }
            },
            Choice::Exact(number) => match &self.exact {
                Some((known, mode, bundle)) if *known == number => {
                    Some(Live::Exact(*mode, Arc::clone(bundle)))
                }
                _ => {
                    let last = self.catalog.as_ref().and_then(|catalog| catalog.last(number));
                    wanting = last.cloned().map(|last| Wanting::Exact(number, last));
                    None
                }
            },
        };
        if let Choice::Revision(number) | Choice::Exact(number) = decision.choice
            && let Some(problem) = self.unreadable.get(&number)
        {
            decision.problem = Some(("RevisionUnreadable", problem.clone()));
            wanting = None;
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

    /// The wave that is under way.
    pub(crate) fn wave_mut(&mut self) -> Option<&mut Wave> {
        self.wave.as_mut()
    }

    /// The same.
    pub(crate) fn wave(&self) -> Option<&Wave> {
        self.wave.as_ref()
    }

    fn candidate_shape(&self, bundle: &PoolBundle, proof: Option<&Proof>) -> Arc<Shape> {
        match (proof, bundle.live()) {
            (Some(Proof::Proved { shape, .. }), _) => Arc::clone(shape),
            (_, Live::Fixed(shape)) if shape.digest() == bundle.wanted().digest() => Arc::clone(shape),
            _ => Arc::new(bundle.wanted().clone()),
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

    /// Whether there is a shape that may be published.
    pub(crate) fn may_publish(&self) -> bool {
        let keeps = self.decision.as_ref().is_none_or(|decision| decision.choice == Choice::Keep);
        !keeps || self.live.is_some()
    }

    /// The guard that keeps the candidate from going live, if it is that.
    pub(crate) fn shrink(&self) -> Option<&Shrink> {
        self.decision.as_ref()?.shrink.as_ref()
    }

    /// A shape that was asked for was read, or could not be.
    pub(crate) fn read(&mut self, number: u64, result: Result<Arc<Shape>, RevisionError>) -> Option<String> {
        match result {
            Ok(shape) => {
                // One is enough: what is live is kept anyway.
                self.shapes = BTreeMap::from([(number, shape)]);
                None
            }
            Err(error) => Some(self.failed_to_read(number, &error)),
        }
    }

    /// The same of a last bundle.
    pub(crate) fn read_exact(
        &mut self,
        number: u64,
        result: Result<(Mode, Arc<Bundle>), RevisionError>,
    ) -> Option<String> {
        match result {
            Ok((mode, bundle)) => {
                self.exact = Some((number, mode, bundle));
                None
            }
            Err(error) => Some(self.failed_to_read(number, &error)),
        }
    }

    fn failed_to_read(&mut self, number: u64, error: &RevisionError) -> String {
        // A sink that is away is asked again; what is damaged stays so.
        if matches!(error, RevisionError::Damaged { .. }) {
            self.unreadable.insert(number, error.to_string());
        }
        error.to_string()
    }

    /// What is compiled is about to be published.
    pub(crate) fn plan(&mut self, bundle: &PoolBundle) {
        let why = self.decision.as_ref().map_or("Automatic", |decision| decision.why);
        let live = self.live.as_ref();
        let shape = match bundle.live() {
            Live::Wanted => {
                let digest = bundle.wanted().digest();
                let same = live.filter(|live| live.shape.digest() == digest);
                same.map_or_else(|| Arc::new(bundle.wanted().clone()), |live| Arc::clone(&live.shape))
            }
            Live::Fixed(shape) => Arc::clone(shape),
            Live::Exact(mode, bundle) => Arc::new(Shape::of(*mode, bundle)),
        };
        let revision = match self.decision.as_ref().map(|decision| decision.choice) {
            Some(Choice::Revision(number) | Choice::Exact(number)) => Some(number),
            _ => live.filter(|live| live.shape.digest() == shape.digest()).and_then(|live| live.revision),
        };
        self.planned = Some((LiveShape { shape, services: bundle.stats().services, revision }, why));
    }

    /// It was published, on top of `before`.
    pub(crate) fn published(&mut self, before: Option<&Published>, now: &Published, at: Timestamp) {
        let Some((mut live, why)) = self.planned.take() else { return };
        let digest = live.shape.digest();
        let was = self.live.replace(live.clone());
        if was.as_ref().is_some_and(|was| was.shape.digest() == digest) {
            return;
        }
        // The newest one, or the one that somebody named. An older one of the same shape is history.
        let newest = self.catalog.as_ref().and_then(Catalog::newest).filter(|_| self.queue.is_empty());
        let newest = newest.filter(|revision| revision.digest == digest.to_string());
        live.revision = live.revision.or(newest.map(|revision| revision.number));
        self.releases.insert(
            0,
            Event {
                revision: live.revision,
                digest: digest.to_string(),
                sequence: now.head.sequence,
                epoch: now.head.epoch,
                at: Time(at),
                reason: why.to_owned(),
            },
        );
        self.releases.truncate(MAX_RELEASES);
        if live.revision.is_none() {
            let (shape, services) = (Arc::clone(&live.shape), live.services);
            let origin = self.origin.clone().filter(|_| why == "Promoted");
            self.wish(Wish { shape, services, origin, created: at });
        }
        if let (Some(before), Some(was)) = (before, was) {
            let (digest, head) = (was.shape.digest(), before.head.clone());
            self.lasts.push_back(Last { digest, head, chunks: before.names().collect() });
            if self.lasts.len() > QUEUE {
                self.lasts.pop_front();
            }
        }
        self.live = Some(live);
    }

    /// It was not.
    pub(crate) fn not_published(&mut self) {
        self.planned = None;
    }

    /// A candidate that does not go live at once is written down, so that it can be looked at.
    /// Whether there was one.
    pub(crate) fn record_candidate(
        &mut self,
        bundle: &PoolBundle,
        proof: Option<&Proof>,
        now: Timestamp,
    ) -> bool {
        let waits = self.waiting_since.is_some();
        if !waits || self.catalog.is_none() {
            return false;
        }
        let (shape, services, origin) = match proof {
            None if self.newest_digest() != Some(bundle.wanted().digest()) => {
                (Arc::new(bundle.wanted().clone()), bundle.wanted_services(), None)
            }
            Some(Proof::Proved { shape, services, origin })
                if self.newest_digest() != Some(shape.digest()) =>
            {
                (Arc::clone(shape), *services, Some(origin.clone()))
            }
            _ => return false,
        };
        self.wish(Wish { shape, services, origin, created: now });
        true
    }

    fn newest_digest(&self) -> Option<Digest> {
        let queued = self.queue.back().map(|wish| wish.shape.digest());
        queued.or_else(|| self.catalog.as_ref()?.newest()?.digest.parse().ok())
    }

    fn wish(&mut self, wish: Wish) {
        if self.newest_digest() == Some(wish.shape.digest()) {
            return;
        }
        if self.queue.len() >= QUEUE {
            // The first may be under way.
            self.queue.remove(1);
        }
        self.queue.push_back(wish);
    }

    /// A shape to be written down next. [`Release::recorded`] must follow.
    pub(crate) fn recording(&mut self) -> Option<Recording> {
        let catalog = self.catalog.as_ref().filter(|_| !self.recording)?;
        let wish = self.queue.front()?.clone();
        let newest = catalog.newest().map(|revision| revision.number);
        let told = self.releases.iter().filter_map(|release| release.revision).max();
        let number = newest.max(told).unwrap_or(0) + 1;
        let (shape, chain) = match &self.recorded {
            Some((shape, chain)) => (Arc::clone(shape), chain.clone()),
            None => (Arc::new(Shape::new(wish.shape.mode())), None),
        };
        self.recording = true;
        let parent = Parent { number: newest, shape, chain };
        Some(Recording { pool: self.pool.clone(), number, wish, parent, gate: self.gate.clone() })
    }

    /// Takes note of what came of a recording.
    pub(crate) fn recorded(&mut self, result: Result<Recorded, PublishError>) -> Result<(), PublishError> {
        self.recording = false;
        let recorded = match result {
            Ok(recorded) => recorded,
            Err(error) => {
                if error.is_conflict() {
                    // Another one writes revisions, or this one did and did not hear of it.
                    self.catalog = None;
                }
                return Err(error);
            }
        };
        let Recorded { spec, shape, chain, .. } = recorded;
        self.queue.pop_front();
        let (number, digest) = (spec.number, spec.digest.clone());
        tracing::info!(
            pool = self.pool,
            revision = number,
            digest,
            cause = spec.cause.join(", "),
            "a new revision"
        );
        self.recorded = Some((shape, Some(chain)));
        for release in self.releases.iter_mut().filter(|r| r.revision.is_none() && r.digest == digest) {
            release.revision = Some(number);
        }
        if let Some(live) = &mut self.live
            && live.revision.is_none()
            && live.shape.digest().to_string() == digest
        {
            live.revision = Some(number);
        }
        if let Some(catalog) = &mut self.catalog {
            catalog.add(Revision { spec, last: None });
            self.grown = true;
        }
        Ok(())
    }

    /// A last bundle to be noted next, at this revision. [`Release::noted`] must follow.
    pub(crate) fn note(&mut self) -> Option<(u64, Last)> {
        let catalog = self.catalog.as_ref().filter(|_| !self.noting && self.queue.is_empty())?;
        let last = self.lasts.front()?.clone();
        // Whose revision is gone, or never came to be, nobody can go back to.
        let Some(number) = catalog.find(last.digest) else {
            self.lasts.pop_front();
            return None;
        };
        self.noting = true;
        Some((number, last))
    }

    /// Takes note of what came of it.
    pub(crate) fn noted(
        &mut self,
        number: u64,
        result: Result<LastBundle, SinkError>,
    ) -> Result<(), SinkError> {
        self.noting = false;
        let last = result?;
        self.lasts.pop_front();
        if let Some(catalog) = &mut self.catalog {
            catalog.set_last(number, last);
        }
        if self.exact.as_ref().is_some_and(|(known, ..)| *known == number) {
            self.exact = None;
        }
        Ok(())
    }

    /// Whether there may be revisions that nobody needs any more: after each new one.
    pub(crate) fn may_prune(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// Whether everything is written down.
    pub(crate) fn is_idle(&self) -> bool {
        self.catalog.is_some()
            && self.queue.is_empty()
            && self.lasts.is_empty()
            && !self.recording
            && !self.noting
    }

    /// From which position on the live shape was published, if that is known.
    pub(crate) fn live_since(&self) -> Option<(u64, u64)> {
        let live = self.live_digest()?.to_string();
        let newest = self.releases.first().filter(|release| release.digest == live)?;
        Some((newest.epoch, newest.sequence))
    }

    /// Whether the publication in flight has another shape than the one before.
    pub(crate) fn changes_shape(&self) -> bool {
        let planned = self.planned.as_ref().map(|(planned, _)| planned.shape.digest());
        planned.is_some() && planned != self.live_digest()
    }

    /// Takes over what is known to have been released: another process has published.
    pub(crate) fn set_releases(&mut self, releases: Vec<Event>) {
        self.releases = releases;
    }

    /// Revisions that nobody needs any more. `running` are the positions that nodes report.
    pub(crate) fn obsolete(&mut self, asked: &Asked, running: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        let Some(catalog) = &self.catalog else { return Vec::new() };
        let mut keep: BTreeSet<u64> = asked.pinned.into_iter().collect();
        keep.extend(self.live.as_ref().and_then(|live| live.revision));
        if let Some(approved) = asked.approved {
            keep.extend(approved.revision.or_else(|| catalog.find(approved.digest)));
        }
        if let Some(exact) = asked.exact {
            keep.insert(exact.revision);
        }
        for position in running {
            let at = self.releases.iter().find(|release| (release.epoch, release.sequence) <= position);
            keep.extend(at.and_then(|release| release.revision));
        }
        let obsolete = catalog.obsolete(asked.history, &keep);
        // Those that could not be deleted come again when the revisions are read again.
        let catalog = self.catalog.as_mut().expect("it is there");
        obsolete.iter().for_each(|number| catalog.remove(*number));
        obsolete
    }

    /// What a status says of it.
    pub(crate) fn told(&self, asked: &Asked) -> Released {
        Released::of(self, asked)
    }
}
