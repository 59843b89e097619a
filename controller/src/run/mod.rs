//! The loop: events in, compile, publish.

mod pool;
mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::garbage::{Garbage, Named};
use crate::http::Readiness;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::objects::ObjectId;
use crate::publisher::{
    Found, Gate, Limits, Next, Outcome, PublishError, Published, Rotated, WriteError, Written, load,
};
use crate::sink::Sink;
use crate::source::Event;
use crate::status::StatusWriter;
use crate::world::World;

use pool::PoolState;
use reports::Reports;

/// How many events are taken before the next compile, at most.
const BATCH: usize = 4096;
/// Events that keep coming delay a compile by this much, at most.
const DRAIN: Duration = Duration::from_millis(50);
/// A publication in flight is given this long when the process is told to end.
const FAREWELL: Duration = Duration::from_secs(20);

/// How the loop behaves.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Ends when everything has been published once.
    pub once: bool,
    /// Instead of the pools' own intervals.
    pub publish_interval: Option<Duration>,
    /// Lets publications through that lose many Services.
    pub allow_shrink: bool,
    /// When deltas go inline and checkpoints are due.
    pub limits: Limits,
    /// How long chunks stay after the last head let go of them.
    pub keep_chunks: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            once: false,
            publish_interval: None,
            allow_shrink: false,
            limits: Limits::default(),
            keep_chunks: Duration::from_mins(10),
        }
    }
}

/// Why the loop ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A source ended, which it never does by itself.
    #[error("the source of events has ended")]
    SourceEnded,
    /// The election of the one that publishes ended, which it never does by itself.
    #[error("the election of a leader has ended")]
    ElectionEnded,
    /// A task panicked.
    #[error("a task of the controller failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// With `once`: it could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What was there at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By pool: what is published.
    pub pools: BTreeMap<String, Published>,
    /// Objects and files that could not be used, and Services of which something was left out, and why.
    pub quarantined: Vec<String>,
}

/// What a task came to.
enum Done {
    Loaded(PoolTask, Result<Found, PublishError>),
    Written(PoolTask, Instant, Option<Instant>, Result<Written, WriteError>),
    Rotated(PoolTask, Result<Rotated, PublishError>),
    Collected(Garbage, Result<usize, PublishError>),
    Reported(String, Result<(), String>),
}

/// For which pool a task works. Its number tells it from an earlier one of the same name.
struct PoolTask {
    pool: String,
    number: u64,
}

/// Compiles and publishes.
pub struct Controller<S, W> {
    world: World,
    sink: Arc<S>,
    options: RunOptions,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    pools: BTreeMap<String, PoolState>,
    /// Pools so far.
    number: u64,
    gate: Gate,
    garbage: Option<Garbage>,
    next_collection: Instant,
    reports: Reports<W>,
    jobs: JoinSet<Done>,
    leadership: Leadership,
    leading: bool,
    /// When the oldest event came that is not compiled yet.
    since: Option<Instant>,
}

impl<S: Sink, W: StatusWriter> Controller<S, W> {
    /// A controller that has seen nothing yet.
    pub fn new(
        world: World,
        sink: S,
        status: W,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        options: RunOptions,
    ) -> Self {
        Self {
            world,
            sink: Arc::new(sink),
            garbage: Some(Garbage::new(options.keep_chunks)),
            next_collection: Instant::now(),
            options,
            metrics,
            readiness,
            pools: BTreeMap::new(),
            number: 0,
            gate: Gate::default(),
            reports: Reports::new(status),
            jobs: JoinSet::new(),
            leadership: Leadership::always(),
            leading: false,
            since: None,
        }
    }

    /// Publishes only while it leads; otherwise it stands by with everything compiled.
    #[must_use]
    pub fn with_leadership(mut self, leadership: Leadership) -> Self {
        self.leadership = leadership;
        self
    }

