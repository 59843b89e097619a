//! The difference of one update, as elements to delete and to add.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use rulecast_bundle::{GroupId, LaneKey};
use rulecast_netlink::{Batch, Key, Value, Verdict};

use super::layout::{Layout, SetId, Subject, endpoint_data};
use super::out::Out;
use super::table::Table;
use super::target::{Content, Installed};
use super::{chains, fixed, sources};
use crate::backend::BackendError;
use crate::view::{Endpoint, PortId, Touched, View};

/// Elements by set.
#[derive(Default)]
struct Plan {
    gone: BTreeMap<SetId, Vec<Key>>,
    came: BTreeMap<SetId, Vec<(Key, Content)>>,
    came_endpoints: BTreeMap<SetId, Vec<(Key, Endpoint)>>,
    /// Whether shared elements were there before this update.
    shared: HashMap<(SetId, Key), bool>,
}

/// Adds to `batch` what brings the table to the view. Returns the Service ports with session affinity that lost a member.
pub(super) fn update(
    batch: &mut Batch,
    table: &mut Table,
    view: &View,
    touched: &Touched,
    node_addrs: &[IpAddr],
) -> Result<BTreeSet<PortId>, BackendError> {
    let mut plan = Plan::default();
    let mut purge = BTreeSet::new();
    let family = table.layout.family;
    for id in touched.targets.iter().filter(|id| id.family() == family) {
        let old = table.targets.remove(id);
        let new = view.target(id).and_then(|target| Installed::new(target, old.as_ref()));
        if lost_sticky_member(old.as_ref(), new.as_ref()) {
            purge.insert(PortId::from(id));
        }
        if old != new {
            if lost_own_chains(old.as_ref(), new.as_ref()) {
                table.leftovers.insert(id.into(), Instant::now());
            }
            compare(&mut plan, table, id, old.as_ref(), new.as_ref())?;
            for (chain, members) in new.iter().flat_map(|new| new.sticky_chains(id)) {
                table.chains.require_sticky(batch, &table.layout, chain, members)?;
            }
        }
        if let Some(new) = new {
            table.targets.insert(*id, new);
        }
    }
    settle_shared(&mut plan, table);
    write(batch, table, plan)?;
    let sources = sources::wanted(table, view, touched);
    sources.delete(batch, table);
    fixed::update(batch, family, touched);
    sources.add(batch, table);
    node_addresses(batch, table, view, node_addrs);
    Ok(purge)
}

/// Also when affinity comes: clients may be remembered from before it went.
fn lost_sticky_member(old: Option<&Installed>, new: Option<&Installed>) -> bool {
    let sticky = |side: Option<&Installed>| side.is_some_and(|s| s.affinity.is_some());
    if !sticky(new) {
        return false;
    }
    let Some(old) = old.filter(|o| o.affinity.is_some()) else { return true };
    let stays: BTreeSet<&Endpoint> = new.into_iter().flat_map(|n| &n.members).collect();
    old.members.iter().any(|e| !stays.contains(e))
}

/// Whether elements may no longer lead to some of the Service port's own chains.
fn lost_own_chains(old: Option<&Installed>, new: Option<&Installed>) -> bool {
    let Some(old) = old.filter(|o| o.affinity.is_some()) else { return false };
    new.is_none_or(|new| {
        (new.affinity, &new.keys, new.members.is_empty()) != (old.affinity, &old.keys, old.members.is_empty())
    })
}

fn compare(
    plan: &mut Plan,
    table: &mut Table,
    id: &GroupId,
    old: Option<&Installed>,
    new: Option<&Installed>,
) -> Result<(), BackendError> {
    let layout = &table.layout;
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for (side, elements) in [(old, &mut before), (new, &mut after)] {
        if let Some(side) = side {
            side.elements(layout, id, |set, key, content| {
                elements.insert((set, key), content);
            })?;
        }
    }
    for ((set, key), content) in &before {
        if after.get(&(*set, *key)) != Some(content) {
            plan.gone.entry(*set).or_default().push(*key);
        }
    }
    for ((set, key), content) in &after {
        if before.get(&(*set, *key)) != Some(content) {
            plan.came.entry(*set).or_default().push((*key, *content));
        }
    }
    compare_endpoints(plan, layout, id, old, new)?;
    for (side, step) in [(old, -1), (new, 1)] {
        let Some(side) = side else { continue };
        side.shared(layout, id, |set, key| {
            let wanted = table.shared.entry((set, key)).or_default();
            plan.shared.entry((set, key)).or_insert(*wanted > 0);
            *wanted = wanted.saturating_add_signed(step);
        })?;
    }
    Ok(())
}

