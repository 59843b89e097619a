//! Numbers for metrics, kept up with every change: counting anew would cost with the size of the cluster.

use rulecast_bundle::{Empty, GroupId, Lane};

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
    pub(super) fn add(&mut self, id: &GroupId, target: &Target) {
        self.change(id, target, 1);
    }

    pub(super) fn remove(&mut self, id: &GroupId, target: &Target) {
        self.change(id, target, -1);
    }

    fn change(&mut self, id: &GroupId, target: &Target, step: isize) {
        let Some(shape) = target.shape() else { return };
        let by = |count: &mut usize, times: usize| {
            *count = count.saturating_add_signed(step * times.cast_signed());
        };
        by(&mut self.targets, 1);
        by(&mut self.members, target.members().len());
        if shape.empty != Empty::Drop || !target.members().is_empty() {
            return;
        }
        let lanes = || shape.keys.iter().filter_map(|key| Lane::of(key.lane));
        let (internal, external) = (lanes().any(|lane| !lane.is_external()), lanes().any(Lane::is_external));
        let counts = &mut self.no_local[usize::from(id.addr.is_ipv6())];
        by(&mut counts.internal, internal.into());
        by(&mut counts.external, external.into());
    }
}
