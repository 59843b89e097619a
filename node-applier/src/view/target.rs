//! One load-balancing target, as a node sees it.

use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::{Empty, Group, LaneKey, Member};

/// Where an endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
}

/// An endpoint that this node may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// It runs on this node.
    pub own: bool,
    /// It is terminating, and used because nothing better is there.
    pub terminating: bool,
}

/// What the node needs of a [`Group`]; the rest stays in the bundle.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// See [`Group::keys`].
    pub keys: Arc<[LaneKey]>,
    /// See [`Group::affinity`].
    pub affinity: Option<u32>,
    /// See [`Group::empty`].
    pub empty: Empty,
}

impl From<Group> for Shape {
    fn from(group: Group) -> Self {
        Self { keys: group.keys.into(), affinity: group.affinity, empty: group.empty }
    }
}

/// A load-balancing target with the members that concern this node.
#[derive(Debug, Default)]
pub struct Target {
    pub(super) shape: Option<Shape>,
    /// By scope: all nodes, this zone, this node, and what only serves. Each sorted.
    pub(super) lists: [Vec<Usable>; 4],
}

/// Of a target's lists, the one that no new connection goes to.
pub(super) const SERVING: usize = 3;

impl Target {
    /// The group's shape; none when only members have been seen, which a complete bundle never leaves behind.
    #[must_use]
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// The members that this node uses.
    #[must_use]
    pub fn members(&self) -> &[Usable] {
        let specific = self.lists[..SERVING].iter().rev().find(|list| !list.is_empty());
        specific.map_or(&[], Vec::as_slice)
    }

    /// All endpoints that UDP flows may stay at. With kube-proxy, too, policies and topology are no reason to move one.
    pub fn serving(&self) -> impl Iterator<Item = Endpoint> {
        self.lists.iter().flatten().map(|usable| usable.endpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shape.is_none() && self.lists.iter().all(Vec::is_empty)
    }
}

/// Adds, changes or removes a member of a sorted list.
pub(super) fn set_member(list: &mut Vec<Usable>, endpoint: Endpoint, member: Option<Member>, me: u32) {
    let usable = member.map(|m| Usable { endpoint, own: m.node == me, terminating: m.terminating });
    match (list.binary_search_by_key(&endpoint, |usable| usable.endpoint), usable) {
        (Ok(at), Some(usable)) => list[at] = usable,
        (Err(at), Some(usable)) => list.insert(at, usable),
        (Ok(at), None) => drop(list.remove(at)),
        (Err(_), None) => {}
    }
}
