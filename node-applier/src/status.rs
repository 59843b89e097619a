//! What the node knows of itself: for health checks, metrics and its RuleNode.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rulecast_bundle::Head;
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

/// The node's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The version in force.
    pub head: Option<Head>,
    /// When it was applied.
    pub applied_at: Option<SystemTime>,
    /// It was loaded from disk, and the source has not been heard since.
    pub restored: bool,
    /// Why a newer version, or a repair, is not in force.
    pub problem: Option<Problem>,
    /// The node is being drained: load balancers should go elsewhere.
    pub draining: bool,
    /// The kernel holds the version in force.
    pub in_step: bool,
}

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
    /// Whether the proxy does its work: rules are in the kernel, and the last attempt to write them did not fail. A source
    /// that is away changes nothing, and whether the node is being drained is not asked, as with kube-proxy's
    /// `serviceProxyHealthy`.
    #[must_use]
    pub fn proxy_healthy(&self) -> bool {
        self.in_step
    }

    /// Whether /healthz says 200: the proxy does its work, and load balancers may send this node new connections.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.proxy_healthy() && !self.draining
    }
}
