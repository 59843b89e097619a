//! Forgetting endpoints that left.
//!
//! Maps of clients are filled by packets, so the kernel's content is the only truth: it is read and compared with the
//! members. A client is never remembered anew at an endpoint that left, since the rule that remembers looks into the
//! set of members, which changed in the transaction before.

use std::collections::HashSet;

use rulecast_bundle::Name;
use rulecast_netlink::{Batch, Connection, Key};

use super::chains;
use super::layout::{Layout, endpoint_data};
use super::table::Table;

use crate::backend::BackendError;
use crate::view::PortId;

/// How many are deleted at a time: when one of them timed out since it was read, the whole batch fails.
const LOT: usize = 64;

/// Deletes from a Service port's maps the clients whose endpoint is no longer a member of the list that the map is for.
pub(super) fn purge(connection: &mut Connection, table: &Table, port: PortId) -> Result<(), BackendError> {
    let layout = &table.layout;
    for map in &layout.rules.port_maps {
        if !table.chains.has_map(port, &map.name) {
            continue;
        }
        let valid = valid_endpoints(table, port, &map.name)?;
        let map = port.name(&map.name);
        for lot in stale_clients(connection, layout, &map, &valid)?.chunks(LOT) {
            if !delete(connection, layout, &map, lot)? {
                for one in lot {
                    // Whoever timed out meanwhile is gone as well.
                    delete(connection, layout, &map, std::slice::from_ref(one))?;
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
    map: &Name,
    keys: &[Key],
) -> Result<bool, BackendError> {
    let mut batch = Batch::new();
    for key in keys {
        batch.delete_element(layout.family, map.as_str(), key);
    }
    match connection.commit(batch) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The members of the Service port's targets that look clients up in this map.
fn valid_endpoints(table: &Table, port: PortId, map: &Name) -> Result<HashSet<Vec<u8>>, BackendError> {
    let mut valid = HashSet::new();
    let own = port.name(map);
    for id in port.groups() {
        let Some(target) = table.targets.get(&id) else { continue };
        let mut uses = false;
        let mut result = Ok(());
        target.own_chains(&table.layout, &id, |chain| match chains::looked_up(&table.layout, chain) {
            Ok(maps) => uses |= maps.contains(&own),
            Err(error) => result = Err(error),
        })?;
        result?;
        if uses {
            valid.extend(target.members.iter().map(|e| endpoint_data(*e).as_bytes().to_vec()));
        }
    }
    Ok(valid)
}

fn stale_clients(
    connection: &mut Connection,
    layout: &Layout,
    map: &Name,
    valid: &HashSet<Vec<u8>>,
) -> Result<Vec<Key>, BackendError> {
    let stale = connection.elements(layout.family, map.as_str(), Vec::new, |stale, element| {
        if !valid.contains(element.data) {
            stale.extend(Key::from_bytes(element.key));
        }
    })?;
    Ok(stale)
}
