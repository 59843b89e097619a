//! A node's machine: what outlives the applier's process, and where that process can be killed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rulecast_node::backend::{Applied, Backend, BackendError};
use rulecast_node::status::Shared;
use rulecast_node::store::Disk;
use rulecast_node::view::{Touched, View};

use crate::Universe;
use crate::faults::Fault;
use crate::invariants::{Position, position};
use crate::kernel::{Kernel, Rules};
use crate::trace::Invariant;

/// What a process unwinds with that is killed in the middle of its work.
pub(crate) struct KilledAtStep;

/// A machine.
#[derive(Clone)]
pub(crate) struct Machine(Rc<Parts>);

struct Parts {
    universe: Arc<Universe>,
    node: String,
    pool: String,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    kernel: Kernel,
    /// Somebody else changed it since the last rebuild.
    tampered: bool,
    files: BTreeMap<String, Vec<u8>>,
    /// What a power failure brings back.
    cut_off: BTreeMap<String, Vec<u8>>,
    /// What the process that runs tells of itself.
    shared: Shared,
    /// The version in force as that process last told.
    in_force: Option<Position>,
    /// How its last write to the disk went.
    written: Option<bool>,
    /// The version that the disk surely has.
    kept: Option<Position>,
    /// The kernel refused something since the process began.
    refused: bool,
    /// Only a rebuild may come next, as [`Backend`] wants it.
    must_rebuild: bool,
    /// Transactions so far.
    commits: u64,
}

impl Machine {
    pub(crate) fn new(universe: &Arc<Universe>, node: &str, pool: &str) -> Self {
        let (node, pool) = (node.to_owned(), pool.to_owned());
        Self(Rc::new(Parts { universe: Arc::clone(universe), node, pool, state: RefCell::default() }))
    }

    /// A process begins that tells of itself there.
    pub(crate) fn begin(&self, shared: &Shared) {
        let mut state = self.0.state.borrow_mut();
        state.shared = shared.clone();
        (state.in_force, state.written, state.refused, state.must_rebuild) = (None, None, false, true);
    }

    /// The process has tried to start from its disk.
    pub(crate) fn restored(&self) {
        self.look();
        let state = self.0.state.borrow();
        if let (Some(kept), None, false) = (state.kept, state.in_force, state.refused) {
            self.violate(Invariant::NeverBack, format_args!("{kept:?} is on disk and was not restored"));
        }
    }

    /// The machine starts anew: without rules, and with what a disk may bring back.
    pub(crate) fn reboot(&self) {
        let mut state = self.0.state.borrow_mut();
        let back = std::mem::take(&mut state.cut_off);
        state.files.extend(back);
        state.kernel = Kernel::default();
    }

    pub(crate) fn lose_disk(&self) {
        let mut state = self.0.state.borrow_mut();
        state.files.clear();
        state.cut_off.clear();
        state.kept = None;
    }

    pub(crate) fn rules(&self) -> Rules {
        self.0.state.borrow().kernel.rules()
    }

    pub(crate) fn commits(&self) -> u64 {
        self.0.state.borrow().commits
    }

    /// The version in force, and whether the process says that the kernel holds it.
    pub(crate) fn told(&self) -> (Option<Position>, bool) {
        let shared = self.0.state.borrow().shared.clone();
        let (state, _) = &*shared.lock();
        (state.head.as_ref().map(position), state.in_step)
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.0.universe.trace.note(format_args!("{}: {what}", self.0.node));
    }

    fn violate(&self, invariant: Invariant, what: std::fmt::Arguments<'_>) {
        self.0.universe.trace.violate(invariant, format!("{}: {what}", self.0.node));
    }

    fn hits(&self, fault: Fault) -> bool {
        self.0.universe.faults.hits(fault)
    }

    /// A place where the process may be killed.
    fn step(&self, what: &str) {
        if self.hits(Fault::KilledAtStep) {
            self.note(format_args!("killed {what}"));
            std::panic::resume_unwind(Box::new(KilledAtStep));
        }
    }

    /// Compares what the process tells with what it told before, and with the kernel. Called before every step of its
    /// work, so that no version is in force unseen.
    pub(crate) fn look(&self) {
        let (now, in_step) = self.told();
        let mut state = self.0.state.borrow_mut();
        let Some(position) = now else { return };
        if now != state.in_force {
            self.note(format_args!("runs {position:?}"));
            let floor = state.in_force.or(state.kept);
            if floor.is_some_and(|floor| position < floor) {
                self.violate(
                    Invariant::NeverBack,
                    format_args!("{position:?} is in force, after {floor:?} was"),
                );
            }
            if state.written.take() == Some(true) {
                state.kept = now;
            }
            state.in_force = now;
        }
        let digest = state.shared.lock().0.head.as_ref().map(|head| head.digest.clone());
        let api = self.0.universe.api();
        let published = api.ledger.digest(&self.0.pool, position);
        if published != digest.as_deref() {
            self.violate(
                Invariant::Whole,
                format_args!("{position:?} runs with digest {digest:?}; {published:?} was published"),
            );
        }
        let rules = api.ledger.rules(&self.0.pool, &self.0.node, position);
        if in_step && !state.tampered && rules != Some(state.kernel.rules()) {
            self.violate(
                Invariant::Whole,
                format_args!("{position:?} is said to be in force, and the kernel holds something else"),
            );
        }
    }

