//! Random histories of the whole publication path, controller to kernel, in one process and on a virtual clock.
//!
//! **The model.** Two controllers and three nodes run the code that they run in earnest: `run::Controller` with its
//! publisher and its garbage collection, and `run::Runner` with applier, replica, view and store. Around them stand fakes:
//! the API server (`api_server`, asked by `requests` through `sink` and `source`), the cluster's objects and how
//! controllers hear of them (`cluster`, `feed`), an election (`controllers`), and machines whose kernel and disk
//! outlive the node's program (`machine`, `kernel`, `node`). One thread, a paused clock and one seed: everything
//! random comes from `fastrand`'s generator of the thread, so a seed tells the same `history` again, event by event
//! (`trace`). Three times differ from earnest ones: chunks are kept for [`KEEP_CHUNKS`], a node reads for
//! [`PATIENCE`], and two controllers lead at a time for at most 8 s.
//!
//! **The faults** (`faults`; half of them do not come in a given history): requests and answers that are lost, slow, or
//! arrive up to 16 s after their sender gave up or died; an API server that is away; clients that cannot reach it for longer
//! than chunks are kept; chunks altered on the way; watches that break, lag, repeat, or have to list again, and lists that are
//! old; nobody or two who lead; programs killed while they wait, and a node's between any two steps of its work; disks that
//! refuse a write in the middle, cannot be read, or are lost; kernels that refuse a transaction, lose everything with a
//! reboot, or are changed by others; people who edit a head or delete a chunk; objects that cannot be read.
//! A controller's reads are never old: they are quorum reads.
//!
//! **What is promised** (`invariants`, `machine`; checked whenever something changes):
//!
//! 1. A node never goes back, also not by a restart as long as its disk has not failed: then at least the version that it
//!    last wrote there is in force again. (Killed between the kernel's commit and the disk's write, it begins one version
//!    earlier.)
//! 2. A kernel holds one published version, whole; and what a node says is in force was published, and is in its kernel.
//! 3. Heads only go on, and each leads to its content: by the delta, by the deltas since the checkpoint, and by the
//!    checkpoint. Nothing that a head leads to is deleted before [`KEEP_CHUNKS`] have gone by since the last such head.
//! 4. A publication is never what the one before was, unless that one was, or seemed, damaged.
//! 5. When the faults end, everything comes within [`CONVERGED_WITHIN`] to what a fresh compile of the objects gives, and
//!    stays there.
//! 6. Then chunks that nothing names go away. (Those of a pool without a head stay: they tell its next one how far it was.)
//! 7. No program ends by itself.

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
