//! A ruleset with its names looked up, and the keys that its sets want.

use std::net::IpAddr;

use rulecast_bundle::nft::{Affinity, Family, Field, Lane, Ruleset, SetDef};
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
    /// By lane.
    pub(super) lanes: Vec<LaneSets>,
    pub(super) hairpin: Option<SetId>,
    pub(super) node_addresses: Option<SetId>,
}

/// A lane's sets.
pub(super) struct LaneSets {
    pub(super) verdicts: SetId,
    pub(super) endpoints: SetId,
    /// Those that hold its keys.
    pub(super) keys: Vec<SetId>,
    /// The map with a fixed chain, and that chain's position in [`Ruleset::chains`].
    pub(super) detour: Option<(SetId, usize)>,
    pub(super) sticky: Option<StickySets>,
    /// The first lane with the same chains that pick.
    pub(super) chains_of: u8,
    /// The first lane with the same chains that remember.
    pub(super) remembers_as: u8,
}

/// A lane's sets for session affinity.
#[derive(Clone, Copy)]
pub(super) struct StickySets {
    pub(super) members: SetId,
    pub(super) remember: Option<SetId>,
}

impl Layout {
    /// Looks the names up; refuses rules that name what they do not define.
    pub(super) fn new(family: Family, rules: &Ruleset) -> Result<Self, BackendError> {
        let find = |name: &Name| {
            let position = rules.sets.iter().position(|s| s.name == *name);
            position.ok_or_else(|| BackendError::Rules(format!("there is no set {name}")))
        };
        rules.sources.as_ref().map(find).transpose()?;
        let lanes = rules.lanes.iter().map(|lane| lane_sets(rules, lane, find));
        Ok(Self {
            family,
            lanes: lanes.collect::<Result<_, _>>()?,
            hairpin: rules.hairpin.as_ref().map(find).transpose()?,
            node_addresses: rules.node_addresses.as_ref().map(|n| find(&n.set)).transpose()?,
            rules: rules.clone(),
        })
    }

    pub(super) fn set(&self, id: SetId) -> &SetDef {
        &self.rules.sets[id]
    }

    /// A lane, with its sets.
    pub(super) fn lane(&self, lane: u8) -> Result<(&Lane, &LaneSets), BackendError> {
        let position = usize::from(lane);
        let found = self.rules.lanes.get(position).zip(self.lanes.get(position));
        found.ok_or_else(|| BackendError::Rules("a group's key has no lane".into()))
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

fn lane_sets(
    rules: &Ruleset,
    lane: &Lane,
    find: impl Fn(&Name) -> Result<SetId, BackendError>,
) -> Result<LaneSets, BackendError> {
    let sticky = |a: &Affinity| -> Result<StickySets, BackendError> {
        let remember = a.remember.as_ref().map(|r| find(&r.verdicts)).transpose()?;
        Ok(StickySets { members: find(&a.members)?, remember })
    };
    let chain = |name: &Name| {
        let position = rules.chains.iter().position(|c| c.name == *name);
        position.ok_or_else(|| BackendError::Rules(format!("there is no chain {name}")))
    };
    let detour = lane.detour.as_ref().map(|d| Ok::<_, BackendError>((find(&d.map)?, chain(&d.chain)?)));
    let first = |same: &dyn Fn(&Lane) -> bool| {
        u8::try_from(rules.lanes.iter().position(same).unwrap_or_default()).unwrap_or(u8::MAX)
    };
    let remembers = |lane: &Lane| Some(lane.affinity.as_ref()?.remember.as_ref()?.chain.clone());
    let remember = remembers(lane);
    Ok(LaneSets {
        verdicts: find(&lane.verdicts)?,
        endpoints: find(&lane.endpoints)?,
        keys: lane.sets.iter().map(&find).collect::<Result<_, _>>()?,
        detour: detour.transpose()?,
        sticky: lane.affinity.as_ref().map(sticky).transpose()?,
        chains_of: first(&|other| other.chain == lane.chain),
        remembers_as: first(&|other| remembers(other) == remember),
    })
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