/// A number whose member changed is deleted and added again; numbers at the end come and go.
fn compare_endpoints(
    plan: &mut Plan,
    layout: &Layout,
    id: &GroupId,
    old: Option<&Installed>,
    new: Option<&Installed>,
) -> Result<(), BackendError> {
    let keys = |side: Option<&Installed>| -> BTreeSet<LaneKey> {
        side.map(|s| s.keys.iter().copied().collect()).unwrap_or_default()
    };
    let members = |side: Option<&Installed>, has: bool| {
        side.filter(|_| has).map(|s| s.members.clone()).unwrap_or_default()
    };
    let (old_keys, new_keys) = (keys(old), keys(new));
    for lane_key in old_keys.union(&new_keys) {
        let set = layout.lane(lane_key.lane)?.1.endpoints;
        let subject = Subject::lane(id, lane_key);
        let before = members(old, old_keys.contains(lane_key));
        let after = members(new, new_keys.contains(lane_key));
        for index in 0..before.len().max(after.len()) {
            let (was, is) = (before.get(index), after.get(index));
            if was == is {
                continue;
            }
            let key = layout.key(set, &subject.index(index))?;
            if was.is_some() {
                plan.gone.entry(set).or_default().push(key);
            }
            if let Some(endpoint) = is {
                plan.came_endpoints.entry(set).or_default().push((key, *endpoint));
            }
        }
    }
    Ok(())
}

/// Shared elements come with the first that wants them and go with the last.
fn settle_shared(plan: &mut Plan, table: &mut Table) {
    for ((set, key), before) in std::mem::take(&mut plan.shared) {
        let now = table.shared.get(&(set, key)).is_some_and(|by| *by > 0);
        if !now {
            table.shared.remove(&(set, key));
        }
        match (before, now) {
            (true, false) => plan.gone.entry(set).or_default().push(key),
            (false, true) => plan.came.entry(set).or_default().push((key, Content::None)),
            _ => {}
        }
    }
}

/// Chains first, since elements lead to them; deletions before additions, since keys may be the same.
fn write(batch: &mut Batch, table: &mut Table, mut plan: Plan) -> Result<(), BackendError> {
    let layout = &table.layout;
    for (_, content) in plan.came.values().flatten() {
        if let Content::Goto(chain) = content {
            table.chains.require(batch, layout, *chain)?;
        }
    }
    for (set, keys) in &mut plan.gone {
        keys.sort_unstable();
        for key in keys {
            batch.delete_element(layout.family, layout.set(*set).name.as_str(), key);
        }
    }
    for (set, elements) in &mut plan.came {
        elements.sort_unstable();
        for (key, content) in elements {
            add(batch, layout, *set, key, *content)?;
        }
    }
    for (set, elements) in &plan.came_endpoints {
        for (key, endpoint) in elements {
            let data = endpoint_data(*endpoint);
            batch.add_element(layout.family, layout.set(*set).name.as_str(), key, Value::Bytes(&data));
        }
    }
    Ok(())
}

/// Adds an element that is not an endpoint's.
pub(super) fn add(
    out: &mut impl Out,
    layout: &Layout,
    set: SetId,
    key: &Key,
    content: Content,
) -> Result<(), BackendError> {
    let name = layout.set(set).name.as_str();
    match content {
        Content::None => out.add_element(layout.family, name, key, Value::None),
        Content::Drop => out.add_element(layout.family, name, key, Value::Verdict(Verdict::Drop)),
        Content::Goto(chain) => {
            let chain = chains::name(layout, chain)?;
            out.add_element(layout.family, name, key, Value::Verdict(Verdict::Goto(chain.as_str())));
        }
    }
    Ok(())
}

fn node_addresses(batch: &mut Batch, table: &mut Table, view: &View, node_addrs: &[IpAddr]) {
    let Some(set) = table.layout.node_addresses else { return };
    let wanted = table.wanted_node_addrs(view, node_addrs);
    let (name, family) = (table.layout.set(set).name.as_str(), table.layout.family);
    for addr in table.node_addrs.difference(&wanted) {
        batch.delete_element(family, name, &Key::new().addr(*addr));
    }
    for addr in wanted.difference(&table.node_addrs) {
        batch.add_element(family, name, &Key::new().addr(*addr), Value::None);
    }
    table.node_addrs = wanted;
}
