//! The whole table anew, in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rulecast_bundle::nft::{Family, Field, Rule, SetDef, Statement};
use rulecast_netlink::{Batch, Connection, Key, Params, Value};

use super::layout::{Layout, SetId, Subject, endpoint_data};
use super::out::Out;
use super::table::Table;
use super::target::{Content, Installed};
use super::update::add;
use super::{chains, fixed, sources};
use crate::backend::BackendError;
use crate::view::{PortId, Touched, View};

/// What an endpoint's element takes in a batch, about: 48 bytes in IPv4.
const ENDPOINT_BYTES: usize = 48;

/// Writes a family's table. What stays of an existing one are the maps of clients, if their shape is the same: everything
/// else goes and comes back within the transaction, so that no packet sees a table without rules. Also returns the Service
/// ports whose maps stay.
pub(super) fn rebuild(
    batch: &mut Batch,
    connection: &mut Connection,
    view: &View,
    family: Family,
    node_addrs: &[IpAddr],
) -> Result<Option<(Table, BTreeSet<PortId>)>, BackendError> {
    let Some((mut table, elements)) = resolve(view, family)? else {
        if connection.table_exists(family)? {
            batch.delete_table(family);
        }
        return Ok(None);
    };
    let kept = clear(batch, connection, &table.layout, &elements)?;
    write(batch, &mut table, elements, view, node_addrs)?;
    Ok(Some((table, kept)))
}

/// The table that a family is to have, with no number given to any member before; none: it has no table.
pub(super) fn resolve(view: &View, family: Family) -> Result<Option<(Table, Elements)>, BackendError> {
    let Some(rules) = view.rules(family) else { return Ok(None) };
    let mut table = Table::new(Layout::new(family, rules)?);
    table.targets = view
        .targets()
        .filter(|(id, _)| id.family() == family)
        .filter_map(|(id, target)| Some((*id, Installed::new(target, None)?)))
        .collect();
    let elements = elements(&mut table)?;
    Ok(Some((table, elements)))
}

/// Writes a table where there is none.
pub(super) fn write(
    out: &mut impl Out,
    table: &mut Table,
    elements: Elements,
    view: &View,
    node_addrs: &[IpAddr],
) -> Result<(), BackendError> {
    let family = table.layout.family;
    let endpoints = count_endpoints(table)?;
    out.reserve(endpoints.values().sum::<usize>() * ENDPOINT_BYTES);
    let fixed = fixed::count(view, family);
    let counts = |set: SetId| {
        let others = fixed.get(&table.layout.set(set).name).copied().unwrap_or_default();
        elements[set].len() + endpoints.get(&set).copied().unwrap_or_default() + others
    };
    fixed_part(out, &table.layout, &pods(view, family), counts);
    write_elements(out, table, elements, endpoints.keys().copied())?;
    for (element_family, set, parts) in view.elements() {
        if *element_family == family {
            fixed::add(out, family, set, parts);
        }
    }
    sources::wanted(table, view, &Touched { fact: true, ..Touched::default() }).add(out, table);
    if let Some(set) = table.layout.node_addresses {
        table.node_addrs = table.wanted_node_addrs(view, node_addrs);
        for addr in &table.node_addrs {
            let key = Key::new().addr(*addr);
            out.add_element(family, table.layout.set(set).name.as_str(), &key, Value::None);
        }
    }
    Ok(())
}

/// Removes what is there, but for the maps of clients that are wanted again in the same shape; returns whose they are.
fn clear(
    batch: &mut Batch,
    connection: &mut Connection,
    layout: &Layout,
    elements: &Elements,
) -> Result<BTreeSet<PortId>, BackendError> {
    let family = layout.family;
    if !connection.table_exists(family)? {
        batch.add_table(family);
        return Ok(BTreeSet::new());
    }
    let mut stay = HashMap::new();
    for (_, content) in elements.iter().flatten() {
        if let Content::Goto(chain) = content
            && let Some(port) = chain.port()
        {
            let maps = chains::maps(layout, *chain)?;
            stay.extend(maps.into_iter().map(|map| (map.name.to_string(), (map, port))));
        }
    }
    let mut kept = BTreeSet::new();
    batch.flush_table_rules(family);
    for set in connection.sets(family)? {
        match stay.get(&set.name) {
            Some((def, port)) if set.matches(def, family) => drop(kept.insert(*port)),
            _ => batch.delete_set(family, &set.name),
        }
    }
    for chain in connection.chains(family)? {
        batch.delete_chain(family, &chain);
    }
    Ok(kept)
}

/// Room in a set for so many elements. A set of known size has a hash table of fixed size, which the kernel fills twice
/// as fast as one that grows. When it is full an update fails, and the rebuild that follows makes it larger.
fn size(elements: usize) -> u32 {
    let room = elements.saturating_mul(2).next_power_of_two().max(1024);
    u32::try_from(room).unwrap_or(0)
}

fn pods(view: &View, family: Family) -> Vec<(IpAddr, u8)> {
    view.fact().pod_cidrs.iter().copied().filter(|(a, _)| Family::of(*a) == family).collect()
}

