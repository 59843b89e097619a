//! Releases in the loop: deciding what is live, and writing down what there is.

use std::sync::Arc;
use std::time::Duration;

use rulecast_api::Origin;
use tokio::time::Instant;

use super::Controller;
use super::jobs::{Done, PoolTask};
use crate::objects::PoolConfig;
use crate::release::{NodeReport, Proof, Trial, Wanting, read_exact, read_revisions, read_shape};
use crate::sink::Sink;
use crate::status::StatusWriter;
use crate::world::World;

/// After revisions could not be read or written.
const AGAIN: Duration = Duration::from_secs(5);

impl<S: Sink, W: StatusWriter> Controller<S, W> {
    /// Decides which shape of a pool shall be live, and starts what that takes. Whether there is one to publish.
    pub(super) fn step_release(&mut self, name: &str) -> bool {
        if self.world.pool_of_wave(name).is_some() {
            return true;
        }
        let Some(config) = self.world.pools().get(name).cloned() else { return false };
        let Some(state) = self.pools.get(name) else { return false };
        // A publication in flight decides what is live.
        if state.busy() || state.publisher.is_unknown() {
            return true;
        }
        let proof = self.proof(name, &config);
        let mut asked = config.asked.clone();
        // Nobody reports to a controller that ends.
        asked.waves = asked.waves.filter(|_| !self.options.once);
        let reports = if asked.waves.is_some() { self.reports_of(name) } else { Vec::new() };
        let fleet: Vec<_> = reports.iter().map(|(node, report)| (node.as_str(), report.as_ref())).collect();
        let (Some(state), Some(bundle)) =
            (self.pools.get_mut(name), self.world.compiler_mut().pool_mut(name))
        else {
            return false;
        };
        let now = (self.options.clock)();
        let wanting = state.release.decide(&asked, bundle, proof.as_ref(), &fleet, now);
        if state.next_wish <= Instant::now() && state.release.record_candidate(bundle, proof.as_ref(), now) {
            state.next_wish = Instant::now() + config.publish_interval;
        }
        self.metrics.released(name, &state.release.told(&config.asked));
        if bundle.is_stale() {
            self.world.compile();
        }
        self.start_chores(name, &config, wanting);
        self.pools.get(name).is_some_and(|state| state.release.may_publish())
    }

    /// The nodes of a pool, with what they say of it.
    fn reports_of(&self, pool: &str) -> Vec<(String, Option<NodeReport>)> {
        let report =
            |node: &str| self.world.reports().get(node).filter(|report| report.pool == pool).cloned();
        self.world.compiler().nodes_of(pool).map(|node| (node.to_owned(), report(node))).collect()
    }

    fn start_chores(&mut self, name: &str, config: &PoolConfig, wanting: Option<Wanting>) {
        let Some(state) = self.pools.get_mut(name).filter(|state| state.chores_from <= Instant::now()) else {
            return;
        };
        let task = || PoolTask { pool: name.to_owned(), number: state.number };
        let sink = Arc::clone(&self.sink);
        if state.release.needs_revisions() {
            if !state.reading {
                state.reading = true;
                let (task, live) = (task(), state.release.live_digest());
                self.chores.spawn(async move {
                    let read = read_revisions(&*sink, &task.pool, live).await;
                    Done::Revisions(task, read)
                });
            }
            return;
        }
        if let Some(wanting) = wanting.filter(|_| !state.reading) {
            state.reading = true;
            let task = task();
            self.chores.spawn(async move {
                match wanting {
                    Wanting::Shape(spec) => {
                        let read = read_shape(&*sink, &spec).await;
                        Done::ShapeRead(task, spec.number, read.map(Arc::new))
                    }
                    Wanting::Exact(number, last) => {
                        let read = read_exact(&*sink, &task.pool, number, &last).await;
                        Done::ExactRead(task, number, read)
                    }
                }
            });
            return;
        }
        if let Some(recording) = state.release.recording() {
            let task = task();
            self.chores.spawn(async move { Done::Recorded(task, recording.write(&*sink).await) });
        } else if let Some((number, last)) = state.release.note() {
            let (task, gate) = (task(), self.gate.clone());
            self.chores.spawn(async move {
                let noted = last.write(&*sink, &task.pool, number, gate).await;
                Done::Noted(task, number, noted)
            });
        } else if state.release.may_prune() {
            let reports = self.world.reports().values().filter(|report| report.pool == name && !report.next);
            let obsolete = state.release.obsolete(&config.asked, reports.map(|report| report.position));
            if obsolete.is_empty() {
                return;
            }
            let pool = name.to_owned();
            self.chores.spawn(async move {
                for number in &obsolete {
                    if let Err(error) = sink.delete_revision(&pool, *number).await {
                        tracing::warn!(pool, revision = number, %error, "an old revision could not be deleted");
                    }
                }
                Done::Pruned(pool, obsolete)
            });
        }
    }

