//! The ipsets that the packet filter asks, one of each for a family.

use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_netlink::ipset::{Entry, SetType};
use rulecast_netlink::ipvs::VirtualServer;

/// An ipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Set {
    /// Frontends that have a virtual server.
    Served,
    /// Those of them that are cluster IPs: masqueraded unless they come from pods.
    ClusterIps,
    /// Those that are masqueraded whoever asks: traffic from outside with policy Cluster.
    Masquerade,
    /// Endpoints of this node, twice: a connection of one to itself.
    Hairpin,
    /// Clients that may use a frontend of [`Self::Firewall`].
    Ranges,
    /// Frontends that only some clients may use.
    Firewall,
    /// Frontends with policy Local that have no endpoint here, but elsewhere: for pods and this node only.
    NoLocal,
    /// Frontends that nobody may use: their endpoints are all on other nodes.
    Dropped,
    /// Addresses on the device. What is addressed to them and not served is refused.
    Vips,
}

impl Set {
    pub(super) const ALL: [Self; 9] = [
        Self::Served,
        Self::ClusterIps,
        Self::Masquerade,
        Self::Hairpin,
        Self::Ranges,
        Self::Firewall,
        Self::NoLocal,
        Self::Dropped,
        Self::Vips,
    ];

    /// Those that say what a frontend is; the others are shared between Services.
    pub(super) const OF_FRONTENDS: [Self; 5] =
        [Self::Served, Self::ClusterIps, Self::Masquerade, Self::NoLocal, Self::Dropped];

    /// The set's name in the kernel: up to 31 bytes.
    pub(super) fn name(self, family: Family) -> String {
        let name = match self {
            Self::Served => "SERVED",
            Self::ClusterIps => "CLUSTER-IPS",
            Self::Masquerade => "MASQUERADE",
            Self::Hairpin => "HAIRPIN",
            Self::Ranges => "RANGES",
            Self::Firewall => "FIREWALL",
            Self::NoLocal => "NO-LOCAL",
            Self::Dropped => "DROPPED",
            Self::Vips => "VIPS",
        };
        match family {
            Family::V4 => format!("RC-{name}"),
            Family::V6 => format!("RC-6-{name}"),
        }
    }

    pub(super) fn kind(self) -> SetType {
        match self {
            Self::Hairpin => SetType::IpPortIp,
            Self::Ranges => SetType::IpPortNet,
            Self::Vips => SetType::Ip,
            _ => SetType::IpPort,
        }
    }
}

/// A frontend as an entry.
pub(super) fn entry(server: &VirtualServer) -> Entry {
    Entry::port(server.addr, server.proto, server.port)
}

/// An entry's family.
pub(super) fn family(addr: IpAddr) -> Family {
    Family::of(addr)
}
