//! The proxy modes that a node can run: it runs the one that its bundle is made for.
//!
//! When the mode changes, the new one is written before the old one goes, so that at every moment one of them translates new
//! connections. Translated connections are conntrack's and stay, but for those of IPVS, which has a table of its own.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rulecast_bundle::Mode;
use tracing::{info, warn};

use crate::backend::{Applied, Backend, BackendError, Verified};
use crate::iptables::Iptables;
use crate::ipvs::Ipvs;
use crate::nftables::Nftables;
use crate::view::{Touched, View};

/// What could not be removed is tried again after this long.
const CLEAN_AGAIN: Duration = Duration::from_secs(10);
/// Reasons for which a mode cannot have left anything behind.
const MISSING: [&str; 3] = ["MissingTool", "MissingModule", "UnknownMode"];
const ALL: [Mode; 3] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs];

/// Opens a mode's part of the kernel, in the network namespace of this thread.
pub type Open = fn(Mode) -> Result<Box<dyn Backend>, BackendError>;

/// Opens a mode's part of this machine's kernel.
pub fn open(mode: Mode) -> Result<Box<dyn Backend>, BackendError> {
    Ok(match mode {
        Mode::Nftables => Box::new(Nftables::open()?),
        Mode::Iptables => Box::new(Iptables::open()),
        Mode::Ipvs => Box::new(Ipvs::open()?),
    })
}

/// The kernel in whatever mode.
pub struct Modes {
    open: Open,
    opened: [Option<Box<dyn Backend>>; 3],
    /// The mode of the last rebuild that succeeded.
    in_force: Option<Mode>,
    /// Modes of which something may be left in the kernel.
    leftovers: Vec<Mode>,
    next_cleaning: Instant,
}

impl Modes {
    /// None is in force yet; something of any of them may be there from before.
    #[must_use]
    pub fn new(open: Open) -> Self {
        let leftovers = ALL.to_vec();
        Self { open, opened: [None, None, None], in_force: None, leftovers, next_cleaning: Instant::now() }
    }

    /// Removes everything that rulecast ever wrote, in every mode. Tells the first failure, after trying all.
    pub fn clean_up(&mut self) -> Result<(), BackendError> {
        let mut result = Ok(());
        for mode in ALL {
            result = result.and(self.remove(mode));
        }
        self.in_force = None;
        result
    }

    /// The mode that the kernel holds.
    #[must_use]
    pub fn in_force(&self) -> Option<Mode> {
        self.in_force
    }

    fn backend(&mut self, mode: Mode) -> Result<&mut dyn Backend, BackendError> {
        let slot = &mut self.opened[mode as usize];
        if slot.is_none() {
            *slot = Some((self.open)(mode)?);
        }
        Ok(slot.as_mut().expect("opened above").as_mut())
    }

    fn remove(&mut self, mode: Mode) -> Result<(), BackendError> {
        match self.backend(mode).and_then(Backend::clean_up) {
            // What this node cannot run has left nothing behind.
            Err(error) if MISSING.contains(&error.reason()) => Ok(()),
            result => result,
        }
    }

    /// Removes what other modes left. The rules are in force already, so a failure is no reason to take them back.
    fn clean_others(&mut self) {
        let Some(in_force) = self.in_force else { return };
        for mode in std::mem::take(&mut self.leftovers) {
            if mode == in_force {
                continue;
            }
            let result = self.remove(mode);
            self.opened[mode as usize] = None;
            if let Err(error) = result {
                warn!(%error, "rules of mode {mode} may be left on this node; trying again");
                self.leftovers.push(mode);
            }
        }
        self.next_cleaning = Instant::now() + CLEAN_AGAIN;
    }
}

impl Backend for Modes {
    fn rebuild(&mut self, view: &View, node_addrs: &[IpAddr]) -> Result<Applied, BackendError> {
        let Some(mode) = view.mode() else {
            return Err(BackendError::Rules("it says nothing of how to serve Services".to_owned()));
        };
        if self.in_force != Some(mode) {
            // Of what fails half way something may be left.
            self.leftovers.push(mode);
        }
        let applied = self.backend(mode)?.rebuild(view, node_addrs)?;
        if let Some(before) = self.in_force.replace(mode).filter(|before| *before != mode) {
            info!("mode {mode} is in force; removing the rules of mode {before}");
            self.leftovers.push(before);
        }
        self.clean_others();
        Ok(applied)
    }

    fn update(
        &mut self,
        view: &View,
        touched: &Touched,
        node_addrs: &[IpAddr],
    ) -> Result<Applied, BackendError> {
        match view.mode().filter(|mode| self.in_force == Some(*mode)) {
            Some(mode) => self.backend(mode)?.update(view, touched, node_addrs),
            None => Err(BackendError::Rules("another mode is in force".to_owned())),
        }
    }

    fn verify(&mut self, view: &View) -> Result<Verified, BackendError> {
        if let Some(mode) = view.mode().filter(|mode| self.in_force == Some(*mode)) {
            return self.backend(mode)?.verify(view);
        }
        let mut verified = Verified::default();
        verified.differs(|| "the rules of the version in force have not been written".to_owned());
        Ok(verified)
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        if !self.leftovers.is_empty() && Instant::now() >= self.next_cleaning {
            self.clean_others();
        }
        match self.in_force {
            Some(mode) => self.backend(mode)?.interference(),
            None => Ok(None),
        }
    }

    fn clean_up(&mut self) -> Result<(), BackendError> {
        Self::clean_up(self)
    }
}
