//! One target as the kernel holds it, and the elements that it consists of.

use std::sync::Arc;

use rulecast_bundle::{Empty, GroupId, LaneKey};
use rulecast_netlink::Key;

use super::layout::{Layout, SetId, Subject};
use super::numbering::renumber;
use crate::backend::BackendError;
use crate::view::{Endpoint, Target};

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
    /// Picks one of N members.
    Pick { balancer: usize, members: u32 },
    /// The same for a target with session affinity.
    Sticky { balancer: usize, members: u32 },
    /// Remembers the client for so many seconds.
    Remember { balancer: usize, timeout: u32 },
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

    fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// Where a key leads; none: nowhere, so that the packet is refused as untranslated.
    fn verdict(&self, balancer: usize) -> Option<Content> {
        match (self.count(), self.affinity, self.empty) {
            (0, _, Empty::Reject) => None,
            (0, _, Empty::Drop) => Some(Content::Drop),
            (members, None, _) => Some(Content::Goto(Chain::Pick { balancer, members })),
            (members, Some(_), _) => Some(Content::Goto(Chain::Sticky { balancer, members })),
        }
    }

    /// Its elements in verdict maps, which no other target has.
    pub(super) fn verdicts(
        &self,
        layout: &Layout,
        id: &GroupId,
        mut each: impl FnMut(SetId, Key, Content),
    ) -> Result<(), BackendError> {
        for lane_key in self.keys.iter() {
            let balancer = layout.balancer_of(lane_key.lane)?;
            if let Some(content) = self.verdict(balancer) {
                let set = layout.balancers[balancer].verdicts;
                each(set, layout.key(set, &Subject::lane(id, lane_key))?, content);
            }
        }
        Ok(())
    }

    /// Its elements in sets that it may share with others: they are there for as long as one wants them.
    pub(super) fn shared(
        &self,
        layout: &Layout,
        id: &GroupId,
        mut each: impl FnMut(SetId, Key, Content),
    ) -> Result<(), BackendError> {
        for lane_key in self.keys.iter() {
            let subject = Subject::lane(id, lane_key);
            for set in layout.lanes.get(usize::from(lane_key.lane)).into_iter().flatten() {
                each(*set, layout.key(*set, &subject)?, Content::None);
            }
            let balancer = layout.balancer_of(lane_key.lane)?;
            if let (Some(timeout), Some(sets)) = (self.affinity, layout.balancers[balancer].sticky) {
                let content =
                    Content::Goto(Chain::Remember { balancer: first_with(layout, sets.verdicts), timeout });
                each(sets.verdicts, layout.key(sets.verdicts, &subject)?, content);
                for endpoint in &self.members {
                    each(
                        sets.members,
                        layout.key(sets.members, &subject.endpoint(*endpoint))?,
                        Content::None,
                    );
                }
            }
        }
        if let Some(set) = layout.hairpin {
            for endpoint in &self.own {
                each(set, layout.key(set, &Subject::of_endpoint(id.proto, *endpoint))?, Content::None);
            }
        }
        Ok(())
    }
}

/// Balancers that share a remember map share its chains: the first of them stands for all.
fn first_with(layout: &Layout, verdicts: SetId) -> usize {
    let shares = |sets: &super::layout::Sets| sets.sticky.is_some_and(|s| s.verdicts == verdicts);
    layout.balancers.iter().position(shares).unwrap_or_default()
}
