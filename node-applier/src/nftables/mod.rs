//! The nftables backend: a view as elements of maps, in one transaction.
//!
//! The kernel's part is a function of the view and of the members' numbers, which this module keeps ([`numbering`]). A
//! change of one target is compared with what was installed, and only elements that differ are sent.

mod affinity;
mod chains;
mod fixed;
mod layout;
mod numbering;
mod out;
mod rebuild;
mod sources;
mod table;
mod target;
pub mod text;
mod update;
mod verify;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rulecast_bundle::nft::Family;
use rulecast_netlink::{Batch, Committed, Connection, Event, Monitor};

use crate::backend::{Applied, Backend, BackendError, Verified};
use crate::view::{PortId, Touched, View};
use table::Table;

/// Above this size, in bytes, a transaction is made with the monitor paused: the kernel would make a notification for
/// each of its elements.
const LARGE: usize = 64 << 10;
/// Service ports whose clients are looked at in one go; after a restart there may be thousands.
const PURGES: usize = 256;
/// Chains that nothing leads to any more stay for so long: before Linux 6.2 the kernel notices late that the elements which
/// led there are gone, and refuses to delete them.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// How often the kernel is compared with what it should hold, while somebody changes the ruleset all the time.
const VERIFY_ATTEMPTS: usize = 5;

/// A kernel without nf_tables says so when it is opened; one that has it without the families ip and ip6, when a table is added.
fn unsupported(error: rulecast_netlink::Error) -> BackendError {
    let no_family = error.errno() == Some(nix::errno::Errno::EOPNOTSUPP as i32);
    if !no_family && !matches!(error, rulecast_netlink::Error::Unsupported(_)) {
        return error.into();
    }
    let message = format!(
        "this kernel lacks nf_tables, or a part of it: {error}; run `modprobe nf_tables` on the node, or set the RulePool's \
         mode to iptables"
    );
    BackendError::Unsupported { reason: "MissingModule", message }
}

/// Services in nf_tables.
pub struct Nftables {
    connection: Connection,
    monitor: Monitor,
    tables: Vec<Table>,
    /// The ruleset's generation after our last transaction.
    generation: u32,
    /// Somebody may have changed our tables while the monitor was paused.
    missed: bool,
    /// What is installed is known. Not after a transaction that failed, until the next rebuild.
    known: bool,
    /// Service ports with clients at endpoints that left and could not be forgotten yet.
    purge_due: BTreeSet<PortId>,
}

impl Nftables {
    /// Opens the netlink sockets in the network namespace of this thread.
    pub fn open() -> Result<Self, BackendError> {
        let connection = Connection::open().map_err(unsupported)?;
        let monitor = Monitor::open(connection.port_id()).map_err(unsupported)?;
        Ok(Self {
            connection,
            monitor,
            tables: Vec::new(),
            generation: 0,
            missed: false,
            known: true,
            purge_due: BTreeSet::new(),
        })
    }

    fn commit(&mut self, batch: Batch) -> Result<Committed, BackendError> {
        if batch.bytes() <= LARGE {
            let committed = self.connection.commit(batch).map_err(unsupported)?;
            self.generation = committed.generation;
            return Ok(committed);
        }
        let before = self.connection.generation()?;
        self.monitor.pause()?;
        let committed = self.connection.commit(batch);
        self.monitor.resume()?;
        let committed = committed.map_err(unsupported)?;
        self.generation = committed.generation;
        // The monitor heard nothing meanwhile. The generation tells whether there was anything but our transaction; if
        // it was somebody else's table, one rebuild too many is the price.
        let ours_alone = committed.generation == before.wrapping_add(1);
        self.missed |= !ours_alone || self.connection.generation()? != committed.generation;
        Ok(committed)
    }

    /// Forgets clients of endpoints that left. The rules are in force already, so a failure is no reason to take them
    /// back: it is tried again.
    fn purge(&mut self, ports: BTreeSet<PortId>) {
        self.purge_due.extend(ports);
        if self.purge_due.is_empty() {
            return;
        }
        let rest = self.purge_due.iter().nth(PURGES).copied().map(|first| self.purge_due.split_off(&first));
        for port in std::mem::replace(&mut self.purge_due, rest.unwrap_or_default()) {
            for table in self.tables.iter().filter(|t| t.layout.family == port.family()) {
                if let Err(error) = affinity::purge(&mut self.connection, table, port) {
                    tracing::warn!(%error, "clients of endpoints that left are still remembered; trying again");
                    self.purge_due.insert(port);
                }
            }
        }
        // Our own transactions are not foreign.
        if let Ok(generation) = self.connection.generation() {
            self.generation = generation;
        }
    }

