//! Noticing that somebody else changed our chains.
//!
//! iptables tells nobody of changes, so what is asked is how large the tables are (legacy), or which generation of nf_tables
//! it is (nft): one question of microseconds. Only if that changed the tables are read, which with many Services takes tenths
//! of a second, and then not again at once: others may change rules of their own all the time.

use std::time::{Duration, Instant};

use rulecast_netlink::{Connection, TableInfo, table_info};
use tracing::warn;

use super::chain::Table;
use super::compare::changed;
use super::table::{Found, Tables};
use super::tool::{Variant, Xtables};
use crate::backend::BackendError;

/// Reading the tables takes at most one in so many parts of the time.
const SHARE: u32 = 10;
/// The longest time until they are read again.
const LONGEST: Duration = Duration::from_secs(30);

/// What the kernel was like after our last write.
#[derive(Default)]
pub(super) struct Watch {
    marks: Vec<Mark>,
    next_read: Option<Instant>,
    /// The last thing that was found led to a repair, which is to be looked at.
    doubted: bool,
    /// This iptables spells rules differently from ours: only their numbers are compared.
    other_spelling: bool,
    netlink: Option<Connection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Size(Option<TableInfo>),
    Generation(u32),
}

impl Watch {
    /// Our own change is no foreign one.
    pub(super) fn written(&mut self, tool: &dyn Xtables, tables: &[Tables]) {
        self.marks = self.marks(tool, tables);
        if !std::mem::take(&mut self.doubted) || self.other_spelling {
            return;
        }
        if let Ok(Some(what)) = read(tool, tables, true) {
            warn!(
                "rules that were written are read back differently, so only their numbers are watched: {what}"
            );
            self.other_spelling = true;
        }
    }

    /// What others did since then, in words; none: nothing, or nothing that was read yet.
    pub(super) fn look(
        &mut self,
        tool: &dyn Xtables,
        tables: &[Tables],
        now: Instant,
    ) -> Result<Option<String>, BackendError> {
        let marks = self.marks(tool, tables);
        if marks == self.marks {
            return Ok(None);
        }
        let shrunk = marks.iter().zip(&self.marks).any(|pair| match pair {
            (Mark::Size(now), Mark::Size(before)) => now.map(|i| i.entries) < before.map(|i| i.entries),
            _ => false,
        });
        if !shrunk && self.next_read.is_some_and(|at| now < at) {
            return Ok(None);
        }
        let found = read(tool, tables, !self.other_spelling)?;
        self.next_read = Some(Instant::now() + (now.elapsed() * SHARE).min(LONGEST));
        self.doubted = found.is_some();
        // Should somebody have changed them while they were read, the next look tells.
        self.marks = marks;
        Ok(found)
    }

    fn marks(&mut self, tool: &dyn Xtables, tables: &[Tables]) -> Vec<Mark> {
        match tool.variant() {
            Variant::Legacy => {
                let info = |family, table: Table| table_info(family, table.name()).ok().flatten();
                let of_family = |t: &Tables| Table::ALL.map(|table| Mark::Size(info(t.family, table)));
                tables.iter().flat_map(of_family).collect()
            }
            Variant::Nft => {
                if self.netlink.is_none() {
                    self.netlink = Connection::open().ok();
                }
                self.netlink
                    .as_mut()
                    .and_then(|c| c.generation().ok())
                    .map(Mark::Generation)
                    .into_iter()
                    .collect()
            }
        }
    }
}

fn read(tool: &dyn Xtables, tables: &[Tables], spelling: bool) -> Result<Option<String>, BackendError> {
    for tables in tables {
        for table in Table::ALL {
            let found = Found::read(&tool.save(tables.family, table.name())?, true);
            if let Some(what) = changed(tables, table, &found, spelling) {
                return Ok(Some(what));
            }
        }
    }
    Ok(None)
}
