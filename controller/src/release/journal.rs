//! What is on record of a pool: its revisions, and which of them went live when.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rulecast_api::{LastBundle, MAX_RELEASES, Release as Event};
use rulecast_bundle::{Digest, Shape};

use super::Asked;
use super::catalog::Catalog;
use super::record::{Chain, Last, Parent, Recorded, Recording, Wish};
use crate::publisher::{Gate, PublishError};
use crate::sink::{Revision, SinkError};

/// Shapes that wait to be written down, and last bundles. More than that, and old ones are left out.
const QUEUE: usize = 64;

/// What is written down, and what is still to be.
pub(super) struct Journal {
    pool: String,
    gate: Gate,
    /// None: not read yet.
    pub(super) catalog: Option<Catalog>,
    /// The newest revision, for the next one.
    pub(super) recorded: Option<(Arc<Shape>, Option<Chain>)>,
    queue: VecDeque<Wish>,
    recording: bool,
    /// There are more revisions than when it was last looked which are obsolete.
    grown: bool,
    /// Last bundles that are not noted at their revision yet, and whether one is being written.
    lasts: VecDeque<Last>,
    noting: bool,
    /// Newest first.
    pub(super) releases: Vec<Event>,
}

impl Journal {
    pub(super) fn new(pool: &str, gate: Gate, releases: Vec<Event>) -> Self {
        Self {
            pool: pool.to_owned(),
            gate,
            catalog: None,
            recorded: None,
            queue: VecDeque::new(),
            recording: false,
            grown: true,
            lasts: VecDeque::new(),
            noting: false,
            releases,
        }
    }

    /// Somebody else may have written: what is known of revisions is read again.
    pub(super) fn forget(&mut self) {
        self.catalog = None;
        self.queue.clear();
    }

    pub(super) fn number_of(&self, digest: Digest) -> Option<u64> {
        self.catalog.as_ref()?.find(digest)
    }

    /// The number of the newest revision, if it has this shape and no other is about to be written.
    pub(super) fn newest_is(&self, digest: Digest) -> Option<u64> {
        let newest = self.catalog.as_ref()?.newest().filter(|_| self.queue.is_empty())?;
        (newest.digest == digest.to_string()).then_some(newest.number)
    }

    /// The last release, if it was of this shape.
    pub(super) fn last_release(&self, digest: Digest) -> Option<&Event> {
        self.releases.first().filter(|release| release.digest == digest.to_string())
    }

    /// A shape went live.
    pub(super) fn release(&mut self, event: Event) {
        self.releases.insert(0, event);
        self.releases.truncate(MAX_RELEASES);
    }

    /// Another one took its place.
    pub(super) fn replaced(&mut self, last: Last) {
        self.lasts.push_back(last);
        if self.lasts.len() > QUEUE {
            self.lasts.pop_front();
        }
    }

    pub(super) fn newest_digest(&self) -> Option<Digest> {
        let queued = self.queue.back().map(|wish| wish.shape.digest());
        queued.or_else(|| self.catalog.as_ref()?.newest()?.digest.parse().ok())
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        if self.newest_digest() == Some(wish.shape.digest()) {
            return;
        }
        if self.queue.len() >= QUEUE {
            // The first may be under way.
            self.queue.remove(1);
        }
        self.queue.push_back(wish);
    }

    /// A shape to be written down next. [`Journal::recorded`] must follow.
    pub(super) fn recording(&mut self) -> Option<Recording> {
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
    pub(super) fn recorded(
        &mut self,
        result: Result<Recorded, PublishError>,
    ) -> Result<(u64, String), PublishError> {
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
        if let Some(catalog) = &mut self.catalog {
            catalog.add(Revision { spec, last: None });
            self.grown = true;
        }
        Ok((number, digest))
    }

    /// A last bundle to be noted next, at this revision. [`Journal::noted`] must follow.
    pub(super) fn note(&mut self) -> Option<(u64, Last)> {
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
    pub(super) fn noted(
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
        Ok(())
    }

    /// Whether there may be revisions that nobody needs any more: after each new one.
    pub(super) fn may_prune(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// Whether everything is written down.
    pub(super) fn is_idle(&self) -> bool {
        self.catalog.is_some()
            && self.queue.is_empty()
            && self.lasts.is_empty()
            && !self.recording
            && !self.noting
    }

    /// Revisions that nobody needs any more. `running` are the positions that nodes report.
    pub(super) fn obsolete(
        &mut self,
        asked: &Asked,
        live: Option<u64>,
        running: impl Iterator<Item = (u64, u64)>,
    ) -> Vec<u64> {
        let Some(catalog) = &self.catalog else { return Vec::new() };
        let mut keep: BTreeSet<u64> = asked.pinned.into_iter().collect();
        keep.extend(live);
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
        for number in &obsolete {
            catalog.remove(*number);
        }
        obsolete
    }
}
