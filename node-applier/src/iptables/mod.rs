//! The iptables backend: a view as chains, written by `iptables-restore --noflush`.
//!
//! Only chains that change are written. Each table changes at once; what is refused changes in an order in which no packet of a
//! Service with endpoints is refused, and none of one without them leaves the node untranslated.

mod chain;
mod compare;
mod index;
mod meanwhile;
mod program;
pub(crate) mod rule;
mod table;
pub mod text;
mod tool;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use rulecast_bundle::nft::Family;
use tracing::{debug, warn};

use crate::backend::{Applied, Backend, BackendError, Verified};
use crate::view::{Touched, View};
use chain::Table;
use table::{Found, Tables, declare, write_changes};
use tool::{LOCK_HELD, ROUTE_LOCALNET};
pub use tool::{Restored, Tool, Variant, Xtables};
use watch::Watch;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Services in iptables.
#[derive(Default)]
pub struct Iptables {
    /// Chosen when rules are written first.
    tool: Option<Box<dyn Xtables>>,
    tables: Vec<Tables>,
    watch: Watch,
    /// What is installed is known. Not after a write that failed, until the next rebuild.
    known: bool,
    /// The other variant was looked through for what an earlier run left there.
    other_is_clean: bool,
}

impl Iptables {
    /// Nothing is asked of the node until rules are written.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// With programs that are given instead of those that the node uses.
    #[must_use]
    pub fn with(tool: impl Xtables + 'static) -> Self {
        Self { tool: Some(Box::new(tool)), other_is_clean: true, ..Self::default() }
    }

    /// Writes all of a family's chains, whatever is there.
    fn rebuild_family(tool: &dyn Xtables, tables: &Tables, view: &View) -> Result<Restored, BackendError> {
        let family = tables.family;
        let found = Table::ALL.map(|table| Ok((table, Found::read(&tool.save(family, table.name())?, true))));
        let found = found.into_iter().collect::<Result<BTreeMap<_, _>, BackendError>>()?;
        tool.make_sets(family, &tables.sets().collect::<Vec<_>>())?;
        tool.restore(family, &mut |out| {
            meanwhile::write(out, tables, view, &found[&Table::Filter])?;
            // What translates first: what it translates is not refused.
            for (table, found) in found.iter().rev() {
                writeln!(out, "*{}", table.name())?;
                tables.write(out, *table, view)?;
                let wanted: BTreeSet<String> = tables.chains(*table).map(|chain| chain.name()).collect();
                let stale: Vec<&String> =
                    found.chains.keys().filter(|name| !wanted.contains(*name)).collect();
                stale.iter().try_for_each(|name| declare(out, name))?;
                found.write_jumps(out, *table)?;
                stale.iter().try_for_each(|name| writeln!(out, "-X {name}"))?;
                writeln!(out, "COMMIT")?;
            }
            Ok(())
        })
    }

    /// Removes what is ours from the tables of a variant.
    fn clean_variant(tool: &dyn Xtables) -> Result<(), BackendError> {
        for family in FAMILIES {
            for table in Table::ALL {
                if !tool.may_have(family, table.name(), &chain::Chain::Services.name()) {
                    continue;
                }
                let found = Found::read(&tool.save(family, table.name())?, false);
                if found == Found::default() {
                    continue;
                }
                tool.restore(family, &mut |out| {
                    writeln!(out, "*{}", table.name())?;
                    found.chains.keys().try_for_each(|name| declare(out, name))?;
                    found.jumps.iter().try_for_each(|(chain, rule)| writeln!(out, "-D {chain} {rule}"))?;
                    found.chains.keys().try_for_each(|name| writeln!(out, "-X {name}"))?;
                    writeln!(out, "COMMIT")
                })?;
            }
        }
        Ok(())
    }
}

/// Removes the sets of clients that nothing needs any more.
fn remove_sets(tool: &dyn Xtables, tables: &[Tables]) -> Result<(), BackendError> {
    let wanted: BTreeSet<String> = tables.iter().flat_map(Tables::sets).collect();
    let mut sets = tool.sets()?;
    sets.retain(|name| name.starts_with(chain::CLIENTS) && !wanted.contains(name));
    tool.remove_sets(&sets)
}

