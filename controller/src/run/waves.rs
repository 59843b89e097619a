//! Waves in the loop: a pool's second bundle, as long as a new shape is on its way over the nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use rulecast_bundle::{Key, Replica, Value, next_of};
use rulecast_compiler::Live;

use super::Controller;
use super::jobs::Done;
use super::pool::PoolState;
use crate::sink::Sink;
use crate::status::StatusWriter;

/// The second bundle's sequences are this far above the first one's, so that a node which changes over sees a higher one. Before
/// the first one has come half as near, it goes up again.
const ABOVE: u64 = 1 << 16;

impl<S: Sink, W: StatusWriter> Controller<S, W> {
    /// Keeps the second bundle of a pool in line with its wave.
    pub(super) fn step_wave(&mut self, name: &str) {
        let next = next_of(name);
        let Some(wave) = self.pools.get(name).and_then(|state| state.release.wave()) else {
            if self.pools.contains_key(&next) {
                self.end_wave(name, &next);
            } else if let Some(bundle) = self.world.compiler_mut().pool_mut(name) {
                bundle.set_wave(BTreeSet::new());
            }
            return;
        };
        let (shape, nodes, published) = (Arc::clone(wave.shape()), wave.nodes().clone(), wave.is_published());
        self.begin_wave(name, &next);
        if let Some(bundle) = self.world.compiler_mut().pool_mut(&next) {
            bundle.set_live(Live::Fixed(shape));
            bundle.set_wave(nodes.clone());
        }
        // Nobody is sent to a bundle that is not there.
        if published && let Some(bundle) = self.world.compiler_mut().pool_mut(name) {
            bundle.set_wave(nodes);
        }
        self.world.compile();
        self.note_wave(name, &next);
    }

    fn begin_wave(&mut self, name: &str, next: &str) {
        if self.pools.contains_key(next) {
            return;
        }
        let Some(config) = self.world.pools().get(name).cloned() else { return };
        tracing::info!(pool = name, "a new shape goes over the nodes in waves");
        self.number += 1;
        let state = PoolState::new(next, self.number, &config, &self.options, self.gate.clone());
        self.pools.insert(next.to_owned(), state);
        self.world.set_wave(name, true);
        self.world.compile();
    }

    /// Tells the wave from which position on its nodes have the shape, and keeps sequences apart.
    fn note_wave(&mut self, name: &str, next: &str) {
        let Some(own) = self.pools.get(name).and_then(|state| state.publisher.published()) else { return };
        let (epoch, sequence) = (own.head.epoch, own.head.sequence);
        let compiled = self.world.compiler().pools().find(|(pool, _)| *pool == next);
        let Some((state, (_, bundle))) = self.pools.get_mut(next).zip(compiled) else { return };
        state.publisher.set_epoch(epoch);
        let head =
            state.publisher.published().map(|published| (published.head.epoch, published.head.sequence));
        let near = head.is_none_or(|(_, highest)| highest < sequence + ABOVE / 2);
        state.publisher.set_above(if near { sequence + ABOVE } else { 0 });
        let in_step = state.publisher.in_step() && !bundle.has_changes() && !state.busy() && !near;
        if let (true, Some(position)) = (in_step, head)
            && let Some(wave) = self.pools.get_mut(name).and_then(|state| state.release.wave_mut())
        {
            wave.published(position);
        }
    }

    /// Calls the nodes back, and then takes the second bundle away.
    fn end_wave(&mut self, name: &str, next: &str) {
        let highest = self.pools.get(next).and_then(|state| state.publisher.published());
        let highest = highest.map_or(0, |published| published.head.sequence);
        let (Some(state), Some(bundle)) =
            (self.pools.get_mut(name), self.world.compiler_mut().pool_mut(name))
        else {
            return;
        };
        // What it publishes now must be above whatever the nodes of the wave have.
        state.publisher.set_above(highest);
        bundle.set_wave(BTreeSet::new());
        if bundle.is_stale() {
            self.world.compile();
        }
        let compiled = self.world.compiler().pools().find(|(pool, _)| *pool == name);
        let back = self.pools.get(name).zip(compiled).is_some_and(|(state, (_, bundle))| {
            let above = state.publisher.published().is_some_and(|own| own.head.sequence > highest);
            above && state.publisher.in_step() && !bundle.has_changes() && !state.busy()
        });
        if !back || self.pools.get(next).is_some_and(PoolState::busy) {
            return;
        }
        tracing::info!(pool = name, "the waves are over");
        self.pools.remove(next);
        self.world.set_wave(name, false);
        self.world.compile();
        let (sink, next) = (Arc::clone(&self.sink), next.to_owned());
        self.chores.spawn(async move {
            if let Err(error) = sink.delete_head(&next).await {
                tracing::warn!(pool = next, %error, "the bundle of a wave could not be deleted; it is tried again");
            }
            Done::Pruned(next, Vec::new())
        });
    }

    /// What is published was read: which nodes it tells to follow the second bundle, they do.
    pub(super) fn found_wave(&mut self, name: &str) {
        let Some((_, replica)) = self.pools.get(name).and_then(|state| state.publisher.found()) else {
            return;
        };
        let nodes = nodes_in_wave(replica);
        if nodes.is_empty() {
            return;
        }
        let Some(parent) = self.world.pool_of_wave(name).map(ToOwned::to_owned) else {
            if let Some(bundle) = self.world.compiler_mut().pool_mut(name) {
                bundle.set_wave(nodes);
            }
            return;
        };
        let digest = self.pools.get(name).and_then(|state| state.release.live_digest());
        let all = self.world.compiler().nodes_of(&parent).count();
        if let Some(wave) = self.pools.get_mut(&parent).and_then(|state| state.release.wave_mut())
            && Some(wave.digest()) == digest
        {
            wave.resume(nodes, all);
        }
    }
}

fn nodes_in_wave(replica: &Replica) -> BTreeSet<String> {
    let facts = replica.bundle().iter().filter_map(|record| match record {
        (Key::Node(_), Value::Node(fact)) if fact.next => Some(fact.name),
        _ => None,
    });
    facts.collect()
}