/// Writes what a table holds, as if nothing were there. Sets have other sizes than when they were made.
pub(super) fn rewrite(batch: &mut Batch, table: &Table, view: &View) -> Result<(), BackendError> {
    let (layout, family) = (&table.layout, table.layout.family);
    fixed_part(batch, layout, &pods(view, family), |_| 0);
    table.chains.write_all(batch, layout)?;
    let endpoint_counts = count_endpoints(table)?;
    batch.reserve(endpoint_counts.values().sum::<usize>() * ENDPOINT_BYTES);
    for (id, target) in &table.targets {
        let mut result = Ok(());
        target.elements(layout, id, |set, key, content| {
            if result.is_ok() {
                result = add(batch, layout, set, &key, content);
            }
        })?;
        result?;
    }
    for (set, key) in table.shared.iter().filter(|(_, by)| **by > 0).map(|(shared, _)| shared) {
        add(batch, layout, *set, key, Content::None)?;
    }
    for set in endpoint_counts.into_keys() {
        endpoints(batch, table, set)?;
    }
    for (_, set, parts) in view.elements().iter().filter(|element| element.0 == family) {
        fixed::add(batch, family, set, parts);
    }
    for (set, parts) in
        layout.rules.sources.iter().flat_map(|set| table.sources.iter().map(move |s| (set, s)))
    {
        fixed::add(batch, family, set, parts);
    }
    if let Some(set) = layout.node_addresses {
        for addr in &table.node_addrs {
            batch.add_element(family, layout.set(set).name.as_str(), &Key::new().addr(*addr), Value::None);
        }
    }
    Ok(())
}

/// Sets, chains and rules that do not depend on any Service.
fn fixed_part(out: &mut impl Out, layout: &Layout, pods: &[(IpAddr, u8)], count: impl Fn(SetId) -> usize) {
    let (rules, family) = (&layout.rules, layout.family);
    for (id, set) in rules.sets.iter().enumerate() {
        if set.size > 0 || set.interval {
            out.add_set(family, set);
        } else {
            out.add_set(family, &SetDef { size: size(count(id)), ..set.clone() });
        }
    }
    for chain in &rules.chains {
        out.add_chain(family, chain.name.as_str(), chain.hook);
    }
    for chain in &rules.chains {
        for rule in chain.rules.iter().flat_map(|rule| bind(rule, pods)) {
            out.add_rule(family, chain.name.as_str(), &rule, Params { members: 1, ..Params::default() });
        }
    }
}

/// A rule with the node's own pod CIDRs in the place of [`Statement::FromPods`], which see.
fn bind(rule: &Rule, pods: &[(IpAddr, u8)]) -> Vec<Rule> {
    let prefix = |(addr, len), negate| Statement::InPrefix { field: Field::SourceAddr, negate, addr, len };
    let Some(at) = rule.iter().position(|s| matches!(s, Statement::FromPods { .. })) else {
        return vec![rule.clone()];
    };
    let with = |statements: Vec<Statement>| [&rule[..at], &statements, &rule[at + 1..]].concat();
    match rule[at] {
        _ if pods.is_empty() => Vec::new(),
        Statement::FromPods { negate: true } => vec![with(pods.iter().map(|p| prefix(*p, true)).collect())],
        _ => pods.iter().map(|p| with(vec![prefix(*p, false)])).collect(),
    }
}

/// By set, the elements of all targets that are not endpoints.
pub(super) type Elements = Vec<Vec<(Key, Content)>>;

fn elements(table: &mut Table) -> Result<Elements, BackendError> {
    let mut by_set: Elements = vec![Vec::new(); table.layout.rules.sets.len()];
    for (id, target) in &table.targets {
        target.elements(&table.layout, id, |set, key, content| by_set[set].push((key, content)))?;
        target.shared(&table.layout, id, |set, key| {
            let wanted = table.shared.entry((set, key)).or_default();
            *wanted += 1;
            if *wanted == 1 {
                by_set[set].push((key, Content::None));
            }
        })?;
    }
    Ok(by_set)
}

/// The chains that elements lead to, then the elements set by set: elements of one set travel together. Chains come while
/// their maps are empty, since the kernel looks at every element of a map that a new rule uses.
fn write_elements(
    out: &mut impl Out,
    table: &mut Table,
    elements: Elements,
    endpoint_sets: impl Iterator<Item = SetId>,
) -> Result<(), BackendError> {
    let mut chains = BTreeSet::new();
    for (_, content) in elements.iter().flatten() {
        if let Content::Goto(chain) = content {
            chains.insert(*chain);
        }
    }
    // In one order, whatever that of the targets.
    let sticky: BTreeSet<_> =
        table.targets.iter().flat_map(|(id, target)| target.sticky_chains(id)).collect();
    for (chain, members) in sticky {
        table.chains.require_sticky(out, &table.layout, chain, members)?;
    }
    for chain in chains {
        table.chains.require(out, &table.layout, chain)?;
    }
    for (set, elements) in elements.into_iter().enumerate() {
        for (key, content) in elements {
            add(out, &table.layout, set, &key, content)?;
        }
    }
    for set in endpoint_sets {
        endpoints(out, table, set)?;
    }
    Ok(())
}

/// By set of endpoints.
fn count_endpoints(table: &Table) -> Result<BTreeMap<SetId, usize>, BackendError> {
    let mut counts = BTreeMap::new();
    for target in table.targets.values() {
        for lane_key in target.keys.iter() {
            *counts.entry(table.layout.lane(lane_key.lane)?.1.endpoints).or_default() += target.members.len();
        }
    }
    Ok(counts)
}

fn endpoints(out: &mut impl Out, table: &Table, set: SetId) -> Result<(), BackendError> {
    let layout = &table.layout;
    for (id, target) in &table.targets {
        for lane_key in target.keys.iter() {
            if layout.lane(lane_key.lane)?.1.endpoints != set {
                continue;
            }
            for (index, endpoint) in target.members.iter().enumerate() {
                let key = layout.key(set, &Subject::lane(id, lane_key).index(index))?;
                let data = endpoint_data(*endpoint);
                out.add_element(layout.family, layout.set(set).name.as_str(), &key, Value::Bytes(&data));
            }
        }
    }
    Ok(())
}
