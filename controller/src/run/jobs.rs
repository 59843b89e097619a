//! What runs beside the loop: reading, writing and deleting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rulecast_bundle::{Bundle, Mode, Shape};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{Controller, RunError, Summary};
use crate::garbage::{self, Collected, Garbage, Named};
use crate::publisher::{Found, Next, PublishError, Publisher, Rotated, WriteError, Written, load};
use crate::release::{Recorded, RevisionError, Revisions};
use crate::sink::{LastBundle, Sink, SinkError, Version};
use crate::status::StatusWriter;

/// A publication in flight is given this long when the process is told to end.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a task came to.
pub(super) enum Done {
    Loaded(PoolTask, Result<Found, PublishError>),
    Written(PoolTask, Instant, Option<Instant>, Result<Written, WriteError>),
    Rotated(PoolTask, Result<Rotated, PublishError>),
    Revisions(PoolTask, Result<Revisions, RevisionError>),
    ShapeRead(PoolTask, u64, Result<Arc<Shape>, RevisionError>),
    ExactRead(PoolTask, u64, Result<(Mode, Arc<Bundle>), RevisionError>),
    Recorded(PoolTask, Result<Recorded, PublishError>),
    Noted(PoolTask, u64, Result<LastBundle, SinkError>),
    Pruned(String, Vec<u64>),
    Collected(Garbage, Result<Collected, PublishError>),
    Reported(String, Result<(), String>),
}

/// For which pool a task works. Its number tells it from an earlier one of the same name.
pub(super) struct PoolTask {
    pub(super) pool: String,
    pub(super) number: u64,
}

impl<S: Sink, W: StatusWriter> Controller<S, W> {
    /// Starts what is due for a pool.
    pub(super) fn step_pool(&mut self, name: &str) -> Result<(), RunError> {
        let released = self.step_release(name);
        self.step_wave(name);
        if !released {
            if let Some(state) = self.pools.get_mut(name) {
                // Nothing waits to be published; what waits to go live is told elsewhere.
                state.was_in_step = true;
                state.look_again(self.options.once);
            }
            return Ok(());
        }
        if self.options.once
            && let Some(shrink) = self.pools.get(name).and_then(|state| state.release.shrink())
        {
            return Err(PublishError::from(shrink.clone()).into());
        }
        let (Some(state), Some(bundle)) =
            (self.pools.get_mut(name), self.world.compiler_mut().pool_mut(name))
        else {
            return Ok(());
        };
        let next = state.publisher.next(bundle);
        if next == Next::Rest && !state.busy() {
            state.rest(&self.metrics);
        }
        if !state.busy()
            && state.may_rotate()
            && let Some(rotation) = state.publisher.rotation(bundle)
        {
            let task = PoolTask { pool: name.to_owned(), number: state.number };
            let sink = Arc::clone(&self.sink);
            let rotation =
                self.chores.spawn(async move { Done::Rotated(task, rotation.write(&*sink).await) });
            state.rotation = Some(rotation);
        }
        if next == Next::Rest || state.busy() || state.pace.next() > Instant::now() {
            return Ok(());
        }
        let task = PoolTask { pool: name.to_owned(), number: state.number };
        let sink = Arc::clone(&self.sink);
        if next == Next::Load {
            state.job = Some(self.jobs.spawn(async move {
                let found = load(&*sink, &task.pool).await;
                Done::Loaded(task, found)
            }));
            return Ok(());
        }
        state.release.plan(bundle);
        match state.publisher.plan(bundle) {
            None => {
                state.release.not_published();
                state.rest(&self.metrics);
            }
            Some(plan) => {
                let (began, since) = (Instant::now(), state.since.take());
                state.job = Some(self.jobs.spawn(async move {
                    let written = plan.write(&*sink).await;
                    Done::Written(task, began, since, written)
                }));
            }
        }
        Ok(())
    }

    /// Takes note of a task that ended; one that was broken off came to nothing.
    pub(super) fn joined(&mut self, done: Result<Done, JoinError>) -> Result<(), RunError> {
        match done {
            Err(error) if error.is_cancelled() => Ok(()),
            done => self.finish(done?),
        }
    }

