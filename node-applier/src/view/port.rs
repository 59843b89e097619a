//! A Service port: what the kernel's objects of its own are named after.

use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{GroupId, GroupKind, Name, Proto};

/// A Service port, by its cluster IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// The Service's cluster IP of this family.
    pub addr: IpAddr,
    /// The Service port.
    pub port: u16,
    /// Its protocol.
    pub proto: Proto,
}

impl From<&GroupId> for PortId {
    fn from(id: &GroupId) -> Self {
        Self { addr: id.addr, port: id.port, proto: id.proto }
    }
}

impl PortId {
    /// Its address family.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// One of its groups.
    #[must_use]
    pub fn group(self, kind: GroupKind) -> GroupId {
        let Self { addr, port, proto } = self;
        GroupId { addr, port, proto, kind }
    }

    /// The groups that it may have.
    #[must_use]
    pub fn groups(self) -> [GroupId; 2] {
        [GroupKind::Cluster, GroupKind::Local].map(|kind| self.group(kind))
    }

    /// The name of its nftables object of this kind.
    #[must_use]
    pub fn name(&self, kind: &Name) -> Name {
        kind.of_port(self.proto, self.addr, self.port)
    }
}