fn chosen(tool: &mut Option<Box<dyn Xtables>>) -> Result<&dyn Xtables, BackendError> {
    if tool.is_none() {
        *tool = Some(Box::new(Tool::choose()?));
    }
    Ok(tool.as_deref().expect("chosen above"))
}

impl Applied {
    fn add(&mut self, restored: Restored) {
        self.bytes += restored.bytes;
        self.messages += restored.lines;
        self.kernel += restored.took;
    }
}

impl Backend for Iptables {
    fn rebuild(&mut self, view: &View, node_addrs: &[IpAddr]) -> Result<Applied, BackendError> {
        let tool = chosen(&mut self.tool)?;
        self.known = false;
        self.tables.clear();
        let mut applied = Applied::default();
        for family in FAMILIES {
            let Some(options) = view.options(family) else { continue };
            if options.localhost_node_ports
                && let Err(error) = tool.route_localnet()
            {
                warn!("NodePorts do not answer at 127.0.0.1: {ROUTE_LOCALNET} cannot be set ({error})");
            }
            let tables = Tables::of(view, family, node_addrs);
            match Self::rebuild_family(tool, &tables, view) {
                Ok(restored) => applied.add(restored),
                // A node without that family needs no rules for it, until a Service has it.
                Err(error) if tables.is_empty() && error.reason() != LOCK_HELD => {
                    debug!(%error, "no rules for {family:?}, and no Services either");
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.tables.push(tables);
        }
        remove_sets(tool, &self.tables)?;
        self.known = true;
        self.watch.written(tool, &self.tables);
        if !std::mem::replace(&mut self.other_is_clean, true)
            && let Err(error) = Self::clean_variant(&Tool::of(tool.variant().other()))
        {
            debug!(%error, "the other variant of iptables was not looked through");
        }
        Ok(applied)
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
        let is_new = |family| {
            view.options(family).is_some()
                && self.tables.iter().all(|tables| tables.family != family)
                && touched.targets.iter().any(|id| id.family() == family)
        };
        if let Some(family) = FAMILIES.into_iter().find(|family| is_new(*family)) {
            return Err(BackendError::Rules(format!("nothing could be written for {family:?} before")));
        }
        let tool = chosen(&mut self.tool)?;
        self.known = false;
        let mut applied = Applied::default();
        for tables in &mut self.tables {
            let step = tables.update(view, touched, node_addrs);
            if step.nat.is_empty() && step.filter.is_empty() {
                continue;
            }
            let (come, go) = table::sets(&step.nat);
            tool.make_sets(tables.family, &come)?;
            applied.add(tool.restore(tables.family, &mut |out| {
                write_changes(out, Table::Filter, &step.meanwhile)?;
                write_changes(out, Table::Nat, &step.nat)?;
                write_changes(out, Table::Filter, &step.filter)
            })?);
            tool.remove_sets(&go)?;
        }
        self.known = true;
        if applied != Applied::default() {
            self.watch.written(tool, &self.tables);
        }
        Ok(applied)
    }

    fn verify(&mut self, view: &View) -> Result<Verified, BackendError> {
        let tool = chosen(&mut self.tool)?;
        let mut verified = Verified::default();
        if !self.known {
            verified.differs(|| "the last write failed; all chains are about to be written".to_owned());
        }
        for tables in &self.tables {
            for table in Table::ALL {
                let found = Found::read(&tool.save(tables.family, table.name())?, true);
                compare::verify(tables, table, view, &found, &mut verified);
            }
        }
        Ok(verified)
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        if !self.known {
            return Ok(Some("a write of our own failed".to_owned()));
        }
        let tool = chosen(&mut self.tool)?;
        self.watch.look(tool, &self.tables, Instant::now())
    }

    fn clean_up(&mut self) -> Result<(), BackendError> {
        self.tables.clear();
        self.known = false;
        let there = [Variant::Legacy, Variant::Nft].map(Tool::of).into_iter().filter(|tool| tool.is_there());
        let mut result = Ok(());
        let mut last = None;
        for tool in there {
            result = result.and(Self::clean_variant(&tool));
            last = Some(tool);
        }
        result.and(last.map_or(Ok(()), |tool| remove_sets(&tool, &[])))
    }
}
