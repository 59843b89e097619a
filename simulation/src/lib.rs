//! Random histories of the whole publication path, controller to kernel, in one process and on a virtual clock.

mod api_server;
mod batch;
mod cluster;
mod controllers;
mod faults;
mod feed;
mod history;
mod invariants;
mod kernel;
mod machine;
mod node;
mod requests;
mod sink;
mod source;
mod trace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use api_server::ApiServer;
use cluster::Cluster;
use faults::Faults;
use trace::Trace;

pub use batch::{Failure, run_all};
pub use history::{CONVERGED_WITHIN, Story, run};
pub use trace::{Invariant, Violation};

/// How long chunks are kept in a simulation.
pub const KEEP_CHUNKS: Duration = Duration::from_secs(20);
/// How long a node reads what leads to a version in a simulation: less than chunks are kept, as in earnest.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// What everything in a history shares.
pub(crate) struct Universe {
    pub(crate) trace: Arc<Trace>,
    pub(crate) faults: Faults,
    api: Mutex<ApiServer>,
    cluster: Mutex<Cluster>,
    /// Not a `watch` channel: that wakes those who wait in an order that no seed repeats.
    changed: Notify,
}

impl Universe {
    fn new(trace: Arc<Trace>, api: ApiServer, cluster: Cluster) -> Self {
        let (api, cluster) = (Mutex::new(api), Mutex::new(cluster));
        Self { trace, faults: Faults::new(), api, cluster, changed: Notify::new() }
    }

    /// Held for moments only. A node may be killed while it is held, but only by what reads.
    pub(crate) fn api(&self) -> MutexGuard<'_, ApiServer> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the API server, and tells those who watch.
    pub(crate) fn change<T>(&self, effect: impl FnOnce(&mut ApiServer) -> T) -> T {
        let done = effect(&mut self.api());
        self.wake();
        done
    }

    /// Tells those who watch that something may have changed.
    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for a change after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}
