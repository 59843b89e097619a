//! What runs beside the loop: reading, writing and deleting.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, RunError, Summary};
use crate::garbage::{Garbage, Named};
use crate::publisher::{Found, Next, PublishError, Rotated, WriteError, Written, load};
use crate::sink::Sink;
use crate::status::StatusWriter;

/// A publication in flight is given this long when the process is told to end.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a task came to.
pub(super) enum Done {
    Loaded(PoolTask, Result<Found, PublishError>),
    Written(PoolTask, Instant, Option<Instant>, Result<Written, WriteError>),
    Rotated(PoolTask, Result<Rotated, PublishError>),
    Collected(Garbage, Result<usize, PublishError>),
    Reported(String, Result<(), String>),
}

/// For which pool a task works. Its number tells it from an earlier one of the same name.
pub(super) struct PoolTask {
    pool: String,
    number: u64,
}

impl<S: Sink, W: StatusWriter> Controller<S, W> {
    /// Starts what is due for a pool.
    pub(super) fn step_pool(&mut self, name: &str) -> Result<(), RunError> {
        let (Some(state), Some(bundle)) =
            (self.pools.get_mut(name), self.world.compiler_mut().pool_mut(name))
        else {
            return Ok(());
        };
        let next = state.publisher.next(bundle);
        if next == Next::Rest && !state.busy {
            state.rest(&self.metrics);
        }
        if !state.busy
            && state.may_rotate()
            && let Some(rotation) = state.publisher.rotation(bundle)
        {
            let task = PoolTask { pool: name.to_owned(), number: state.number };
            let sink = Arc::clone(&self.sink);
            self.chores.spawn(async move { Done::Rotated(task, rotation.write(&*sink).await) });
        }
        if next == Next::Rest || state.busy || state.pace.next() > Instant::now() {
            return Ok(());
        }
        let task = PoolTask { pool: name.to_owned(), number: state.number };
        let sink = Arc::clone(&self.sink);
        if next == Next::Load {
            state.busy = true;
            self.jobs.spawn(async move {
                let found = load(&*sink, &task.pool).await;
                Done::Loaded(task, found)
            });
            return Ok(());
        }
        let allowed = self.world.pools().get(name).and_then(|config| config.allow_shrink);
        let Some(bundle) = self.world.compiler_mut().pool_mut(name) else { return Ok(()) };
        match state.publisher.plan(bundle, allowed) {
            Err(shrink) if self.options.once => return Err(PublishError::from(shrink).into()),
            Err(shrink) => state.refuse(shrink, &self.metrics),
            Ok(None) => state.rest(&self.metrics),
            Ok(Some(plan)) => {
                state.accept(&self.metrics);
                state.busy = true;
                let (began, since) = (Instant::now(), state.since.take());
                self.jobs.spawn(async move {
                    let written = plan.write(&*sink).await;
                    Done::Written(task, began, since, written)
                });
            }
        }
        Ok(())
    }

    /// Takes note of what a task came to.
    pub(super) fn finish(&mut self, done: Done) -> Result<(), RunError> {
        let (task, result) = match done {
            Done::Reported(pool, result) => {
                self.reports.written(&pool, result);
                return Ok(());
            }
            Done::Collected(garbage, result) => {
                self.garbage = Some(garbage);
                match result {
                    Ok(number) => self.metrics.deleted_chunks(number),
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
                    state.busy = false;
                    state.publisher.adopt(found);
                }
                return Ok(());
            }
            Done::Loaded(task, Err(error)) => (task, Err(error)),
            Done::Written(task, began, since, written) => {
                let bundle = self.world.compiler_mut().pool_mut(&task.pool);
                let state = self.pools.get_mut(&task.pool).filter(|s| s.number == task.number);
                let (Some(bundle), Some(state)) = (bundle, state) else { return Ok(()) };
                let result = state.publisher.settle(written, bundle);
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
        state.busy = false;
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
        let every = (self.options.keep_chunks / 4).clamp(Duration::from_millis(100), Duration::from_mins(1));
        self.next_collection = Instant::now() + every;
        let known = self.pools.values().all(|pool| pool.publisher.published().is_some());
        let (true, Some(guard)) = (known, self.gate.try_close()) else { return };
        let Some(mut garbage) = self.garbage.take() else { return };
        let mut named = Named::default();
        for (name, published) in self.pools.iter().filter_map(|(n, p)| Some((n, p.publisher.published()?))) {
            named.heads.insert(name.clone(), (published.head.epoch, published.head.sequence));
            named.chunks.extend(published.names());
        }
        let sink = Arc::clone(&self.sink);
        self.chores.spawn(async move {
            let result = garbage.collect(&*sink, named).await;
            drop(guard);
            Done::Collected(garbage, result)
        });
    }

    /// Waits for the publication in flight. Another controller waits for this one's end, so the rest is broken off.
    pub(super) async fn farewell(mut self) -> Result<Summary, RunError> {
        let until = Instant::now() + FAREWELL;
        if !self.options.once {
            self.chores.abort_all();
        }
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.chores.join_next()).await {
            match done {
                Err(error) if error.is_cancelled() => {}
                done => self.finish(done?)?,
            }
        }
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.jobs.join_next()).await {
            self.finish(done?)?;
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
