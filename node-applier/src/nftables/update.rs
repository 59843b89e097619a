//! The difference of one update, as elements to delete and to add.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{GroupId, LaneKey, Name, Part};
use rulecast_netlink::{Batch, Key, Value, Verdict};

use super::chains::Chains;
use super::layout::{Layout, SetId, Subject, endpoint_data};
use super::table::{Table, Wanted};
use super::target::{Content, Installed};
use crate::backend::BackendError;
use crate::view::{Endpoint, Touched, View};

/// Elements by set.
#[derive(Default)]
struct Plan {
    gone: BTreeMap<SetId, Vec<Key>>,
    came: BTreeMap<SetId, Vec<(Key, Content)>>,
    came_endpoints: BTreeMap<SetId, Vec<(Key, Endpoint)>>,
    /// Shared elements as they were before this update.
    shared: HashMap<(SetId, Key), Option<Wanted>>,
}

/// Adds to `batch` what brings the table to the view. Returns whether a target with session affinity lost a member.
pub(super) fn update(
    batch: &mut Batch,
    table: &mut Table,
    view: &View,
    touched: &Touched,
    node_addrs: &[IpAddr],
) -> Result<bool, BackendError> {
    let mut plan = Plan::default();
    let mut purge = false;
    let family = table.layout.family;
    for id in touched.targets.iter().filter(|id| id.family() == family) {
        let old = table.targets.remove(id);
        let new = view.target(id).and_then(|target| Installed::new(target, old.as_ref()));
        purge |= lost_sticky_member(old.as_ref(), new.as_ref());
        if old != new {
            compare(&mut plan, table, id, old.as_ref(), new.as_ref())?;
        }
        if let Some(new) = new {
            table.targets.insert(*id, new);
        }
    }
    settle_shared(&mut plan, table);
    write(batch, table, plan)?;
    static_elements(batch, family, touched);
    node_addresses(batch, table, view, node_addrs);
    Ok(purge)
}

/// Also when affinity comes or goes: nobody keeps clients and members together while it is off.
fn lost_sticky_member(old: Option<&Installed>, new: Option<&Installed>) -> bool {
    let sticky = |side: Option<&Installed>| side.is_some_and(|s| s.affinity.is_some());
    if sticky(old) != sticky(new) {
        return true;
    }
    let Some(old) = old.filter(|o| o.affinity.is_some()) else { return false };
    let stays: BTreeSet<&Endpoint> = new.into_iter().flat_map(|n| &n.members).collect();
    old.members.iter().any(|e| !stays.contains(e)) || new.is_none_or(|n| n.keys != old.keys)
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
    for (side, verdicts) in [(old, &mut before), (new, &mut after)] {
        if let Some(side) = side {
            side.verdicts(layout, id, |set, key, content| {
                verdicts.insert((set, key), content);
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
        side.shared(layout, id, |set, key, content| {
            let now = table.shared.get(&(set, key)).copied();
            plan.shared.entry((set, key)).or_insert(now);
            let wanted = table.shared.entry((set, key)).or_insert(Wanted { by: 0, content });
            wanted.by = wanted.by.saturating_add_signed(step);
            if step > 0 {
                wanted.content = content;
            }
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
        let set = layout.balancers[layout.balancer_of(lane_key.lane)?].endpoints;
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
        let now = table.shared.get(&(set, key)).copied().filter(|w| w.by > 0);
        if now.is_none() {
            table.shared.remove(&(set, key));
        }
        if before.map(|w| w.content) == now.map(|w| w.content) {
            continue;
        }
        if before.is_some() {
            plan.gone.entry(set).or_default().push(key);
        }
        if let Some(now) = now {
            plan.came.entry(set).or_default().push((key, now.content));
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
    batch: &mut Batch,
    layout: &Layout,
    set: SetId,
    key: &Key,
    content: Content,
) -> Result<(), BackendError> {
    let name = layout.set(set).name.as_str();
    match content {
        Content::None => batch.add_element(layout.family, name, key, Value::None),
        Content::Drop => batch.add_element(layout.family, name, key, Value::Verdict(Verdict::Drop)),
        Content::Goto(chain) => {
            let chain = Chains::name(layout, chain)?;
            batch.add_element(layout.family, name, key, Value::Verdict(Verdict::Goto(chain.as_str())));
        }
    }
    Ok(())
}

fn static_elements(batch: &mut Batch, family: Family, touched: &Touched) {
    let of_family = |e: &&(Family, Name, Vec<Part>)| e.0 == family;
    // The same element removed and added leaves it as it is.
    for (_, set, parts) in touched.removed.difference(&touched.added).filter(of_family) {
        match range(parts) {
            (from, Some(to)) => batch.delete_range(family, set.as_str(), &from, &to),
            (key, None) => batch.delete_element(family, set.as_str(), &key),
        }
    }
    for (_, set, parts) in touched.added.difference(&touched.removed).filter(of_family) {
        add_static(batch, family, set, parts);
    }
}

/// Adds an element of a static set.
pub(super) fn add_static(batch: &mut Batch, family: Family, set: &Name, parts: &[Part]) {
    match range(parts) {
        (from, Some(to)) => batch.add_range(family, set.as_str(), &from, &to),
        (key, None) => batch.add_element(family, set.as_str(), &key, Value::None),
    }
}

/// The key, or the first and last key when a part is a prefix.
fn range(parts: &[Part]) -> (Key, Option<Key>) {
    let (mut from, mut to, mut ranged) = (Key::new(), Key::new(), false);
    for part in parts {
        let both = |k: Key| match part {
            Part::Addr(addr) => k.addr(*addr),
            Part::Proto(proto) => k.proto(*proto as u8),
            Part::Port(port) => k.port(*port),
            Part::Prefix(..) => k,
        };
        (from, to) = (both(from), both(to));
        if let Part::Prefix(addr, len) = part {
            ranged = true;
            from = from.addr(*addr);
            to = to.addr(last_address(*addr, *len));
        }
    }
    (from, ranged.then_some(to))
}

fn last_address(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
            IpAddr::from((a.to_bits() | host).to_be_bytes())
        }
        IpAddr::V6(a) => {
            let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
            IpAddr::from((a.to_bits() | host).to_be_bytes())
        }
    }
}

fn node_addresses(batch: &mut Batch, table: &mut Table, view: &View, node_addrs: &[IpAddr]) {
    let Some(set) = table.layout.node_addresses else { return };
    let wanted = table.wanted_node_addrs(view.fact(), node_addrs);
    let (name, family) = (table.layout.set(set).name.as_str(), table.layout.family);
    for addr in table.node_addrs.difference(&wanted) {
        batch.delete_element(family, name, &Key::new().addr(*addr));
    }
    for addr in wanted.difference(&table.node_addrs) {
        batch.add_element(family, name, &Key::new().addr(*addr), Value::None);
    }
    table.node_addrs = wanted;
}
