//! A ruleset with its names looked up, and the keys that its sets want.

use std::net::IpAddr;

use rulecast_bundle::nft::{Affinity, Balancer, Family, Field, Ruleset, SetDef};
use rulecast_bundle::{GroupId, LaneKey, Name, Proto};
use rulecast_netlink::Key;

use crate::backend::BackendError;
use crate::view::Endpoint;

/// A set's position in [`Ruleset::sets`].
pub(super) type SetId = usize;

/// A ruleset with its sets found.
pub(super) struct Layout {
    pub(super) family: Family,
    pub(super) rules: Ruleset,
    pub(super) balancers: Vec<Sets>,
    /// By lane: the sets that hold its keys.
    pub(super) lanes: Vec<Vec<SetId>>,
    pub(super) hairpin: Option<SetId>,
    pub(super) node_addresses: Option<SetId>,
}

/// A balancer's sets.
#[derive(Clone, Copy)]
pub(super) struct Sets {
    pub(super) verdicts: SetId,
    pub(super) endpoints: SetId,
    pub(super) sticky: Option<StickySets>,
}

/// Its sets for session affinity.
#[derive(Clone, Copy)]
pub(super) struct StickySets {
    pub(super) clients: SetId,
    pub(super) verdicts: SetId,
    pub(super) members: SetId,
}

impl Layout {
    /// Looks the names up; refuses rules that name what they do not define.
    pub(super) fn new(family: Family, rules: &Ruleset) -> Result<Self, BackendError> {
        let find = |name: &Name| {
            let position = rules.sets.iter().position(|s| s.name == *name);
            position.ok_or_else(|| BackendError::Rules(format!("there is no set {name}")))
        };
        let sticky = |a: &Affinity| -> Result<StickySets, BackendError> {
            Ok(StickySets {
                clients: find(&a.clients)?,
                verdicts: find(&a.verdicts)?,
                members: find(&a.members)?,
            })
        };
        let sets = |b: &Balancer| -> Result<Sets, BackendError> {
            let sticky = b.affinity.as_ref().map(sticky).transpose()?;
            Ok(Sets { verdicts: find(&b.verdicts)?, endpoints: find(&b.endpoints)?, sticky })
        };
        Ok(Self {
            family,
            balancers: rules.balancers.iter().map(sets).collect::<Result<_, _>>()?,
            lanes: rules.lanes.iter().map(|l| l.sets.iter().map(find).collect()).collect::<Result<_, _>>()?,
            hairpin: rules.hairpin.as_ref().map(find).transpose()?,
            node_addresses: rules.node_addresses.as_ref().map(|n| find(&n.set)).transpose()?,
            rules: rules.clone(),
        })
    }

    pub(super) fn set(&self, id: SetId) -> &SetDef {
        &self.rules.sets[id]
    }

    /// The balancer that answers a lane's keys.
    pub(super) fn balancer_of(&self, lane: u8) -> Result<usize, BackendError> {
        let lane = self.rules.lanes.get(usize::from(lane));
        lane.map(|l| l.balancer.into()).ok_or_else(|| BackendError::Rules("a group's key has no lane".into()))
    }

    /// The key of an element that stands for `what`, in the shape that the set has.
    pub(super) fn key(&self, set: SetId, what: &Subject) -> Result<Key, BackendError> {
        let mut key = Key::new();
        for field in &self.set(set).key {
            key = what.append(key, *field).ok_or_else(|| {
                BackendError::Rules(format!("the keys of set {} do not fit its use", self.set(set).name))
            })?;
        }
        Ok(key)
    }
}

/// What an element stands for: a kernel key of a group, and perhaps one of its members.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    proto: Proto,
    vip: Option<IpAddr>,
    port: u16,
    endpoint: Option<Endpoint>,
    index: Option<u32>,
}

impl Subject {
    /// A group's key.
    pub(super) fn lane(id: &GroupId, key: &LaneKey) -> Self {
        Self { proto: id.proto, vip: key.addr, port: key.port, endpoint: None, index: None }
    }

    /// A group's key and the number of a member.
    pub(super) fn index(self, index: usize) -> Self {
        Self { index: Some(u32::try_from(index).unwrap_or(u32::MAX)), ..self }
    }

    /// A group's key and a member.
    pub(super) fn endpoint(self, endpoint: Endpoint) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// A member on its own.
    pub(super) fn of_endpoint(proto: Proto, endpoint: Endpoint) -> Self {
        Self { proto, vip: None, port: 0, endpoint: Some(endpoint), index: None }
    }

    /// Where a member is meant, the packet has been translated: its destination is the member, its original destination
    /// the group's key.
    fn append(&self, key: Key, field: Field) -> Option<Key> {
        Some(match (field, self.endpoint) {
            (Field::SourceAddr | Field::DestAddr, Some(endpoint)) => key.addr(endpoint.addr),
            (Field::DestPort, Some(endpoint)) => key.port(endpoint.port),
            (Field::DestAddr | Field::OriginalDestAddr, _) => key.addr(self.vip?),
            (Field::DestPort | Field::OriginalDestPort, _) => key.port(self.port),
            (Field::Proto, _) => key.proto(self.proto as u8),
            (Field::RandomIndex, _) => key.index(self.index?),
            (Field::SourceAddr, None) => return None,
        })
    }
}

/// The data of an endpoint: address and port.
pub(super) fn endpoint_data(endpoint: Endpoint) -> Key {
    Key::new().addr(endpoint.addr).port(endpoint.port)
}
