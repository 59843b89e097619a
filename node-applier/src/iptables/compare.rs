//! The kernel's chains beside what they should hold.

use super::chain::Table;
use super::table::{Found, Tables};
use crate::backend::Verified;
use crate::view::View;

/// Compares rule by rule.
pub(super) fn verify(tables: &Tables, table: Table, view: &View, found: &Found, verified: &mut Verified) {
    let place = |name: &str| format!("{:?}, table {}, chain {name}", tables.family, table.name());
    let mut names = std::collections::BTreeSet::new();
    for chain in tables.chains(table) {
        let name = chain.name();
        let wanted = tables.rules(table, chain, view);
        verified.chains += 1;
        verified.rules += wanted.len();
        match found.chains.get(&name) {
            None => verified.differs(|| format!("{}: it is missing", place(&name))),
            Some(rules) => {
                for n in 0..wanted.len().max(rules.len()) {
                    let (should, is) =
                        (wanted.get(n).map(super::rule::Rule::as_str), rules.get(n).map(String::as_str));
                    if should != is {
                        let none = "nothing";
                        let (should, is) = (should.unwrap_or(none), is.unwrap_or(none));
                        verified.differs(|| {
                            format!("{}: rule {} is {is}, should be {should}", place(&name), n + 1)
                        });
                    }
                }
            }
        }
        names.insert(name);
    }
    for name in found.chains.keys().filter(|name| !names.contains(*name)) {
        verified.differs(|| format!("{}: nothing asks for it", place(name)));
    }
    if !found.leads(table) {
        verified.differs(|| {
            format!(
                "{:?}, table {}: the built-in chains do not lead to ours, or more than once",
                tables.family,
                table.name()
            )
        });
    }
}

/// What was found to differ from what was written, in words; none: nothing. Without `spelling`, only the numbers of rules count.
pub(super) fn changed(tables: &Tables, table: Table, found: &Found, spelling: bool) -> Option<String> {
    let place = format!("{:?}, table {}", tables.family, table.name());
    let (mut missing, mut other, mut first) = (0_usize, 0_usize, None);
    for (chain, is_same) in tables.compare(table, &found.chains, spelling) {
        match is_same {
            Some(true) => {}
            Some(false) => {
                other += 1;
                first.get_or_insert_with(|| chain.name());
            }
            None => {
                missing += 1;
                first.get_or_insert_with(|| chain.name());
            }
        }
    }
    if let Some(first) = first {
        return Some(format!(
            "{place}: {missing} chains are missing and {other} are different, {first} among them"
        ));
    }
    (!found.leads(table)).then(|| format!("{place}: the built-in chains do not lead to ours"))
}
