//! Releases: which shape of a pool's rules is live, since when and why, and which ones there are to go back to.
//!
//! What is decided here is the shape alone. Its endpoints are always today's: the compiler gives them to whatever shape is
//! live. What is live is known from what is published, so a hold holds even if every RuleRevision is lost.

mod asked;
mod catalog;
mod course;
mod decide;
mod journal;
mod promotion;
mod read;
mod record;
mod report;
mod shrink;
mod wave;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rulecast_api::{LastBundle, Origin, Release as Event, RuleRevisionSpec};
use rulecast_bundle::{Bundle, Digest, Mode, Shape};
use rulecast_compiler::{Live, PoolBundle};
use tokio::time::Instant;

use crate::publisher::{Gate, PublishError, Published};
use crate::sink::SinkError;

pub use asked::{Approved, Asked, Exact, Promotion};
use decide::{Choice, Decision};
pub use promotion::NodeReport;
pub(crate) use promotion::{Proof, Soak, Trial};
pub use read::read_shape;
pub use read::{RevisionError, Revisions};
pub(crate) use read::{read_exact, read_revisions};
pub use record::Recorded;
pub(crate) use record::{Last, Recording};
pub(crate) use report::Released;
pub use shrink::Shrink;
use wave::Wave;

use journal::Journal;
use record::Wish;

/// After a revision could not be read.
const READ_AGAIN: Duration = Duration::from_secs(20);

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
    live: Option<LiveShape>,
    /// Something is published that cannot be read.
    damaged: bool,
    journal: Journal,
    /// Shapes of revisions, and a last bundle, that were read.
    shapes: BTreeMap<u64, Arc<Shape>>,
    exact: Option<(u64, Mode, Arc<Bundle>)>,
    /// What could not be read, why, and when it is tried again: it may have been damaged on its way.
    unreadable: BTreeMap<u64, (String, Instant)>,
    decision: Option<Decision>,
    candidate: Option<Digest>,
    /// Where the candidate has proved itself.
    origin: Option<Origin>,
    waiting_since: Option<(Digest, Timestamp)>,
    /// The shape of the publication in flight, and why.
    planned: Option<(LiveShape, &'static str)>,
    wave: Option<Wave>,
}

impl Release {
    pub(crate) fn new(pool: &str, allow_shrink: bool, gate: Gate, releases: Vec<Event>) -> Self {
        Self {
            pool: pool.to_owned(),
            allow_shrink,
            live: None,
            damaged: false,
            journal: Journal::new(pool, gate, releases),
            shapes: BTreeMap::new(),
            exact: None,
            unreadable: BTreeMap::new(),
            decision: None,
            candidate: None,
            origin: None,
            waiting_since: None,
            planned: None,
            wave: None,
        }
    }

    /// What is published was read: it is what is live.
    pub(crate) fn found(&mut self, published: Option<(Shape, usize)>, damaged: bool) {
        self.damaged = damaged;
        self.planned = None;
        self.wave = None;
        let Some((shape, services)) = published else {
            // What this process knows to have been live still shall be.
            return;
        };
        let digest = shape.digest();
        let same = self.live.as_ref().filter(|live| live.shape.digest() == digest);
        let shape = same.map_or_else(|| Arc::new(shape), |live| Arc::clone(&live.shape));
        let told = self.journal.last_release(digest);
        let revision = told.and_then(|release| release.revision).or_else(|| self.journal.number_of(digest));
        self.live = Some(LiveShape { shape, services, revision });
    }

