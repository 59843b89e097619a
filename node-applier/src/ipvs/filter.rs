//! The iptables rules in the kernel: writing, comparing and removing them.

use rulecast_bundle::nft::Family;

use super::{has_ipv6, rules};
use crate::backend::{BackendError, Verified};
use crate::iptables::{Tool, Xtables};

/// What iptables-save prints of the tables that have rules of ours.
pub(super) type Saved = Vec<(Family, String)>;

/// The rules of the families that are served.
#[derive(Default)]
pub(super) struct PacketFilter {
    /// Chosen when rules are written first.
    tool: Option<Tool>,
    rules: Vec<(Family, Vec<rules::Table>)>,
}

impl PacketFilter {
    fn tool(&mut self) -> Result<Tool, BackendError> {
        let tool = self.tool.map_or_else(Tool::choose, Ok)?;
        self.tool = Some(tool);
        Ok(tool)
    }

    /// The families that have rules.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        self.rules.iter().map(|(family, _)| *family)
    }

    /// What is there; also shows whether the tools are.
    pub(super) fn save(&mut self, families: impl Iterator<Item = Family>) -> Result<Saved, BackendError> {
        let tool = self.tool()?;
        families.map(|family| Ok((family, save(tool, family)?))).collect()
    }

    /// Writes rules where this was there before.
    pub(super) fn write(
        &mut self,
        wanted: Vec<(Family, Vec<rules::Table>)>,
        saved: &Saved,
    ) -> Result<(), BackendError> {
        let tool = self.tool()?;
        self.rules = wanted;
        for ((family, tables), (_, there)) in self.rules.iter().zip(saved) {
            restore(tool, *family, &rules::restore(tables, there))?;
        }
        Ok(())
    }

    /// Removes the rules, also what an earlier run left in the other variant of iptables.
    pub(super) fn remove(&mut self) -> Result<(), BackendError> {
        let tool = self.tool()?;
        let other = Tool::of(tool.variant().other());
        self.rules.clear();
        for family in [Family::V4, Family::V6].into_iter().filter(|f| *f == Family::V4 || has_ipv6()) {
            restore(tool, family, &rules::removal(&save(tool, family)?))?;
            // One that this kernel does not have has nothing.
            if let Some(there) =
                Some(other).filter(|tool| tool.is_there()).and_then(|tool| save(tool, family).ok())
            {
                restore(other, family, &rules::removal(&there))?;
            }
        }
        Ok(())
    }

    /// Compares what is there.
    pub(super) fn verify(&mut self, verified: &mut Verified) -> Result<(), BackendError> {
        let tool = self.tool()?;
        for (family, tables) in &self.rules {
            let saved = save(tool, *family)?;
            let word = if *family == Family::V4 { "iptables" } else { "ip6tables" };
            let (chains, rules) =
                rules::differences(tables, &saved, |what| verified.differs(|| format!("{word}, {what}")));
            verified.chains += chains;
            verified.rules += rules;
        }
        Ok(())
    }

    /// The first thing that somebody else changed.
    pub(super) fn first_difference(&mut self) -> Result<Option<String>, BackendError> {
        let mut verified = Verified::default();
        self.verify(&mut verified)?;
        Ok(verified.differences.into_iter().next())
    }
}

fn save(tool: Tool, family: Family) -> Result<String, BackendError> {
    let saved = rules::CHAINS.iter().map(|(table, _)| tool.save(family, table));
    saved.collect()
}

fn restore(tool: Tool, family: Family, text: &str) -> Result<(), BackendError> {
    if !text.is_empty() {
        tool.restore(family, &mut |out| out.write_all(text.as_bytes()))?;
    }
    Ok(())
}