    fn compare(&mut self, view: &View) -> Result<Verified, BackendError> {
        let mut verified = Verified::default();
        if !self.known {
            verified
                .differs(|| "the last transaction failed; the whole table is about to be written".to_owned());
        }
        for family in [Family::V4, Family::V6] {
            let table = self.tables.iter().find(|table| table.layout.family == family);
            verify::verify(&mut self.connection, table, view, family, &mut verified)?;
        }
        Ok(verified)
    }

    /// Deletes what Service ports had of their own for a session affinity that is gone.
    fn collect_leftovers(&mut self) -> Result<(), BackendError> {
        let Some(before) = Instant::now().checked_sub(LEFTOVERS) else { return Ok(()) };
        if self.tables.iter().all(|t| t.leftovers.values().all(|since| *since > before)) {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.known = false;
        for table in &mut self.tables {
            table.collect_leftovers(&mut batch, before)?;
        }
        if !batch.is_empty() {
            self.commit(batch)?;
        }
        self.known = true;
        Ok(())
    }
}

impl From<Committed> for Applied {
    fn from(c: Committed) -> Self {
        Self { kernel: c.kernel, bytes: c.bytes, messages: c.messages }
    }
}

impl Backend for Nftables {
    fn rebuild(&mut self, view: &View, node_addrs: &[IpAddr]) -> Result<Applied, BackendError> {
        // What others did until now is about to be overwritten.
        self.monitor.drain()?;
        self.missed = false;
        let generation = self.connection.generation()?;
        let mut batch = Batch::with_generation(generation);
        let (mut tables, mut kept) = (Vec::new(), BTreeSet::new());
        for family in [Family::V4, Family::V6] {
            let rebuilt = rebuild::rebuild(&mut batch, &mut self.connection, view, family, node_addrs)?;
            if let Some((table, ports)) = rebuilt {
                tables.push(table);
                kept.extend(ports);
            }
        }
        self.known = false;
        let committed = self.commit(batch)?;
        self.tables = tables;
        self.known = true;
        self.purge(kept);
        Ok(committed.into())
    }

    fn update(
        &mut self,
        view: &View,
        touched: &Touched,
        node_addrs: &[IpAddr],
    ) -> Result<Applied, BackendError> {
        if !self.known {
            return Err(BackendError::not_known());
        }
        let mut batch = Batch::new();
        let mut purge = BTreeSet::new();
        // Should anything fail, what is installed is unknown and the next call has to be a rebuild.
        self.known = false;
        for table in &mut self.tables {
            purge.extend(update::update(&mut batch, table, view, touched, node_addrs)?);
        }
        if batch.is_empty() {
            self.known = true;
            return Ok(Applied::default());
        }
        let committed = self.commit(batch)?;
        self.known = true;
        self.purge(purge);
        Ok(committed.into())
    }

    fn verify(&mut self, view: &View) -> Result<Verified, BackendError> {
        // Between two dumps of one table somebody may change it.
        for _ in 0..VERIFY_ATTEMPTS {
            let before = self.connection.generation()?;
            let verified = self.compare(view)?;
            if self.connection.generation()? == before {
                return Ok(verified);
            }
        }
        Err(rulecast_netlink::Error::Interrupted.into())
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        self.purge(BTreeSet::new());
        if let Err(error) = self.collect_leftovers() {
            tracing::warn!(%error, "chains without use could not be deleted; writing the whole table");
        }
        let mut found = None;
        let mut lost = false;
        while let Some(event) = self.monitor.next()? {
            match event {
                Event::Foreign { family, what, .. } => {
                    let family = if family == Family::V4 { "ip" } else { "ip6" };
                    found.get_or_insert(format!("table {family} rulecast: {what}"));
                }
                Event::NewGeneration { process, pid, .. } => {
                    if let Some(found) = found.as_mut().filter(|f| !f.contains(" by ")) {
                        *found = format!("{found} by {process} (pid {pid})");
                    }
                }
                Event::Overflow => lost = true,
            }
        }
        if !self.known {
            found.get_or_insert("a transaction of our own failed".to_owned());
        }
        if found.is_none() && std::mem::take(&mut self.missed) {
            found = Some("somebody else changed the ruleset during a large update".to_owned());
        }
        if found.is_none() && lost && self.connection.generation()? != self.generation {
            found = Some("notifications were lost while somebody else changed the ruleset".to_owned());
        }
        Ok(found)
    }

    fn clean_up(&mut self) -> Result<(), BackendError> {
        let mut batch = Batch::new();
        for family in [Family::V4, Family::V6] {
            // Deleting what is not there is an error; adding first makes it be there.
            batch.add_table(family);
            batch.delete_table(family);
        }
        self.tables.clear();
        self.commit(batch)?;
        Ok(())
    }
}