    /// What the pool that this one follows has shown; none: it follows no other.
    fn proof(&mut self, name: &str, config: &PoolConfig) -> Option<Proof> {
        let promotion = config.asked.promotion.as_ref()?;
        let (from, soak) = (promotion.from.as_str(), promotion.soak);
        let unproved =
            |why: String| Some(Proof::Unproved(None, format!("RulePool {from}, which it follows: {why}")));
        let Some(other) = self.world.pools().get(from) else {
            return unproved("there is none of that name".to_owned());
        };
        if other.pool.options.mode != config.pool.options.mode {
            return unproved(format!("it has mode {}", other.pool.options.mode));
        }
        let Some((shape, trial)) = self.trial(from) else {
            return unproved("nothing is published for it yet".to_owned());
        };
        let (digest, services) = (shape.digest(), shape.services());
        let revision = self.pools[from].release.live_revision();
        let trouble = trial_of(&self.world, from, trial);
        let state = self.pools.get_mut(name)?;
        // A pool that has nothing yet has nothing to lose.
        let proved = state.release.live_digest().is_none_or(|live| live == digest)
            || state.soak.look(digest, trouble.clone(), soak, Instant::now()).is_ok();
        if proved {
            let origin = Origin { pool: from.to_owned(), revision };
            return Some(Proof::Proved { shape, services, origin });
        }
        let why = state.soak.look(digest, trouble, soak, Instant::now()).err().unwrap_or_default();
        Some(Proof::Unproved(
            Some(digest),
            format!("its shape has to prove itself in RulePool {from} first: {why}"),
        ))
    }

    /// A pool's live shape, and from which position on its nodes have it.
    fn trial(&self, pool: &str) -> Option<(Arc<rulecast_bundle::Shape>, (u64, u64))> {
        let state = self.pools.get(pool)?;
        let shape = Arc::clone(state.release.live_shape()?);
        let published = state.publisher.published()?;
        let now = (published.head.epoch, published.head.sequence);
        Some((shape, state.release.live_since().unwrap_or(now)))
    }

    /// When a pool's releases have to be looked at again, if nothing happens before.
    pub(super) fn release_deadline(&self, name: &str) -> Option<Instant> {
        let (state, config) = (self.pools.get(name)?, self.world.pools().get(name)?);
        let now = Instant::now();
        let soak = config.asked.promotion.as_ref().and_then(|p| state.soak.deadline(p.soak));
        let exact = config.asked.exact.and_then(|exact| {
            let left = exact.until.duration_since((self.options.clock)());
            Duration::try_from(left).ok().map(|left| now + left)
        });
        let again = Some(state.chores_from);
        let wave = config.asked.waves.and_then(|pause| state.release.wave()?.deadline(pause));
        [soak, exact, again, wave].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Takes note of what came of a chore of a pool's releases.
    pub(super) fn released(&mut self, done: Done) {
        let (Done::Revisions(task, _)
        | Done::ShapeRead(task, ..)
        | Done::ExactRead(task, ..)
        | Done::Recorded(task, _)
        | Done::Noted(task, ..)) = &done
        else {
            return;
        };
        let Some(state) = self.pools.get_mut(&task.pool).filter(|state| state.number == task.number) else {
            return;
        };
        let now = (self.options.clock)();
        let failed = match done {
            Done::Revisions(_, read) => {
                state.reading = false;
                read.map(|revisions| state.release.adopt(revisions, now)).err().map(|e| e.to_string())
            }
            Done::ShapeRead(_, number, read) => {
                state.reading = false;
                state.release.read(number, read)
            }
            Done::ExactRead(_, number, read) => {
                state.reading = false;
                state.release.read_exact(number, read)
            }
            Done::Recorded(_, recorded) => state.release.recorded(recorded).err().map(|e| e.to_string()),
            Done::Noted(_, number, noted) => state.release.noted(number, noted).err().map(|e| e.to_string()),
            _ => None,
        };
        if let Some(error) = failed {
            state.chores_from = Instant::now() + AGAIN;
            let pool = state.publisher.pool();
            tracing::warn!(pool, error, "revisions could not be read or written; it is tried again");
        }
    }
}

/// What keeps a shape from having proved itself on a pool's nodes.
fn trial_of(world: &World, pool: &str, position: (u64, u64)) -> Option<String> {
    let report = |node: &str| world.reports().get(node).filter(|report| report.pool == pool);
    let nodes = world.compiler().nodes_of(pool).map(|node| (node, report(node))).collect();
    Trial { nodes, position, next: false }.trouble()
}