    /// Takes note of what a task came to.
    fn finish(&mut self, done: Done) -> Result<(), RunError> {
        let (task, result) = match done {
            Done::Pruned(pool, numbers) => {
                tracing::debug!(pool, ?numbers, "old revisions are deleted");
                return Ok(());
            }
            done @ (Done::Revisions(..)
            | Done::ShapeRead(..)
            | Done::ExactRead(..)
            | Done::Recorded(..)
            | Done::Noted(..)) => {
                self.released(done);
                return Ok(());
            }
            Done::Reported(pool, result) => {
                self.reports.written(&pool, result);
                return Ok(());
            }
            Done::Collected(garbage, result) => {
                self.garbage = Some(garbage);
                match result {
                    Ok(Collected { deleted, strayed }) => {
                        self.metrics.deleted_chunks(deleted);
                        self.read_again(&strayed);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "old chunks could not be deleted; it is tried again");
                    }
                }
                return Ok(());
            }
            Done::Rotated(task, result) => {
                if let Some(state) = self.pools.get_mut(&task.pool).filter(|s| s.number == task.number) {
                    state.rotated(result);
                }
                return Ok(());
            }
            Done::Loaded(task, Ok(found)) => {
                if let Some(state) = self.pools.get_mut(&task.pool).filter(|s| s.number == task.number) {
                    state.job = None;
                    state.adopt(found);
                    self.found_wave(&task.pool);
                }
                return Ok(());
            }
            Done::Loaded(task, Err(error)) => (task, Err(error)),
            Done::Written(task, began, since, written) => {
                let bundle = self.world.compiler_mut().pool_mut(&task.pool);
                let state = self.pools.get_mut(&task.pool).filter(|s| s.number == task.number);
                let (Some(bundle), Some(state)) = (bundle, state) else { return Ok(()) };
                let result = state.settle(written, bundle, (self.options.clock)());
                if result.is_err() {
                    // The change that waits longest is still the same.
                    state.since = since.or(state.since);
                }
                (task, result.map(|outcome| (outcome, began, since)))
            }
        };
        let Some(state) = self.pools.get_mut(&task.pool).filter(|s| s.number == task.number) else {
            return Ok(());
        };
        state.job = None;
        match result {
            Ok((outcome, began, since)) => {
                state.succeed(outcome, began, since, &self.metrics);
                Ok(())
            }
            Err(error) if self.options.once && !error.is_conflict() => Err(error.into()),
            Err(error) => {
                state.fail(&error, &self.metrics);
                Ok(())
            }
        }
    }

    /// Starts deleting old chunks, if it is time and no checkpoint is being written.
    pub(super) fn collect(&mut self) {
        if self.next_collection > Instant::now() {
            return;
        }
        self.next_collection = Instant::now() + garbage::every(self.options.keep_chunks);
        let known = |publisher: &Publisher| publisher.published().is_some() || publisher.is_nothing();
        let known = self.pools.values().all(|pool| known(&pool.publisher));
        let (true, Some(guard)) = (known, self.gate.try_close()) else { return };
        let Some(mut garbage) = self.garbage.take() else { return };
        let known =
            self.pools.iter().filter_map(|(n, p)| Some((n.clone(), p.publisher.published()?.known())));
        let named = Named(known.collect());
        let sink = Arc::clone(&self.sink);
        self.chores.spawn(async move {
            let result = garbage.collect(&*sink, named).await;
            drop(guard);
            Done::Collected(garbage, result)
        });
    }

    /// Others may have written a head, a deposed leader's late request or a person: nothing else tells of it, while there
    /// is nothing to publish.
    fn read_again(&mut self, strayed: &BTreeMap<String, Version>) {
        for (name, version) in strayed {
            let Some(state) = self.pools.get_mut(name).filter(|state| !state.busy()) else { continue };
            if state.publisher.published().is_some_and(|published| published.version() == version) {
                tracing::warn!(
                    pool = name,
                    "what is published is not what was published here: it is read again"
                );
                state.publisher.forget();
            }
        }
    }

    /// Waits for the publication in flight. Another controller waits for this one's end, so the rest is broken off.
    pub(super) async fn farewell(mut self) -> Result<Summary, RunError> {
        let until = Instant::now() + FAREWELL;
        if !self.options.once {
            self.chores.abort_all();
        }
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.chores.join_next()).await {
            self.joined(done)?;
        }
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.jobs.join_next()).await {
            self.joined(done)?;
        }
        let mut summary = Summary::default();
        for (name, state) in &self.pools {
            summary.pools.extend(state.publisher.published().map(|p| (name.clone(), p.clone())));
        }
        let objects = self.world.quarantined().iter().map(|(id, problem)| format!("{id}: {problem}"));
        summary.quarantined = objects.collect();
        for (_, bundle) in self.world.compiler().pools() {
            let problems = bundle.problems().iter();
            summary
                .quarantined
                .extend(problems.map(|(service, problem)| format!("Service {service}: {problem}")));
        }
        summary.quarantined.sort();
        summary.quarantined.dedup();
        Ok(summary)
    }
}
