//! The whole table anew, in one transaction.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::nft::{Family, SetDef};
use rulecast_netlink::{Batch, Connection, Key, Params, Value};

use super::layout::{Layout, SetId, Subject, endpoint_data};
use super::table::{Table, Wanted};
use super::target::{Content, Installed};
use super::update::{add, add_static};
use crate::backend::BackendError;
use crate::view::View;

/// What an endpoint's element takes in a batch, about: 48 bytes in IPv4.
const ENDPOINT_BYTES: usize = 48;

/// Writes a family's table. What stays of an existing one are its affinity maps, if their shape is the same: everything
/// else goes and comes back within the transaction, so that no packet sees a table without rules.
pub(super) fn rebuild(
    batch: &mut Batch,
    connection: &mut Connection,
    view: &View,
    family: Family,
    node_addrs: &[IpAddr],
) -> Result<Option<Table>, BackendError> {
    let layout = view.rules(family).map(|rules| Layout::new(family, rules)).transpose()?;
    let kept = clear(batch, connection, family, layout.as_ref())?;
    let Some(layout) = layout else { return Ok(None) };
    let mut table = Table::new(layout);
    table.targets = view
        .targets()
        .filter(|(id, _)| id.family() == family)
        .filter_map(|(id, target)| Some((*id, Installed::new(target, None)?)))
        .collect();
    let elements = elements(&mut table)?;
    let endpoints = count_endpoints(&table)?;
    batch.reserve(endpoints.iter().sum::<usize>() * ENDPOINT_BYTES);
    let counts = |set: SetId| {
        let balancers = table.layout.balancers.iter().zip(&endpoints);
        let endpoints: usize = balancers.filter(|(b, _)| b.endpoints == set).map(|(_, count)| count).sum();
        elements[set].len() + endpoints
    };
    fixed_part(batch, &table.layout, &kept, counts);
    write_elements(batch, &mut table, elements)?;
    for (element_family, set, parts) in view.elements() {
        if *element_family == family {
            add_static(batch, family, set, parts);
        }
    }
    if let Some(set) = table.layout.node_addresses {
        table.node_addrs = table.wanted_node_addrs(view.fact(), node_addrs);
        for addr in &table.node_addrs {
            let key = Key::new().addr(*addr);
            batch.add_element(family, table.layout.set(set).name.as_str(), &key, Value::None);
        }
    }
    Ok(Some(table))
}

/// Removes what is there, and returns the sets that stay.
fn clear(
    batch: &mut Batch,
    connection: &mut Connection,
    family: Family,
    layout: Option<&Layout>,
) -> Result<Vec<String>, BackendError> {
    if !connection.table_exists(family)? {
        if layout.is_some() {
            batch.add_table(family);
        }
        return Ok(Vec::new());
    }
    let Some(layout) = layout else {
        batch.delete_table(family);
        return Ok(Vec::new());
    };
    batch.flush_table_rules(family);
    let stays = |def: &SetDef, set: &rulecast_netlink::SetInfo| def.dynamic && set.matches(def, family);
    let mut kept = Vec::new();
    for set in connection.sets(family)? {
        if layout.rules.sets.iter().any(|def| stays(def, &set)) {
            kept.push(set.name);
        } else {
            batch.delete_set(family, &set.name);
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

/// Sets, chains and rules that do not depend on any Service.
fn fixed_part(batch: &mut Batch, layout: &Layout, kept: &[String], count: impl Fn(SetId) -> usize) {
    let (rules, family) = (&layout.rules, layout.family);
    for (id, set) in rules.sets.iter().enumerate() {
        if kept.iter().any(|k| k == set.name.as_str()) {
            continue;
        }
        if set.size > 0 || set.interval {
            batch.add_set(family, set);
        } else {
            batch.add_set(family, &SetDef { size: size(count(id)), ..set.clone() });
        }
    }
    for chain in &rules.chains {
        batch.add_chain(family, chain.name.as_str(), chain.hook);
    }
    for chain in &rules.chains {
        for rule in &chain.rules {
            batch.add_rule(family, chain.name.as_str(), rule, Params { members: 1, ..Params::default() });
        }
    }
}

/// By set, the elements of all targets that are not endpoints.
type Elements = Vec<Vec<(Key, Content)>>;

fn elements(table: &mut Table) -> Result<Elements, BackendError> {
    let mut by_set: Elements = vec![Vec::new(); table.layout.rules.sets.len()];
    for (id, target) in &table.targets {
        target.verdicts(&table.layout, id, |set, key, content| by_set[set].push((key, content)))?;
        target.shared(&table.layout, id, |set, key, content| {
            let wanted = table.shared.entry((set, key)).or_insert(Wanted { by: 0, content });
            wanted.by += 1;
            if wanted.by == 1 {
                by_set[set].push((key, content));
            }
        })?;
    }
    Ok(by_set)
}

/// The chains that elements lead to, then the elements set by set: elements of one set travel together.
fn write_elements(batch: &mut Batch, table: &mut Table, elements: Elements) -> Result<(), BackendError> {
    let mut chains = BTreeSet::new();
    for (_, content) in elements.iter().flatten() {
        if let Content::Goto(chain) = content {
            chains.insert(*chain);
        }
    }
    for chain in chains {
        table.chains.require(batch, &table.layout, chain)?;
    }
    for (set, elements) in elements.into_iter().enumerate() {
        for (key, content) in elements {
            add(batch, &table.layout, set, &key, content)?;
        }
    }
    for balancer in 0..table.layout.balancers.len() {
        endpoints(batch, table, balancer)?;
    }
    Ok(())
}

/// By balancer.
fn count_endpoints(table: &Table) -> Result<Vec<usize>, BackendError> {
    let mut counts = vec![0; table.layout.balancers.len()];
    for target in table.targets.values() {
        for lane_key in target.keys.iter() {
            counts[table.layout.balancer_of(lane_key.lane)?] += target.members.len();
        }
    }
    Ok(counts)
}

fn endpoints(batch: &mut Batch, table: &Table, balancer: usize) -> Result<(), BackendError> {
    let layout = &table.layout;
    let set: SetId = layout.balancers[balancer].endpoints;
    for (id, target) in &table.targets {
        for lane_key in target.keys.iter() {
            if layout.balancer_of(lane_key.lane)? != balancer {
                continue;
            }
            for (index, endpoint) in target.members.iter().enumerate() {
                let key = layout.key(set, &Subject::lane(id, lane_key).index(index))?;
                let data = endpoint_data(*endpoint);
                batch.add_element(layout.family, layout.set(set).name.as_str(), &key, Value::Bytes(&data));
            }
        }
    }
    Ok(())
}
