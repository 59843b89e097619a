//! Numbers for metrics, kept up with every change: counting anew would cost with the size of the cluster.

use rulecast_bundle::nft::Ruleset;
use rulecast_bundle::{Empty, GroupId};

use super::Target;

/// How many there are of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Load-balancing targets.
    pub targets: usize,
    /// Members that this node uses, over all targets.
    pub members: usize,
    /// Targets whose endpoints are all on other nodes, so that their traffic is dropped here, by family (IPv4, IPv6):
    /// those of internalTrafficPolicy Local, and those of externalTrafficPolicy Local.
    pub no_local: [NoLocal; 2],
}

/// See [`Counts::no_local`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// internalTrafficPolicy.
    pub internal: usize,
    /// externalTrafficPolicy.
    pub external: usize,
}

impl Counts {
    pub(super) fn add(&mut self, rules: Option<&Ruleset>, id: &GroupId, target: &Target) {
        self.change(rules, id, target, 1);
    }

    pub(super) fn remove(&mut self, rules: Option<&Ruleset>, id: &GroupId, target: &Target) {
        self.change(rules, id, target, -1);
    }

    fn change(&mut self, rules: Option<&Ruleset>, id: &GroupId, target: &Target, step: isize) {
        let Some(shape) = target.shape() else { return };
        // Wrapping, since a view that is being made may see a target go before it was counted; it counts anew at the end.
        let by = |count: &mut usize, times: usize| {
            *count = count.wrapping_add_signed(step.wrapping_mul(times.cast_signed()));
        };
        by(&mut self.targets, 1);
        by(&mut self.members, target.members().len());
        if shape.empty != Empty::Drop || !target.members().is_empty() {
            return;
        }
        let lanes = shape.keys.iter().filter_map(|key| rules?.lanes.get(usize::from(key.lane)));
        let (mut internal, mut external) = (false, false);
        for lane in lanes {
            internal |= !lane.external;
            external |= lane.external;
        }
        let counts = &mut self.no_local[usize::from(id.addr.is_ipv6())];
        by(&mut counts.internal, internal.into());
        by(&mut counts.external, external.into());
    }
}
