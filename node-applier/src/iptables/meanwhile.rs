//! What is in `filter` while a rebuild changes `nat`: the old rules and the new ones. What is not translated any more is refused
//! from the first moment, and what is not translated yet until the last.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::chain::Table;
use super::rule::Rule;
use super::table::{Found, Tables, declare};
use crate::view::View;

/// Chains with their rules, as text.
type Chains = BTreeMap<String, Vec<String>>;

/// Writes it, if it differs from what was `found`. What leads there is as it is.
pub(super) fn write(out: &mut dyn Write, tables: &Tables, view: &View, found: &Found) -> io::Result<()> {
    let chains = both(tables, view, found);
    if found.chains.is_empty() || chains == found.chains {
        return Ok(());
    }
    writeln!(out, "*{}", Table::Filter.name())?;
    chains.keys().try_for_each(|name| declare(out, name))?;
    for (name, rules) in &chains {
        rules.iter().try_for_each(|rule| writeln!(out, "-A {name} {rule}"))?;
    }
    writeln!(out, "COMMIT")
}

fn both(tables: &Tables, view: &View, found: &Found) -> Chains {
    let mut chains = Chains::new();
    for chain in tables.chains(Table::Filter) {
        let rules = tables.rules(Table::Filter, chain, view);
        chains.insert(chain.name(), rules.iter().map(Rule::as_str).map(str::to_owned).collect());
    }
    for (name, old) in &found.chains {
        let rules = chains.entry(name.clone()).or_default();
        let known: BTreeSet<String> = rules.iter().cloned().collect();
        rules.extend(old.iter().filter(|rule| !known.contains(*rule)).cloned());
    }
    chains
}
