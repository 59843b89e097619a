//! One pool in the loop.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rulecast_bundle::Shape;
use rulecast_compiler::PoolBundle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::RunOptions;
use crate::metrics::Metrics;
use crate::objects::PoolConfig;
use crate::publisher::{Found, Gate, Outcome, Pace, PublishError, Publisher, Rotated, WriteError, Written};
use crate::release::{Release, Soak};

/// Between two looks whether something is published.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// After a checkpoint could not be written.
const ROTATE_AGAIN: Duration = Duration::from_secs(30);

/// What the loop keeps of a pool.
pub(super) struct PoolState {
    pub(super) number: u64,
    pub(super) publisher: Publisher,
    pub(super) pace: Pace,
    /// The task that reads or publishes, and the one that writes a checkpoint.
    pub(super) job: Option<AbortHandle>,
    pub(super) rotation: Option<AbortHandle>,
    /// What is compiled was published at least once.
    pub(super) was_in_step: bool,
    /// When the oldest event came that is not published yet.
    pub(super) since: Option<Instant>,
    pub(super) release: Release,
    /// How the shape of the pool that this one follows does there.
    pub(super) soak: Soak,
    /// Revisions are being read.
    pub(super) reading: bool,
    /// When it is looked again whether there is something published after all.
    look_from: Instant,
    /// When revisions may be read and written again.
    pub(super) chores_from: Instant,
    /// When the next shape that does not go live may be written down.
    pub(super) next_wish: Instant,
    pub(super) error: Option<String>,
    /// When a checkpoint may be tried again that could not be written.
    rotate_from: Instant,
}

/// A pool that is gone is not published any more, however long that has been under way.
impl Drop for PoolState {
    fn drop(&mut self) {
        self.job.iter().chain(&self.rotation).for_each(AbortHandle::abort);
    }
}

impl PoolState {
    pub(super) fn new(
        name: &str,
        number: u64,
        config: &PoolConfig,
        options: &RunOptions,
        gate: Gate,
    ) -> Self {
        Self {
            number,
            publisher: Publisher::new(name).limits(options.limits).gate(gate.clone()),
            pace: Pace::new(options.publish_interval.unwrap_or(config.publish_interval)),
            release: Release::new(name, options.allow_shrink, gate, config.releases.clone()),
            soak: Soak::default(),
            reading: false,
            look_from: Instant::now() + LOOK_AGAIN,
            chores_from: Instant::now(),
            next_wish: Instant::now(),
            job: None,
            rotation: None,
            was_in_step: false,
            since: None,
            error: None,
            rotate_from: Instant::now(),
        }
    }

    /// What is published is being read or written.
    pub(super) fn busy(&self) -> bool {
        self.job.is_some()
    }

    /// Nothing is left to publish.
    pub(super) fn rest(&mut self, metrics: &Metrics) {
        self.was_in_step = true;
        self.since = None;
        self.error = None;
        if let Some(published) = self.publisher.published() {
            metrics.in_force(self.publisher.pool(), published);
        }
    }

    /// Where nothing is published that can be read, and nothing may be, no publication would notice that there is something: a
    /// deposed leader's late request, or what was damaged on its way. That would be what is held.
    pub(super) fn look_again(&mut self, once: bool) {
        let unread = self.publisher.published().is_none() && !self.publisher.is_unknown();
        if !once && unread && !self.busy() && self.look_from <= Instant::now() {
            self.look_from = Instant::now() + LOOK_AGAIN;
            self.publisher.forget();
        }
    }

    /// What is published was read: it is what is live.
    pub(super) fn adopt(&mut self, found: Found) {
        self.publisher.adopt(found);
        let found = self.publisher.found().map(|(published, replica)| {
            (Shape::of(published.head.mode, replica.bundle()), published.services())
        });
        self.release.found(found, self.publisher.is_damaged());
    }

    /// A publication came to an end.
    pub(super) fn settle(
        &mut self,
        written: Result<Written, WriteError>,
        bundle: &mut PoolBundle,
        now: Timestamp,
    ) -> Result<Outcome, PublishError> {
        let before = self.publisher.published().filter(|_| self.release.changes_shape()).cloned();
        let result = self.publisher.settle(written, bundle);
        match (&result, self.publisher.published()) {
            (Ok(_), Some(published)) => {
                self.release.published(before.as_ref(), published, now);
            }
            _ => self.release.not_published(),
        }
        if result.as_ref().is_err_and(PublishError::is_conflict) {
            self.release.forget();
        }
        result
    }

    /// Another process has published: everything is read again.
    pub(super) fn forget(&mut self, releases: &[rulecast_api::Release]) {
        self.publisher.forget();
        self.release.forget();
        self.release.set_releases(releases.to_vec());
    }

    pub(super) fn may_rotate(&self) -> bool {
        self.rotate_from <= Instant::now()
    }

    pub(super) fn rotated(&mut self, result: Result<Rotated, PublishError>) {
        if let Err(error) = self.publisher.rotated(result) {
            self.rotate_from = Instant::now() + ROTATE_AGAIN;
            let pool = self.publisher.pool();
            tracing::warn!(pool, %error, "a new checkpoint could not be written; it is tried again");
        }
    }

    pub(super) fn succeed(
        &mut self,
        outcome: Outcome,
        began: Instant,
        since: Option<Instant>,
        metrics: &Metrics,
    ) {
        self.pace.succeeded(began);
        self.was_in_step = true;
        self.error = None;
        let pool = self.publisher.pool();
        let (took, lag) = (began.elapsed(), since.map(|since| since.elapsed()));
        metrics.published(pool, &outcome, took, lag);
        if let Some(published) = self.publisher.published() {
            metrics.in_force(pool, published);
        }
        if let Outcome::Published { sequence, changes, delta_bytes, checkpoint_bytes } = outcome {
            tracing::info!(pool, sequence, changes, delta_bytes, checkpoint_bytes, ?took, "published");
        }
    }

    pub(super) fn fail(&mut self, error: &PublishError, metrics: &Metrics) {
        let conflict = error.is_conflict();
        let pool = self.publisher.pool();
        metrics.failed(pool, conflict);
        self.pace.failed(conflict);
        let again = self.pace.next() - Instant::now();
        if conflict {
            tracing::warn!(pool, %error, ?again, "what is published is read again");
        } else {
            tracing::error!(pool, %error, failures = self.pace.failures(), ?again, "nothing was published");
        }
        self.error = Some(error.to_string());
    }
}
