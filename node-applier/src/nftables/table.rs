//! What one of our tables holds.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use rulecast_bundle::nft::NodeAddresses;
use rulecast_bundle::{GroupId, NodeFact};
use rulecast_netlink::Key;

use super::chains::Chains;
use super::layout::{Layout, SetId};
use super::target::{Content, Installed};

/// A table as it is in the kernel.
pub(super) struct Table {
    pub(super) layout: Layout,
    pub(super) targets: HashMap<GroupId, Installed>,
    /// How many targets want each shared element.
    pub(super) shared: HashMap<(SetId, Key), Wanted>,
    pub(super) chains: Chains,
    /// The node's addresses in the set of those that answer nodePorts.
    pub(super) node_addrs: BTreeSet<IpAddr>,
}

/// A shared element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) by: u32,
    pub(super) content: Content,
}

impl Table {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            targets: HashMap::new(),
            shared: HashMap::new(),
            chains: Chains::default(),
            node_addrs: BTreeSet::new(),
        }
    }

    /// The addresses that answer nodePorts, of those that the node has.
    pub(super) fn wanted_node_addrs(&self, fact: &NodeFact, node_addrs: &[IpAddr]) -> BTreeSet<IpAddr> {
        let Some(NodeAddresses { primary, prefixes, .. }) = &self.layout.rules.node_addresses else {
            return BTreeSet::new();
        };
        let of_family = |a: &&IpAddr| rulecast_bundle::nft::Family::of(**a) == self.layout.family;
        let inside = |a: &&IpAddr| prefixes.iter().any(|p| contains(*p, **a)) && !a.is_loopback();
        let primary = fact.addrs.iter().filter(of_family).filter(|_| *primary).take(1);
        node_addrs.iter().filter(of_family).filter(inside).chain(primary).copied().collect()
    }
}

fn contains((net, len): (IpAddr, u8), addr: IpAddr) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    let differ = bits(net) ^ bits(addr);
    differ.checked_shr(128 - u32::from(len)).unwrap_or(0) == 0
}
