//! The loop: events in, compile, publish.

mod jobs;
mod options;
mod pool;
mod releases;
mod reports;
mod waves;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::garbage::Garbage;
use crate::http::Readiness;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::objects::ObjectId;
use crate::publisher::{Gate, Next};
use crate::sink::Sink;
use crate::source::Event;
use crate::status::{StatusWriter, uses};
use crate::world::World;

pub use options::{RunError, RunOptions, Summary};

use jobs::Done;
use pool::PoolState;
use reports::Reports;

/// How many events are taken before the next compile, at most.
const BATCH: usize = 4096;
/// Events that keep coming delay a compile by this much, at most.
const DRAIN: Duration = Duration::from_millis(50);
/// Without anything to do, the loop looks again after this long.
const IDLE: Duration = Duration::from_secs(20);

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
    /// Reads and publications.
    jobs: JoinSet<Done>,
    /// What can be broken off at any time: checkpoints, deletions, reports.
    chores: JoinSet<Done>,
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
            chores: JoinSet::new(),
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
                Some(done) = self.jobs.join_next() => self.joined(done)?,
                Some(done) = self.chores.join_next() => self.joined(done)?,
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
            for (name, state) in &mut self.pools {
                let config = self.world.pools().get(name);
                state.forget(config.map_or(&[][..], |config| &config.releases));
            }
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
        self.reports.write_due(&self.world, |name| pools.get(name), &mut self.chores);
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
            let known = world.pools().contains_key(name) || world.pool_of_wave(name).is_some();
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
                PoolState::new(name, self.number, config, &self.options, self.gate.clone())
            });
            state.pace.set_interval(interval);
            state.publisher.set_epoch(config.epoch);
        }
        for (name, bundle) in self.world.compiler().pools() {
            self.metrics.bundle(name, bundle);
            let published = self.pools.get(name).and_then(|state| state.publisher.published());
            self.metrics.used(name, &uses(bundle, published));
            if let Some(state) = self.pools.get_mut(name)
                && state.publisher.next(bundle) == Next::Publish
            {
                state.since = state.since.or(since);
            }
        }
    }

    /// When there is something to do, if nothing happens before.
    fn deadline(&self) -> Instant {
        if !self.world.is_synced() || !self.leading {
            return Instant::now() + IDLE;
        }
        let pools = self.pools.iter().filter(|(_, state)| !state.busy() && state.release.may_publish());
        let due = pools.filter_map(|(name, state)| {
            let bundle = self.world.compiler().pools().find(|(n, _)| n == name)?.1;
            (state.publisher.next(bundle) != Next::Rest).then(|| state.pace.next())
        });
        let releases = self.pools.keys().filter_map(|name| self.release_deadline(name));
        due.chain(releases)
            .chain([self.next_collection, self.reports.deadline()])
            .min()
            .unwrap_or(self.next_collection)
    }

    /// Whether nothing is left to publish.
    fn is_done(&self) -> bool {
        let done = |state: &PoolState| {
            let written_down = state.release.is_idle() || state.chores_from > Instant::now();
            state.was_in_step && !state.busy() && written_down
        };
        !self.world.is_dirty() && self.pools.values().all(done)
    }
}
