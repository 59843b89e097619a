//! What one of our tables holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use rulecast_bundle::{GroupId, Part};
use rulecast_netlink::{Batch, Key};

use super::chains::Chains;
use super::layout::{Layout, SetId};
use super::target::Installed;
use crate::backend::BackendError;
use crate::view::{PortId, View};

/// A table as it is in the kernel.
pub(super) struct Table {
    pub(super) layout: Layout,
    pub(super) targets: HashMap<GroupId, Installed>,
    /// How many targets want each shared element.
    pub(super) shared: HashMap<(SetId, Key), u32>,
    pub(super) chains: Chains,
    /// The node's addresses in the set of those that answer nodePorts.
    pub(super) node_addrs: BTreeSet<IpAddr>,
    /// What the node added to the sources that may use a VIP.
    pub(super) sources: BTreeSet<Vec<Part>>,
    /// Service ports whose own chains and maps may be of no use any more, and since when.
    pub(super) leftovers: BTreeMap<PortId, Instant>,
}

impl Table {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            targets: HashMap::new(),
            shared: HashMap::new(),
            chains: Chains::default(),
            node_addrs: BTreeSet::new(),
            sources: BTreeSet::new(),
            leftovers: BTreeMap::new(),
        }
    }

    /// The addresses that answer nodePorts, of those that the node has.
    pub(super) fn wanted_node_addrs(&self, view: &View, node_addrs: &[IpAddr]) -> BTreeSet<IpAddr> {
        view.node_port_addrs(self.layout.family, node_addrs).unwrap_or_default()
    }

    /// Deletes what Service ports had for a session affinity that they no longer have, of those that are known since
    /// `before`.
    pub(super) fn collect_leftovers(
        &mut self,
        batch: &mut Batch,
        before: Instant,
    ) -> Result<(), BackendError> {
        let due: Vec<PortId> =
            self.leftovers.iter().filter(|(_, since)| **since <= before).map(|(port, _)| *port).collect();
        for port in due {
            self.leftovers.remove(&port);
            let mut wanted = BTreeSet::new();
            for id in port.groups() {
                if let Some(target) = self.targets.get(&id) {
                    target.own_chains(&self.layout, &id, |chain| {
                        wanted.insert(chain);
                    })?;
                }
            }
            self.chains.keep_only(batch, &self.layout, port, &wanted)?;
        }
        Ok(())
    }
}
