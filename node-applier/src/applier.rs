//! From a published version to the kernel: verify, resolve, write, keep.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rulecast_bundle::{Change, Head, Refusal, Replica, Way};
use tracing::{info, warn};

mod held;

use crate::backend::{Applied, Backend, BackendError, Verified};
use crate::flows::Flows;
use crate::hold::{Effective, Hold, Previous};
use crate::store::Store;
use crate::view::{Touched, View};

/// What a version that was applied cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// The kernel's part.
    pub applied: Applied,
    /// From the verified bytes to the kernel, the disk left out.
    pub took: Duration,
    /// Records that changed; none when the whole bundle was replaced.
    pub changes: Option<usize>,
    /// The kernel was written as a whole.
    pub rebuilt: bool,
}

/// Why the kernel does not hold the newest version. It holds the last good one.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The version was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel could not be written.
    #[error("{0}")]
    Kernel(#[from] BackendError),
}

impl ApplyError {
    /// A CamelCase word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Kernel(error) => error.reason(),
        }
    }
}

/// Applies one pool's bundle to one kernel.
pub struct Applier<B> {
    node: String,
    pool: String,
    replica: Replica,
    /// What is kept on this node instead of what is published.
    hold: Option<Hold>,
    /// The last change of the published shape.
    previous: Option<Previous>,
    /// What the disk has of these and cannot be used, in words.
    damage: [Option<String>; 2],
    view: View,
    backend: B,
    store: Option<Store>,
    node_addrs: Vec<IpAddr>,
    /// The UDP flows that may have to move because of what was written.
    flows: Flows,
    /// The kernel holds `view`, and the backend knows it does.
    in_step: bool,
}

impl<B: Backend> Applier<B> {
    /// An applier that knows nothing yet.
    pub fn new(node: &str, pool: &str, backend: B, store: Option<Store>) -> Self {
        let replica = Replica::new(pool);
        let view = View::new(node, replica.bundle());
        let (node, pool) = (node.to_owned(), pool.to_owned());
        Self {
            node,
            pool,
            replica,
            hold: None,
            previous: None,
            damage: [None, None],
            view,
            backend,
            store,
            node_addrs: Vec::new(),
            flows: Flows::default(),
            in_step: false,
        }
    }

    /// The version in force.
    pub fn head(&self) -> Option<&Head> {
        self.replica.head()
    }

    /// The pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The name of the bundle in force: the pool's, or that of its next shape.
    pub fn bundle(&self) -> Option<&str> {
        self.replica.name()
    }

    /// See [`Replica::follow`].
    pub fn follow(&mut self, name: &str) {
        self.replica.follow(name);
    }

    /// The view in force.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The kernel behind it.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// The UDP flows that may have to move because of what was written.
    pub fn flows_mut(&mut self) -> &mut Flows {
        &mut self.flows
    }

    /// See [`View::take_counts_changed`].
    pub fn take_counts_changed(&mut self) -> bool {
        self.view.take_counts_changed()
    }

    /// The node's own addresses.
    pub fn node_addrs(&self) -> &[IpAddr] {
        &self.node_addrs
    }

    /// Whether the kernel holds the version in force.
    pub fn in_step(&self) -> bool {
        self.in_step
    }

    /// See [`Replica::admit`].
    pub fn admit(&self, head: &Head) -> Result<Option<Option<u64>>, Refusal> {
        self.replica.admit(head)
    }

    /// Applies the last good version from disk; none when there is none. A damaged one is reported and passed over.
    pub fn restore(&mut self) -> Result<Option<Report>, ApplyError> {
        self.restore_hold();
        let Some(store) = &mut self.store else { return Ok(None) };
        match store.load(&self.pool) {
            Ok(None) => Ok(None),
            Ok(Some(replica)) => {
                self.replica = replica;
                self.fit_mask();
                self.rebuild().map(Some)
            }
            Err(error) => {
                warn!(%error, "the last good bundle on disk cannot be used; waiting for the source");
                Ok(None)
            }
        }
    }

    /// Writes the whole kernel state of the version in force.
    pub fn rebuild(&mut self) -> Result<Report, ApplyError> {
        let start = Instant::now();
        self.view = self.whole_view();
        let applied = self.rebuild_kernel()?;
        Ok(Report { applied, took: start.elapsed(), changes: None, rebuilt: true })
    }

