//! Forgetting endpoints that left.
//!
//! Affinity maps are filled by packets, so the kernel's content is the only truth: it is read and compared with the
//! members. A client is never remembered anew at an endpoint that left, since the rule that remembers looks into the
//! set of members, which changed in the transaction before.

use std::collections::HashSet;

use rulecast_netlink::{Batch, Connection, Key};

use super::layout::{Layout, Subject, endpoint_data};
use super::table::Table;
use crate::backend::BackendError;

/// How many are deleted at a time: when one of them timed out since it was read, the whole batch fails.
const LOT: usize = 64;

/// Deletes remembered endpoints that are no longer members of the target that the client's key leads to.
pub(super) fn purge(connection: &mut Connection, table: &Table) -> Result<(), BackendError> {
    let layout = &table.layout;
    let clients: HashSet<usize> = layout.balancers.iter().filter_map(|b| Some(b.sticky?.clients)).collect();
    for set in clients {
        let valid = valid_pairs(table, set)?;
        for lot in stale_elements(connection, layout, set, &valid)?.chunks(LOT) {
            if !delete(connection, layout, set, lot)? {
                for one in lot {
                    // Whoever timed out meanwhile is gone as well.
                    delete(connection, layout, set, std::slice::from_ref(one))?;
                }
            }
        }
    }
    Ok(())
}

/// Deletes clients; false when one of them is not there any more, and none was deleted.
fn delete(
    connection: &mut Connection,
    layout: &Layout,
    set: usize,
    keys: &[Key],
) -> Result<bool, BackendError> {
    let mut batch = Batch::new();
    for key in keys {
        batch.delete_element(layout.family, layout.set(set).name.as_str(), key);
    }
    match connection.commit(batch) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A key without the client's address, and an endpoint.
type Pair = (Vec<u8>, Vec<u8>);

/// What may stand in an affinity map: key without the client, and endpoint.
fn valid_pairs(table: &Table, set: usize) -> Result<HashSet<Pair>, BackendError> {
    let layout = &table.layout;
    let mut valid = HashSet::new();
    for (id, target) in table.targets.iter().filter(|(_, t)| t.affinity.is_some()) {
        for lane_key in target.keys.iter() {
            let sets = layout.balancers[layout.balancer_of(lane_key.lane)?];
            if sets.sticky.is_none_or(|s| s.clients != set) {
                continue;
            }
            // The key of the verdict map is that of the affinity map without the client's address.
            let key = layout.key(sets.verdicts, &Subject::lane(id, lane_key))?;
            for endpoint in &target.members {
                valid.insert((key.as_bytes().to_vec(), endpoint_data(*endpoint).as_bytes().to_vec()));
            }
        }
    }
    Ok(valid)
}

fn stale_elements(
    connection: &mut Connection,
    layout: &Layout,
    set: usize,
    valid: &HashSet<Pair>,
) -> Result<Vec<Key>, BackendError> {
    let addr_len = if layout.family == rulecast_bundle::nft::Family::V4 { 4 } else { 16 };
    let name = layout.set(set).name.as_str();
    let stale = connection.elements(layout.family, name, Vec::new, |stale, element| {
        let Some((_, key)) = element.key.split_at_checked(addr_len) else { return };
        if !valid.contains(&(key.to_vec(), element.data.to_vec())) {
            stale.extend(Key::from_bytes(element.key));
        }
    })?;
    Ok(stale)
}
