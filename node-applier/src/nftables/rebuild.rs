//! The whole table anew, in one transaction.

use std::net::IpAddr;

use rulecast_bundle::nft::{Family, SetDef};
use rulecast_netlink::{Batch, Connection, Params, Value};

use super::layout::{Layout, SetId, Subject, endpoint_data};
use super::table::{Table, Wanted};
use super::target::{Chain, Content, Installed};
use super::update::{add, add_static};
use crate::backend::BackendError;
use crate::view::View;

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
    fixed_part(batch, &table.layout, &kept);
    table.targets = view
        .targets()
        .filter(|(id, _)| id.family() == family)
        .filter_map(|(id, target)| Some((*id, Installed::new(target, view, None)?)))
        .collect();
    chains(batch, &mut table)?;
    elements(batch, &mut table)?;
    for (element_family, set, parts) in view.elements() {
        if *element_family == family {
            add_static(batch, family, set, parts);
        }
    }
    if let Some(set) = table.layout.node_addresses {
        table.node_addrs = table.wanted_node_addrs(view.fact(), node_addrs);
        for addr in &table.node_addrs {
            let key = rulecast_netlink::Key::new().addr(*addr);
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

/// Sets, chains and rules that do not depend on any Service.
fn fixed_part(batch: &mut Batch, layout: &Layout, kept: &[String]) {
    let (rules, family) = (&layout.rules, layout.family);
    for set in rules.sets.iter().filter(|s| !kept.iter().any(|k| k == s.name.as_str())) {
        batch.add_set(family, set);
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

/// The chains that the targets need, before the elements that lead there.
fn chains(batch: &mut Batch, table: &mut Table) -> Result<(), BackendError> {
    let mut needed: Vec<Chain> = Vec::new();
    for (id, target) in &table.targets {
        let mut note = |_, _, content| {
            if let Content::Goto(chain) = content {
                needed.push(chain);
            }
        };
        target.verdicts(&table.layout, id, &mut note)?;
        if target.affinity.is_some() {
            target.shared(&table.layout, id, &mut note)?;
        }
    }
    needed.sort_unstable();
    needed.dedup();
    for chain in needed {
        table.chains.require(batch, &table.layout, chain)?;
    }
    Ok(())
}

/// The elements of all targets, set by set: elements of one set travel together.
fn elements(batch: &mut Batch, table: &mut Table) -> Result<(), BackendError> {
    let mut by_set: Vec<Vec<(rulecast_netlink::Key, Content)>> =
        vec![Vec::new(); table.layout.rules.sets.len()];
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
    for (set, elements) in by_set.into_iter().enumerate() {
        for (key, content) in elements {
            add(batch, &table.layout, set, &key, content)?;
        }
    }
    for balancer in 0..table.layout.balancers.len() {
        endpoints(batch, table, balancer)?;
    }
    Ok(())
}

fn endpoints(batch: &mut Batch, table: &Table, balancer: usize) -> Result<(), BackendError> {
    let layout = &table.layout;
    let set: SetId = layout.balancers[balancer].endpoints;
    for (id, target) in &table.targets {
        for lane_key in &target.keys {
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