    /// Whether the pool's revisions have to be read, now that it is known what is live.
    pub(crate) fn needs_revisions(&self) -> bool {
        self.journal.catalog.is_none()
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

    /// From which position on the live shape was published, if that is known.
    pub(crate) fn live_since(&self) -> Option<(u64, u64)> {
        let newest = self.journal.last_release(self.live_digest()?)?;
        Some((newest.epoch, newest.sequence))
    }

    /// The pool's revisions were read.
    pub(crate) fn adopt(&mut self, revisions: Revisions, now: Timestamp) {
        let Revisions { catalog, newest } = revisions;
        let newest_digest = catalog.newest().map(|revision| revision.digest.clone());
        self.journal.catalog = Some(catalog);
        if let Some(live) = &mut self.live {
            let digest = live.shape.digest();
            let known = self.journal.number_of(digest);
            live.revision = live.revision.or(known);
            let is_newest = newest_digest.as_ref() == Some(&digest.to_string());
            self.journal.recorded =
                newest.or_else(|| is_newest.then(|| Arc::clone(&live.shape))).map(|s| (s, None));
            if known.is_none() {
                let (shape, services) = (Arc::clone(&live.shape), live.services);
                self.journal.wish(Wish { shape, services, origin: None, created: now });
            }
        } else {
            self.journal.recorded = newest.map(|shape| (shape, None));
        }
    }

    /// Somebody else may have written: what is known of revisions is read again.
    pub(crate) fn forget(&mut self) {
        self.journal.forget();
        self.shapes.clear();
        self.unreadable.clear();
    }

    /// Takes over what is known to have been released: another process has published.
    pub(crate) fn set_releases(&mut self, releases: Vec<Event>) {
        self.journal.releases = releases;
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

    /// The same.
    pub(crate) fn wave(&self) -> Option<&Wave> {
        self.wave.as_ref()
    }

    /// The wave that is under way.
    pub(crate) fn wave_mut(&mut self) -> Option<&mut Wave> {
        self.wave.as_mut()
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
        // A sink that is away is asked again soon; what is damaged stays so, mostly.
        if matches!(error, RevisionError::Damaged { .. }) {
            self.unreadable.insert(number, (error.to_string(), Instant::now() + READ_AGAIN));
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

    /// Whether the publication in flight has another shape than the one before.
    pub(crate) fn changes_shape(&self) -> bool {
        let planned = self.planned.as_ref().map(|(planned, _)| planned.shape.digest());
        planned.is_some() && planned != self.live_digest()
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
        live.revision = live.revision.or_else(|| self.journal.newest_is(digest));
        self.journal.release(Event {
            revision: live.revision,
            digest: digest.to_string(),
            sequence: now.head.sequence,
            epoch: now.head.epoch,
            at: Time(at),
            reason: why.to_owned(),
        });
        if live.revision.is_none() {
            let (shape, services) = (Arc::clone(&live.shape), live.services);
            let origin = self.origin.clone().filter(|_| why == "Promoted");
            self.journal.wish(Wish { shape, services, origin, created: at });
        }
        if let (Some(before), Some(was)) = (before, was) {
            let (digest, head) = (was.shape.digest(), before.head.clone());
            self.journal.replaced(Last { digest, head, chunks: before.names().collect() });
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
        if !waits || self.journal.catalog.is_none() {
            return false;
        }
        let (shape, services, origin) = match proof {
            None if self.journal.newest_digest() != Some(bundle.wanted().digest()) => {
                (Arc::new(bundle.wanted().clone()), bundle.wanted_services(), None)
            }
            Some(Proof::Proved { shape, services, origin })
                if self.journal.newest_digest() != Some(shape.digest()) =>
            {
                (Arc::clone(shape), *services, Some(origin.clone()))
            }
            _ => return false,
        };
        self.journal.wish(Wish { shape, services, origin, created: now });
        true
    }

    /// A shape to be written down next. [`Release::recorded`] must follow.
    pub(crate) fn recording(&mut self) -> Option<Recording> {
        self.journal.recording()
    }

    /// Takes note of what came of a recording.
    pub(crate) fn recorded(&mut self, result: Result<Recorded, PublishError>) -> Result<(), PublishError> {
        let (number, digest) = self.journal.recorded(result)?;
        if let Some(live) = &mut self.live
            && live.revision.is_none()
            && live.shape.digest().to_string() == digest
        {
            live.revision = Some(number);
        }
        Ok(())
    }

    /// A last bundle to be noted next, at this revision. [`Release::noted`] must follow.
    pub(crate) fn note(&mut self) -> Option<(u64, Last)> {
        self.journal.note()
    }

    /// Takes note of what came of it.
    pub(crate) fn noted(
        &mut self,
        number: u64,
        result: Result<LastBundle, SinkError>,
    ) -> Result<(), SinkError> {
        self.journal.noted(number, result)?;
        self.exact = self.exact.take().filter(|(known, ..)| *known != number);
        Ok(())
    }

    /// Whether there may be revisions that nobody needs any more: after each new one.
    pub(crate) fn may_prune(&mut self) -> bool {
        self.journal.may_prune()
    }

    /// Whether everything is written down.
    pub(crate) fn is_idle(&self) -> bool {
        self.journal.is_idle()
    }

    /// Revisions that nobody needs any more. `running` are the positions that nodes report.
    pub(crate) fn obsolete(&mut self, asked: &Asked, running: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        self.journal.obsolete(asked, self.live_revision(), running)
    }

    /// What a status says of it.
    pub(crate) fn told(&self, asked: &Asked) -> Released {
        Released::of(self, asked)
    }
}
