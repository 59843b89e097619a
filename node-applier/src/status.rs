//! What the node knows of itself: for health checks, metrics and its RuleNode.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rulecast_bundle::{Head, Mode, is_next};
use serde::Serialize;

use crate::metrics::Metrics;

/// A problem that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A CamelCase word.
    pub reason: &'static str,
    /// For people: the object, the cause and the next step.
    pub message: String,
    /// Since when.
    #[serde(skip)]
    pub since: SystemTime,
    /// The version that could not be applied, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// A shape that is kept on this node, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// A CamelCase word.
    pub reason: &'static str,
    /// What is different from the pool's bundle, for people.
    pub message: String,
    /// Since when.
    pub since: SystemTime,
}

/// The node's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The version in force.
    pub head: Option<Head>,
    /// The proxy mode that is in the kernel.
    pub mode: Option<Mode>,
    /// When it was applied.
    pub applied_at: Option<SystemTime>,
    /// It was loaded from disk, and the source has not been heard since.
    pub restored: bool,
    /// Why a newer version, or a repair, is not in force.
    pub problem: Option<Problem>,
    /// The name of its bundle: the pool's, or in a wave that of the pool's next shape.
    pub bundle: Option<String>,
    /// What is kept on this node instead of what is published.
    pub held: Option<Held>,
    /// How many nodes the pool has.
    pub nodes: usize,
    /// The node is being drained: load balancers should go elsewhere.
    pub draining: bool,
    /// The kernel holds the version in force.
    pub in_step: bool,
    /// Since when it does not, although it did.
    pub out_of_step: Option<SystemTime>,
}

/// As long as that the rules may be out of step before load balancers hear of it: those in force still serve, and a
/// version that no kernel takes would drain every node in the same second. kube-proxy waits for as long (2 x syncPeriod).
const GRACE: Duration = Duration::from_mins(1);

/// State and counters, shared with the HTTP server.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<(State, Metrics)>>);

impl Shared {
    /// Locks both. Held for moments only, never over I/O.
    pub fn lock(&self) -> MutexGuard<'_, (State, Metrics)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a problem; the time of the first occurrence stays.
    pub fn fail(&self, reason: &'static str, message: String, sequence: Option<u64>) {
        let (state, _) = &mut *self.lock();
        let since = match &state.problem {
            Some(known) if known.reason == reason && known.sequence == sequence => known.since,
            _ => SystemTime::now(),
        };
        state.problem = Some(Problem { reason, message, since, sequence });
    }
}

impl State {
    /// Takes note of whether the kernel holds the version in force.
    pub fn set_in_step(&mut self, in_step: bool) {
        if in_step {
            self.out_of_step = None;
        } else if self.in_step {
            self.out_of_step = Some(SystemTime::now());
        }
        self.in_step = in_step;
    }

    /// Whether the version in force is of the pool's next shape: the node is in a wave.
    #[must_use]
    pub fn is_next(&self) -> bool {
        self.bundle.as_deref().is_some_and(is_next)
    }

    /// Whether the proxy does its work: rules are in the kernel, and writing them has not failed for a minute. A source that
    /// is away changes nothing, and whether the node is being drained is not asked, as with kube-proxy's
    /// `serviceProxyHealthy`.
    #[must_use]
    pub fn proxy_healthy(&self) -> bool {
        let for_long = |since: SystemTime| since.elapsed().map_or(true, |out| out >= GRACE);
        self.in_step || self.out_of_step.is_some_and(|since| !for_long(since))
    }

    /// Whether /healthz says 200: the proxy does its work, and load balancers may send this node new connections.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.proxy_healthy() && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_is_forgiven_for_a_while_and_no_rules_are_not() {
        let mut state = State::default();
        state.set_in_step(false);
        assert!(!state.healthy(), "there are no rules yet");
        state.set_in_step(true);
        state.set_in_step(false);
        assert!(state.healthy(), "those in force serve");
        state.out_of_step = Some(SystemTime::now() - GRACE);
        state.set_in_step(false);
        assert!(!state.healthy(), "it still fails");
        state.set_in_step(true);
        assert!(state.healthy());
    }
}
