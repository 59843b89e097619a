//! One pool in the loop.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::RunOptions;
use crate::metrics::Metrics;
use crate::publisher::{Gate, Outcome, Pace, PublishError, Publisher, Rotated, Shrink};

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
    pub(super) refused: Option<Shrink>,
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
    pub(super) fn new(name: &str, number: u64, interval: Duration, options: &RunOptions, gate: Gate) -> Self {
        Self {
            number,
            publisher: Publisher::new(name)
                .limits(options.limits)
                .allow_shrink(options.allow_shrink)
                .gate(gate),
            pace: Pace::new(interval),
            job: None,
            rotation: None,
            was_in_step: false,
            since: None,
            refused: None,
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
        self.accept(metrics);
        if let Some(published) = self.publisher.published() {
            metrics.in_force(self.publisher.pool(), published);
        }
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

    pub(super) fn accept(&mut self, metrics: &Metrics) {
        if self.refused.take().is_some() {
            metrics.refused(self.publisher.pool(), false);
        }
    }

    pub(super) fn refuse(&mut self, shrink: Shrink, metrics: &Metrics) {
        metrics.refused(&shrink.pool, true);
        // One by one they may go, and come back.
        if self.refused.as_ref().is_none_or(|before| before.sequence != shrink.sequence) {
            tracing::error!(reason = %shrink, "nothing is published");
        }
        self.refused = Some(shrink);
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
