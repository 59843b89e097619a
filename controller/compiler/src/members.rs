//! A live shape and today's EndpointSlices in, the members of its targets out.
//!
//! What a target is comes from its record alone, so any shape can be given today's endpoints: one that is held, an older
//! one, or one from another pool.

use rulecast_bundle::{Empty, Group, GroupId, GroupKind, Key, Proto, Value};

use crate::endpoints::{self, BadEndpoint, Tags};
use crate::model::Slice;

/// One Service's records, with its members.
#[derive(Default)]
pub(crate) struct Populated {
    /// Sorted by key.
    pub(crate) records: Vec<(Key, Value)>,
    /// Endpoints that were left out.
    pub(crate) bad: Vec<BadEndpoint>,
}

/// Gives one Service's shape its members.
pub(crate) fn populate(shape: &[(Key, Value)], slices: &[&Slice], tags: &mut Tags) -> Populated {
    let mut out = Populated::default();
    let groups = shape.iter().filter_map(|record| match record {
        (Key::Group(id), Value::Group(group)) => Some((*id, group)),
        _ => None,
    });
    let groups: Vec<(GroupId, &Group)> = groups.collect();
    for lists in groups.chunk_by(|(a, _), (b, _)| (a.addr, a.port, a.proto) == (b.addr, b.port, b.proto)) {
        port(lists, slices, tags, &mut out);
    }
    let others = shape.iter().filter(|(key, _)| !matches!(key, Key::Group(_)));
    out.records.extend(others.cloned());
    out.records.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    out.records.dedup_by(|(a, _), (b, _)| a == b);
    out.bad.sort_unstable();
    out.bad.dedup();
    out
}

/// One Service port in one family: its cluster list, its local list, or both.
fn port(lists: &[(GroupId, &Group)], slices: &[&Slice], tags: &mut Tags, out: &mut Populated) {
    let (id, group) = lists[0];
    let candidates = endpoints::candidates(slices, &group.port_name, id.proto, id.family(), &mut out.bad);
    let only_local = lists.iter().all(|(id, _)| id.kind == GroupKind::Local);
    for (id, group) in lists {
        let local = id.kind == GroupKind::Local;
        // Refused when nothing could serve it anywhere; dropped when only this node cannot.
        let empty = if local && !candidates.usable.is_empty() { Empty::Drop } else { Empty::Reject };
        let group = Group { empty, ..(*group).clone() };
        out.records.push((Key::Group(*id), Value::Group(group)));
        let mut entries = if local {
            endpoints::local_lists(&candidates.usable, tags)
        } else {
            endpoints::cluster_lists(&candidates.usable, tags)
        };
        // TCP connections stay where they are as long as they live; so do UDP flows while their endpoint serves.
        if id.proto == Proto::Udp && local == only_local {
            entries.extend(endpoints::serving(&candidates, local, tags));
        }
        out.records.extend(entries.into_iter().map(|e| {
            (Key::Member { group: *id, scope: e.scope, port: e.port, addr: e.addr }, Value::Member(e.member))
        }));
    }
}
