//! A node's rules as text: what `nft list ruleset` prints of them.
//!
//! It is written by the code that makes the netlink transaction, call by call, so it cannot say anything else. What is
//! shown is the state after a rebuild, such as the start of the applier, with nobody's clients remembered yet. Later the kernel
//! differs from it in what depends on the past: which number a member has, how large sets are, and chains that are
//! kept although no target has so many members any more.

mod element;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use rulecast_bundle::nft::text::{self, RuleWords, duration, word};
use rulecast_bundle::nft::{Data, Family, Hook, Rule, SetDef};
use rulecast_netlink::{Key, Params, Value};
use serde::Serialize;

use super::out::Out;
use super::rebuild;
use crate::backend::BackendError;
use crate::view::View;

use element::Element;

/// The tables of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tables {
    /// One for each family.
    pub tables: Vec<Table>,
}

/// One family's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// `ip` or `ip6`.
    pub family: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Sets and maps, in the order in which they are made.
    pub sets: Vec<Set>,
    /// Chains, in the order in which they are made.
    pub chains: Vec<Chain>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Set {
    /// `set` or `map`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it holds: `type …` or `typeof …`.
    pub holds: String,
    /// The most elements; 0: no limit.
    pub size: u32,
    /// Its flags; none: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<&'static str>,
    /// Its elements, sorted by the values of their components. Those that packets add are not among them.
    pub elements: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Of a base chain, where it hooks in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// The rules of a node with this view and these addresses.
pub fn render(view: &View, node_addrs: &[IpAddr]) -> Result<Tables, BackendError> {
    let mut tables = Tables::default();
    for family in [Family::V4, Family::V6] {
        let Some((mut table, elements)) = rebuild::resolve(view, family)? else { continue };
        let mut out = Writer::default();
        rebuild::write(&mut out, &mut table, elements, view, node_addrs)?;
        tables.tables.push(out.table(family));
    }
    Ok(tables)
}

/// Takes one table.
#[derive(Default)]
struct Writer {
    sets: Vec<(SetDef, Vec<Element>)>,
    set_places: HashMap<String, usize>,
    chains: Vec<Chain>,
    chain_places: HashMap<String, usize>,
}

impl Writer {
    fn table(self, family: Family) -> Table {
        let set = |(def, mut elements): (SetDef, Vec<Element>)| {
            elements.sort_unstable();
            Set {
                kind: if def.data == Data::None { "set" } else { "map" },
                name: def.name.to_string(),
                holds: text::set_type(&def, family),
                size: def.size,
                flags: text::set_flags(&def),
                elements: elements.iter().map(ToString::to_string).collect(),
            }
        };
        let sets = self.sets.into_iter().map(set).collect();
        Table { family: word(family), name: rulecast_netlink::TABLE, sets, chains: self.chains }
    }

    fn set(&mut self, name: &str) -> &mut (SetDef, Vec<Element>) {
        &mut self.sets[self.set_places[name]]
    }

    fn chain(&mut self, name: &str) -> &mut Chain {
        &mut self.chains[self.chain_places[name]]
    }
}

impl Out for Writer {
    fn add_set(&mut self, _family: Family, def: &SetDef) {
        self.set_places.insert(def.name.to_string(), self.sets.len());
        self.sets.push((def.clone(), Vec::new()));
    }

    fn add_chain(&mut self, _family: Family, name: &str, hook: Option<Hook>) {
        self.chain_places.insert(name.to_owned(), self.chains.len());
        self.chains.push(Chain { name: name.to_owned(), hook: hook.map(text::hook), rules: Vec::new() });
    }

    fn flush_chain(&mut self, _family: Family, name: &str) {
        self.chain(name).rules.clear();
    }

    fn add_rule(&mut self, family: Family, chain: &str, rule: &Rule, params: Params) {
        let timeout = duration(u32::try_from(params.timeout.as_secs()).unwrap_or(u32::MAX));
        let words = RuleWords { members: &params.members.to_string(), timeout: &timeout };
        self.chain(chain).rules.push(text::rule(rule, family, words));
    }

    fn add_element(&mut self, family: Family, set: &str, key: &Key, value: Value<'_>) {
        let (def, elements) = self.set(set);
        elements.push(Element::new(def, family, key, value));
    }

    fn add_range(&mut self, family: Family, set: &str, from: &Key, to: &Key) {
        let (def, elements) = self.set(set);
        elements.push(Element::range(def, family, from, to));
    }
}

impl fmt::Display for Tables {
    /// As `nft list ruleset` prints them, but for the order of elements, which is nft's own affair; `nft -f` reads it. nft
    /// before 1.0.7 does not read `ct original proto-dst` inside a concatenation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let mut first = true;
        let mut between = |f: &mut fmt::Formatter<'_>| {
            if std::mem::take(&mut first) { Ok(()) } else { writeln!(f) }
        };
        for set in &self.sets {
            between(f)?;
            set.fmt(f)?;
        }
        for chain in &self.chains {
            between(f)?;
            chain.fmt(f)?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t{} {} {{\n\t\t{}", self.kind, self.name, self.holds)?;
        if self.size > 0 {
            writeln!(f, "\t\tsize {}", self.size)?;
        }
        if let Some(flags) = self.flags {
            writeln!(f, "\t\tflags {flags}")?;
        }
        if !self.elements.is_empty() {
            // nft writes two addresses a line.
            let columns = if self.holds == "type ipv4_addr" { 2 } else { 1 };
            let lines: Vec<String> = self.elements.chunks(columns).map(|line| line.join(", ")).collect();
            writeln!(f, "\t\telements = {{ {} }}", lines.join(",\n\t\t\t     "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        for line in self.hook.iter().chain(&self.rules) {
            writeln!(f, "\t\t{line}")?;
        }
        writeln!(f, "\t}}")
    }
}