    /// Runs until `stop`, and then finishes the publication in flight.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Summary, RunError> {
        tokio::pin!(stop);
        let mut batch = Vec::new();
        self.lead();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = &mut stop => break,
                changed = self.leadership.changed() => {
                    changed.map_err(|_| RunError::ElectionEnded)?;
                    self.lead();
                }
                Some(done) = self.jobs.join_next() => self.finish(done?)?,
                number = events.recv_many(&mut batch, BATCH) => {
                    if number == 0 {
                        return Err(RunError::SourceEnded);
                    }
                    self.take(&mut batch, &mut events);
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
            if self.world.is_synced() {
                self.step()?;
                if self.options.once && self.is_done() {
                    break;
                }
            }
        }
        self.farewell().await
    }

    /// Takes note of who leads.
    fn lead(&mut self) {
        let leads = self.leadership.leads();
        if leads == self.leading {
            return;
        }
        self.leading = leads;
        self.metrics.leader(leads);
        if leads {
            tracing::info!("leading: this process publishes");
            // Another one has published in the meantime.
            self.pools.values_mut().for_each(|state| state.publisher.forget());
        } else {
            tracing::warn!("no longer leading: another process publishes");
        }
    }

    fn take(&mut self, batch: &mut Vec<Event>, events: &mut mpsc::Receiver<Event>) {
        let began = *self.since.get_or_insert_with(Instant::now);
        loop {
            self.metrics.events(batch.len());
            batch.drain(..).for_each(|event| self.world.apply(event));
            // Everything there is belongs to one compile, but a storm of events may not hold it up.
            while batch.len() < BATCH
                && let Ok(event) = events.try_recv()
            {
                batch.push(event);
            }
            if batch.is_empty() {
                return;
            }
            if self.world.is_synced() && began.elapsed() > DRAIN {
                batch.drain(..).for_each(|event| self.world.apply(event));
                return;
            }
        }
    }

    /// Compiles what is new and starts what is due.
    fn step(&mut self) -> Result<(), RunError> {
        if self.world.is_dirty() {
            self.compile();
        }
        if !self.leading {
            // Compiled and waiting is all that a second one can be.
            self.readiness.ready();
            return Ok(());
        }
        let names: Vec<String> = self.pools.keys().cloned().collect();
        for name in names {
            self.step_pool(&name)?;
        }
        let settled = self.pools.values().all(|pool| pool.was_in_step);
        if settled && !self.readiness.is_ready() {
            tracing::info!(pools = self.pools.len(), "everything is read, compiled and published");
            self.readiness.ready();
        }
        self.collect();
        let pools = &self.pools;
        self.reports.write_due(&self.world, |name| pools.get(name), &mut self.jobs);
        Ok(())
    }

    fn compile(&mut self) {
        let began = Instant::now();
        self.world.compile();
        self.metrics.compiled(began.elapsed());
        self.metrics.synced();
        self.metrics.quarantined(self.world.quarantined().keys().map(|id: &ObjectId| id.kind));
        let since = self.since.take();
        let (world, metrics) = (&self.world, &self.metrics);
        self.pools.retain(|name, _| {
            let known = world.pools().contains_key(name);
            if !known {
                // Its nodes run on with what they have; only its RuleBundle's owner may decide otherwise.
                tracing::warn!(
                    pool = name,
                    "the RulePool is gone: its bundle stays as it is, and is not updated"
                );
                metrics.forget(name);
            }
            known
        });
        for (name, config) in self.world.pools() {
            let interval = self.options.publish_interval.unwrap_or(config.publish_interval);
            let state = self.pools.entry(name.clone()).or_insert_with(|| {
                self.number += 1;
                PoolState::new(name, self.number, interval, &self.options, self.gate.clone())
            });
            state.pace.set_interval(interval);
        }
        for (name, bundle) in self.world.compiler().pools() {
            self.metrics.bundle(name, bundle);
            if let Some(state) = self.pools.get_mut(name)
                && state.publisher.next(bundle) == Next::Publish
            {
                state.since = state.since.or(since);
            }
        }
    }

    fn step_pool(&mut self, name: &str) -> Result<(), RunError> {
        let (Some(state), Some(bundle)) =
            (self.pools.get_mut(name), self.world.compiler_mut().pool_mut(name))
        else {
            return Ok(());
        };
        let next = state.publisher.next(bundle);
        if next == Next::Rest && !state.busy {
            state.rest(&self.metrics);
            if let Some(rotation) = state.publisher.rotation(bundle).filter(|_| state.may_rotate()) {
                state.busy = true;
                let task = PoolTask { pool: name.to_owned(), number: state.number };
                let sink = Arc::clone(&self.sink);
                self.jobs.spawn(async move { Done::Rotated(task, rotation.write(&*sink).await) });
            }
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

    fn finish(&mut self, done: Done) -> Result<(), RunError> {
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
                    state.busy = false;
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
    fn collect(&mut self) {
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
        self.jobs.spawn(async move {
            let result = garbage.collect(&*sink, named).await;
            drop(guard);
            Done::Collected(garbage, result)
        });
    }

    /// When there is something to do, if nothing happens before.
    fn deadline(&self) -> Instant {
        if !self.world.is_synced() || !self.leading {
            return Instant::now() + FAREWELL;
        }
        let pools = self.pools.iter().filter(|(_, state)| !state.busy && state.refused.is_none());
        let due = pools.filter_map(|(name, state)| {
            let bundle = self.world.compiler().pools().find(|(n, _)| n == name)?.1;
            (state.publisher.next(bundle) != Next::Rest).then(|| state.pace.next())
        });
        due.chain([self.next_collection, self.reports.deadline()]).min().unwrap_or(self.next_collection)
    }

    /// Whether nothing is left to publish.
    fn is_done(&self) -> bool {
        !self.world.is_dirty() && self.pools.values().all(|state| state.was_in_step && !state.busy)
    }

    async fn farewell(mut self) -> Result<Summary, RunError> {
        let until = Instant::now() + FAREWELL;
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

/// Whether a publication changed anything, for logs.
fn describe(outcome: &Outcome) -> Option<(u64, usize, usize, Option<usize>)> {
    match *outcome {
        Outcome::Unchanged => None,
        Outcome::Published { sequence, changes, delta_bytes, checkpoint_bytes } => {
            Some((sequence, changes.unwrap_or(0), delta_bytes, checkpoint_bytes))
        }
    }
}
