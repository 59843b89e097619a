//! One target as the kernel holds it, and the elements that it consists of.

use std::collections::BTreeSet;
use std::sync::Arc;

use rulecast_bundle::{Empty, GroupId, LaneKey};
use rulecast_netlink::Key;

use super::layout::{Layout, SetId, Subject};
use super::numbering::renumber;
use crate::backend::BackendError;
use crate::view::{Endpoint, PortId, Target};

/// A target with numbered members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) keys: Arc<[LaneKey]>,
    pub(super) members: Vec<Endpoint>,
    /// Members on this node.
    own: Box<[Endpoint]>,
    pub(super) affinity: Option<u32>,
    empty: Empty,
}

/// The chain that a verdict leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Chain {
    /// One of the fixed chains, by its position.
    Fixed(usize),
    /// Picks one of N members. The lane is the first of those that share the chains.
    Pick { lane: u8, members: u32 },
    /// Looks up the client of a Service port with session affinity.
    Sticky { lane: u8, port: PortId },
    /// Remembers its client for so many seconds.
    Remember { lane: u8, port: PortId, timeout: u32 },
}

impl Chain {
    /// The Service port whose own chain it is.
    pub(super) fn port(&self) -> Option<PortId> {
        match self {
            Self::Sticky { port, .. } | Self::Remember { port, .. } => Some(*port),
            Self::Fixed(_) | Self::Pick { .. } => None,
        }
    }
}

/// What an element carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// Nothing.
    None,
    /// The verdict drop.
    Drop,
    /// The verdict goto.
    Goto(Chain),
}

impl Installed {
    /// What a target should be, keeping the numbers that its members had.
    pub(super) fn new(target: &Target, before: Option<&Self>) -> Option<Self> {
        let shape = target.shape()?;
        let wanted: Vec<Endpoint> = target.members().iter().map(|m| m.endpoint).collect();
        let own = target.members().iter().filter(|m| m.own).map(|m| m.endpoint).collect();
        let members = match before {
            Some(before) => renumber(&before.members, &wanted),
            None => wanted,
        };
        Some(Self {
            keys: Arc::clone(&shape.keys),
            members,
            own,
            affinity: shape.affinity,
            empty: shape.empty,
        })
    }

    /// Its elements that no other target has, but for the endpoints. A target without members that is to be refused has
    /// none: its packets are refused as untranslated.
    pub(super) fn elements(
        &self,
        layout: &Layout,
        id: &GroupId,
        mut each: impl FnMut(SetId, Key, Content),
    ) -> Result<(), BackendError> {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        for lane_key in self.keys.iter() {
            let (_, sets) = layout.lane(lane_key.lane)?;
            let subject = Subject::lane(id, lane_key);
            let mut element = |set, subject: &Subject, content| -> Result<(), BackendError> {
                each(set, layout.key(set, subject)?, content);
                Ok(())
            };
            if let Some((map, chain)) = sets.detour.filter(|_| members > 0) {
                element(map, &subject, Content::Goto(Chain::Fixed(chain)))?;
            }
            // Also of an empty list: the rules may be about clients of the Service port's other list as well.
            if let (Some(timeout), Some(sticky)) = (self.affinity, sets.sticky)
                && let Some(map) = sticky.remember
            {
                let chain = Chain::Remember { lane: sets.remembers_as, port: id.into(), timeout };
                element(map, &subject, Content::Goto(chain))?;
            }
            let pick = Content::Goto(Chain::Pick { lane: sets.chains_of, members });
            match (self.affinity, sets.sticky) {
                _ if members == 0 && self.empty == Empty::Drop => {
                    element(sets.verdicts, &subject, Content::Drop)?;
                }
                _ if members == 0 => {}
                (Some(_), Some(sticky)) => {
                    let (lane, port) = (lane_key.lane, PortId::from(id));
                    element(sets.verdicts, &subject, Content::Goto(Chain::Sticky { lane, port }))?;
                    for endpoint in &self.members {
                        element(sticky.members, &subject.endpoint(*endpoint), Content::None)?;
                    }
                }
                _ => element(sets.verdicts, &subject, pick)?,
            }
        }
        Ok(())
    }

    /// Its elements in sets that it may share with others: they are there for as long as one wants them.
    pub(super) fn shared(
        &self,
        layout: &Layout,
        id: &GroupId,
        mut each: impl FnMut(SetId, Key),
    ) -> Result<(), BackendError> {
        for lane_key in self.keys.iter() {
            for set in &layout.lane(lane_key.lane)?.1.keys {
                each(*set, layout.key(*set, &Subject::lane(id, lane_key))?);
            }
        }
        if let Some(set) = layout.hairpin {
            for endpoint in &self.own {
                each(set, layout.key(set, &Subject::of_endpoint(id.proto, *endpoint))?);
            }
        }
        Ok(())
    }

    /// The chains that look up its clients, with the number of members that they pick from otherwise.
    pub(super) fn sticky_chains(&self, id: &GroupId) -> impl Iterator<Item = (Chain, u32)> {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let port = PortId::from(id);
        let lanes: BTreeSet<u8> = self.keys.iter().map(|key| key.lane).collect();
        let any = self.affinity.is_some() && members > 0;
        lanes.into_iter().filter(move |_| any).map(move |lane| (Chain::Sticky { lane, port }, members))
    }

    /// The chains of its Service port's own that its elements lead to.
    pub(super) fn own_chains(
        &self,
        layout: &Layout,
        id: &GroupId,
        mut each: impl FnMut(Chain),
    ) -> Result<(), BackendError> {
        if self.affinity.is_none() {
            return Ok(());
        }
        self.elements(layout, id, |_, _, content| {
            if let Content::Goto(chain) = content
                && chain.port().is_some()
            {
                each(chain);
            }
        })
    }
}