    /// The view of the version in force, under what is kept instead of it.
    fn whole_view(&self) -> View {
        match &self.hold {
            None => View::new(&self.node, self.replica.bundle()),
            Some(Hold { mask, .. }) => {
                View::new(&self.node, &Effective { published: self.replica.bundle(), mask })
            }
        }
    }

    fn rebuild_kernel(&mut self) -> Result<Applied, BackendError> {
        self.in_step = false;
        let mut result = self.backend.rebuild(&self.view, &self.node_addrs);
        // Others may change the ruleset while ours is being made; that is no reason to give up.
        for _ in 0..5 {
            if !matches!(result, Err(BackendError::Netlink(rulecast_netlink::Error::Changed))) {
                break;
            }
            result = self.backend.rebuild(&self.view, &self.node_addrs);
        }
        self.in_step = result.is_ok();
        if result.is_ok() {
            // Packets may have met other rules than ours, or none.
            self.flows.note_all(&self.view);
        }
        result
    }

    /// Moves to a published version. On an error everything is as before: copy, kernel and disk.
    pub fn offer(&mut self, head: Head, way: Way) -> Result<Report, ApplyError> {
        let start = Instant::now();
        let step = self.replica.advance(head, way)?;
        let mask = self.mask_step(&step);
        let changes = self.effective_changes(&step, mask.as_ref());
        let (applied, rebuilt) = match self.write_kernel(changes.as_deref()) {
            Ok(done) => done,
            Err(error) => {
                self.replica.retreat(step);
                self.set_mask(mask);
                self.view = self.whole_view();
                return Err(error.into());
            }
        };
        let took = start.elapsed();
        self.keep(&step, mask.as_ref());
        let changes = step.changes.as_ref().map(Vec::len);
        Ok(Report { applied, took, changes, rebuilt })
    }

    /// Moves to a published version that has the content in force; none: it has another one. The kernel is not written.
    pub fn adopt(&mut self, head: &Head) -> Result<Option<Report>, ApplyError> {
        let start = Instant::now();
        let Some(step) = self.replica.adopt(head)? else { return Ok(None) };
        let took = start.elapsed();
        self.keep(&step, None);
        Ok(Some(Report { took, changes: Some(0), ..Report::default() }))
    }

    /// Writes what changed of the effective bundle, none: all of it. The view is that of it afterwards, whether the kernel
    /// takes it or not.
    fn write_kernel(&mut self, changes: Option<&[Change]>) -> Result<(Applied, bool), BackendError> {
        let touched = match changes {
            Some(changes) => self.view.apply(changes),
            None => Touched { everything: true, ..Touched::default() },
        };
        if self.in_step && !touched.everything {
            match self.backend.update(&self.view, &touched, &self.node_addrs) {
                Ok(applied) => {
                    self.flows.note(&self.view, touched.targets);
                    return Ok((applied, false));
                }
                Err(error) => {
                    if error.is_full() {
                        info!("a set is full; writing the whole table with larger ones");
                    } else {
                        warn!(%error, "an update failed; writing the whole table instead");
                    }
                    self.in_step = false;
                }
            }
        }
        self.view = self.whole_view();
        Ok((self.rebuild_kernel()?, true))
    }

    /// Looks for what others did to our rules and writes them anew if they did anything, or if the last attempt failed.
    pub fn repair(&mut self) -> Result<Option<(String, Report)>, ApplyError> {
        let found = self.backend.interference()?;
        if self.replica.head().is_none() {
            return Ok(None);
        }
        let why = match found {
            Some(found) => found,
            None if self.in_step => return Ok(None),
            None => "the last attempt to write the rules failed".to_owned(),
        };
        let report = self.rebuild()?;
        Ok(Some((why, report)))
    }

    /// Compares the kernel with what it should hold.
    pub fn verify(&mut self) -> Result<Verified, BackendError> {
        self.backend.verify(&self.view)
    }

    /// Takes note of the node's own addresses, which answer nodePorts.
    pub fn set_node_addrs(&mut self, addrs: Vec<IpAddr>) -> Result<(), ApplyError> {
        if self.node_addrs == addrs {
            return Ok(());
        }
        self.node_addrs = addrs;
        if self.in_step {
            let touched = Touched { fact: true, ..Touched::default() };
            if let Err(error) = self.backend.update(&self.view, &touched, &self.node_addrs) {
                self.in_step = false;
                return Err(error.into());
            }
        }
        Ok(())
    }
}