    /// The kernel's transaction, all of it or nothing.
    fn commit(&self, what: &str, change: impl FnOnce(&mut Kernel)) -> Result<Applied, BackendError> {
        self.look();
        self.step("before the kernel's commit");
        if what != REBUILD && self.0.state.borrow().must_rebuild {
            self.violate(Invariant::Whole, format_args!("an {what} where only a rebuild leads on"));
        }
        if self.hits(Fault::Kernel) {
            self.note(format_args!("the kernel refuses the {what}"));
            let mut state = self.0.state.borrow_mut();
            (state.refused, state.must_rebuild) = (true, true);
            return Err(BackendError::Rules("refused by the simulation".to_owned()));
        }
        {
            let state = &mut *self.0.state.borrow_mut();
            change(&mut state.kernel);
            state.commits += 1;
            state.tampered &= what != REBUILD;
            state.must_rebuild &= what != REBUILD;
            let version =
                self.0.universe.api().ledger.version(&self.0.pool, &self.0.node, state.kernel.rules());
            self.note(format_args!("{what}: the kernel holds {version:?}"));
            if version.is_none() && !state.tampered && state.in_force.is_some() {
                self.violate(Invariant::Whole, format_args!("the kernel holds what was never published"));
            }
        }
        self.step("after the kernel's commit");
        Ok(Applied::default())
    }
}

const REBUILD: &str = "rebuild";

impl Backend for Machine {
    fn rebuild(&mut self, view: &View, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.commit(REBUILD, |kernel| kernel.rebuild(view))
    }

    fn update(&mut self, view: &View, touched: &Touched, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.commit("update", |kernel| kernel.update(view, touched))
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        self.look();
        if !self.hits(Fault::Interference) {
            return Ok(None);
        }
        self.note(format_args!("somebody else changes the rules"));
        let state = &mut *self.0.state.borrow_mut();
        state.kernel.interfere();
        state.tampered = true;
        Ok(Some("a simulated change".to_owned()))
    }
}

impl Disk for Machine {
    fn path(&self, file: &str) -> PathBuf {
        [&self.0.node, file].iter().collect()
    }

    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.0.state.borrow_mut();
        if self.hits(Fault::DiskRead) {
            self.note(format_args!("{file} cannot be read"));
            // Without it, the node begins as if it had no disk.
            state.kept = None;
            return Err(io::Error::other("refused by the simulation"));
        }
        Ok(state.files.get(file).cloned())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.step("before the disk's write");
        let whole = !self.hits(Fault::Disk);
        {
            let state = &mut *self.0.state.borrow_mut();
            let part = if whole { bytes.len() } else { fastrand::usize(..=bytes.len()) };
            state.files.entry(file.to_owned()).or_default().extend(&bytes[..part]);
            // Synced: with the file's length.
            state.cut_off.remove(file);
            state.written = Some(whole);
        }
        if !whole {
            self.step("in the middle of the disk's write");
            self.note(format_args!("{file} takes only a part"));
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.step("after the disk's write");
        Ok(())
    }

    fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.step("before the disk's file is replaced");
        let whole = !self.hits(Fault::Disk);
        self.0.state.borrow_mut().written = Some(whole);
        if !whole {
            self.note(format_args!("{file} is not replaced"));
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.state.borrow_mut().files.insert(file.to_owned(), bytes.to_vec());
        self.step("after the disk's file was replaced");
        Ok(())
    }

    fn truncate(&mut self, file: &str, size: u64) -> io::Result<()> {
        self.step("before a file is cut off");
        if self.hits(Fault::Disk) {
            self.note(format_args!("{file} is not cut off"));
            self.0.state.borrow_mut().written = Some(false);
            return Err(io::Error::other("refused by the simulation"));
        }
        let state = &mut *self.0.state.borrow_mut();
        let bytes = state.files.entry(file.to_owned()).or_default();
        state.cut_off.insert(file.to_owned(), bytes.clone());
        bytes.truncate(usize::try_from(size).expect("small files"));
        Ok(())
    }
}
