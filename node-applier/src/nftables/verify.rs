//! Whether the kernel holds what was written: chains with their hooks, rules, sets, and every element of those that packets
//! do not fill.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use rulecast_bundle::nft::{Family, Field};
use rulecast_netlink::{Batch, Connection, Content, Element, Expected, SetInfo, TABLE};

use super::rebuild;
use super::table::Table;
use crate::backend::{BackendError, Verified};
use crate::view::View;

/// Compares one family's table, none: there should be none.
pub(super) fn verify(
    connection: &mut Connection,
    table: Option<&Table>,
    view: &View,
    family: Family,
    verified: &mut Verified,
) -> Result<(), BackendError> {
    let word = if family == Family::V4 { "ip" } else { "ip6" };
    let name = format!("table {word} {TABLE}");
    let Some(table) = table else {
        if connection.table_exists(family)? {
            verified.differs(|| format!("{name} is there, and nothing is to be in it"));
        }
        return Ok(());
    };
    if !connection.table_exists(family)? {
        verified.differs(|| format!("{name} is missing"));
        return Ok(());
    }
    let mut batch = Batch::new();
    rebuild::rewrite(&mut batch, table, view)?;
    let expected = batch.into_expected()?;
    let found = connection.content(family)?;
    compare_chains(&expected.content, &found, &name, verified);
    let sets = compare_sets(&expected.content, &found, &name, verified);
    compare_elements(connection, table, &expected, &sets, verified)
}

fn compare_chains(expected: &Content, found: &Content, table: &str, verified: &mut Verified) {
    verified.chains += expected.chains.len();
    for (chain, hook) in &expected.chains {
        match found.chains.get(chain) {
            None => {
                verified.differs(|| format!("{table}, chain {chain}: missing"));
                continue;
            }
            Some(other) if other != hook => {
                verified.differs(|| format!("{table}, chain {chain}: another hook, priority or policy"));
            }
            Some(_) => {}
        }
        let rules = |content: &Content| content.rules.get(chain).cloned().unwrap_or_default();
        let (wanted, there) = (rules(expected), rules(found));
        verified.rules += wanted.len();
        if wanted.len() != there.len() {
            let (wanted, there) = (wanted.len(), there.len());
            verified.differs(|| format!("{table}, chain {chain}: {there} rules instead of {wanted}"));
        }
        for (n, _) in wanted.iter().zip(&there).enumerate().filter(|(_, (wanted, there))| wanted != there) {
            verified.differs(|| format!("{table}, chain {chain}: rule {} is another one", n + 1));
        }
    }
    for chain in found.chains.keys().filter(|chain| !expected.chains.contains_key(*chain)) {
        verified.differs(|| format!("{table}, chain {chain}: not ours"));
    }
}

/// Returns the sets that are there and as they should be.
fn compare_sets(
    expected: &Content,
    found: &Content,
    table: &str,
    verified: &mut Verified,
) -> BTreeSet<String> {
    // A set's size depends on how many elements it had when it was made.
    let by_name = |content: &Content| -> BTreeMap<String, SetInfo> {
        content.sets.iter().map(|set| (set.name.clone(), SetInfo { size: 0, ..set.clone() })).collect()
    };
    let (wanted, there) = (by_name(expected), by_name(found));
    verified.sets += wanted.len();
    let mut same = BTreeSet::new();
    for (name, set) in &wanted {
        match there.get(name) {
            None => verified.differs(|| format!("{table}, set {name}: missing")),
            Some(other) if other != set => verified.differs(|| format!("{table}, set {name}: another type")),
            Some(_) => drop(same.insert(name.clone())),
        }
    }
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        verified.differs(|| format!("{table}, set {name}: not ours"));
    }
    same
}

/// Hashes first, which take little memory; what differs is looked at once more.
fn compare_elements(
    connection: &mut Connection,
    table: &Table,
    expected: &Expected,
    sets: &BTreeSet<String>,
    verified: &mut Verified,
) -> Result<(), BackendError> {
    let mut wanted: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let fixed = table.layout.rules.sets.iter().filter(|set| !set.dynamic);
    let compared: BTreeMap<&str, &[Field]> = fixed
        .map(|set| (set.name.as_str(), set.key.as_slice()))
        .filter(|(name, _)| sets.contains(*name))
        .collect();
    expected.elements(|set, element| {
        if let Some((name, _)) = compared.get_key_value(set) {
            wanted.entry(name).or_default().push(element.fingerprint());
        }
    });
    for (set, key) in compared {
        let mut wanted = wanted.remove(set).unwrap_or_default();
        wanted.sort_unstable();
        wanted.dedup();
        verified.elements += wanted.len();
        let family = table.layout.family;
        let mut there =
            connection.elements(family, set, Vec::new, |all, element| all.push(element.fingerprint()))?;
        there.sort_unstable();
        if wanted == there {
            continue;
        }
        let differs = |hash: &u64| wanted.binary_search(hash).is_ok() != there.binary_search(hash).is_ok();
        let word = if family == Family::V4 { "ip" } else { "ip6" };
        let tell = |element: &Element<'_>, what: &str| {
            format!("table {word} {TABLE}, set {set}, element {}: {what}", words(element, key, family))
        };
        let mut missing = BTreeMap::new();
        expected.elements(|name, element| {
            if name == set && differs(&element.fingerprint()) {
                missing.insert(element.fingerprint(), tell(&element, "missing"));
            }
        });
        for text in missing.into_values() {
            verified.differs(|| text);
        }
        let foreign = connection.elements(family, set, Vec::new, |all, element| {
            if differs(&element.fingerprint()) && all.len() <= Verified::MOST {
                all.push(tell(&element, "not ours"));
            }
        })?;
        for text in foreign {
            verified.differs(|| text);
        }
    }
    Ok(())
}

/// As nft would list it: `10.96.0.10 . 6 . 80 : goto lb-3`.
fn words(element: &Element<'_>, fields: &[Field], family: Family) -> String {
    let mut text = key(element.key, fields, family);
    if !element.key_end.is_empty() {
        text = format!("{text} to {}", key(element.key_end, fields, family));
    }
    if element.ends_range {
        text = format!("end of a range before {text}");
    }
    match element.verdict {
        Some("drop") => format!("{text} : drop"),
        Some(chain) => format!("{text} : goto {chain}"),
        None if element.data.is_empty() => text,
        None => {
            let data = key(element.data, &[Field::DestAddr, Field::DestPort], family);
            format!("{text} : {data}")
        }
    }
}

fn key(mut bytes: &[u8], fields: &[Field], family: Family) -> String {
    let mut words = Vec::new();
    for field in fields {
        let addr = matches!(field, Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr);
        let length = if addr && family == Family::V6 { 16 } else { 4 };
        let (part, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        words.push(match (field, part) {
            (Field::Proto, [proto, ..]) => proto.to_string(),
            (Field::DestPort | Field::OriginalDestPort, [high, low, ..]) => {
                u16::from_be_bytes([*high, *low]).to_string()
            }
            (Field::RandomIndex, [a, b, c, d]) => u32::from_ne_bytes([*a, *b, *c, *d]).to_string(),
            (_, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            (_, part) => {
                part.first_chunk::<16>().map_or_else(|| "?".to_owned(), |a| Ipv6Addr::from(*a).to_string())
            }
        });
    }
    words.join(" . ")
}
