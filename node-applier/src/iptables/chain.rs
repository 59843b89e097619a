//! The chains, and their names.
//!
//! A name is a fixed word, or such a word and a hash of what the chain is about: no user's string is in any of them. A name of
//! xtables has 28 characters at most (`XT_EXTENSION_MAXNAMELEN` in `include/uapi/linux/netfilter/x_tables.h`).

use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Digest, Proto};

use crate::view::{Endpoint, PortId};

/// What the names of our chains begin with.
pub(super) const PREFIX: &str = "RC-";

/// What the names of sets of clients begin with.
pub(super) const CLIENTS: &str = "RC-SEP-";

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// What is refused, dropped and let through.
    Filter,
    /// What is translated and masqueraded.
    Nat,
}

impl Table {
    pub(super) const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// As iptables calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A VIP's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Vip {
    pub(super) addr: IpAddr,
    pub(super) proto: Proto,
    pub(super) port: u16,
}

/// A range of addresses: address with the host bits zero, and length.
pub(super) type Prefix = (IpAddr, u8);

/// A chain of ours. In order of rendering: what is jumped to has no order to keep, since all chains are declared first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Chain {
    /// Where new connections come in: by address, then by nodePort. In `filter`: where those are refused that were not
    /// translated.
    Services,
    /// By nodePort.
    NodePorts,
    /// The Services with VIPs in a range of the upper level; see [`nets`].
    Net(Prefix),
    /// The VIPs in a range of the lower level.
    Vips(Prefix),
    /// The nodePorts from this one on; see [`first_port`].
    Ports(Proto, u16),
    /// Marks what does not come from pods of this node.
    Outside,
    /// Masquerades what is marked or goes back to where it came from.
    Postrouting,
    /// Masquerades what an endpoint of this node sends to itself.
    Hairpin,
    /// Lets through what was accepted before.
    Forward,
    /// Keeps foreign packets away from loopback addresses.
    Loopback,
    /// Lets load balancers ask for health.
    HealthChecks,
    /// Picks one of all endpoints.
    Cluster(PortId),
    /// Picks one of the node's own endpoints.
    Local(PortId),
    /// Traffic from outside the cluster.
    External(PortId),
    /// Traffic to a VIP with loadBalancerSourceRanges.
    Ranges(Vip),
    /// Remembers the client of an endpoint, in an ipset of the chain's name.
    Endpoint(PortId, Endpoint),
}

impl Chain {
    /// Its name.
    pub(super) fn name(&self) -> String {
        let fixed = match self {
            Self::Services => "RC-SERVICES",
            Self::NodePorts => "RC-NODEPORTS",
            Self::Outside => "RC-MARK-OUTSIDE",
            Self::Postrouting => "RC-POSTROUTING",
            Self::Hairpin => "RC-HAIRPIN",
            Self::Forward => "RC-FORWARD",
            Self::Loopback => "RC-LOOPBACK",
            Self::HealthChecks => "RC-HEALTH-CHECKS",
            Self::Net((addr, _)) => return hashed("NET", &[&bytes(*addr)]),
            Self::Vips((addr, _)) => return hashed("VIP", &[&bytes(*addr)]),
            Self::Ports(proto, first) => return format!("RC-NP-{proto}-{first}"),
            Self::Cluster(port) => return of_port("SVC", port),
            Self::Local(port) => return of_port("SVL", port),
            Self::External(port) => return of_port("EXT", port),
            Self::Ranges(vip) => {
                let (addr, port) = (bytes(vip.addr), vip.port.to_be_bytes());
                return hashed("FW", &[&addr, &port, &[vip.proto as u8]]);
            }
            Self::Endpoint(port, endpoint) => {
                let (addr, number) = (bytes(port.addr), port.port.to_be_bytes());
                let (to, to_port) = (bytes(endpoint.addr), endpoint.port.to_be_bytes());
                return hashed("SEP", &[&addr, &number, &[port.proto as u8], &to, &to_port]);
            }
        };
        fixed.to_owned()
    }
}

fn of_port(kind: &str, port: &PortId) -> String {
    hashed(kind, &[&bytes(port.addr), &port.port.to_be_bytes(), &[port.proto as u8]])
}

fn bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// 80 bits of a hash, in 16 letters and digits.
fn hashed(kind: &str, parts: &[&[u8]]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Digest::of(parts).0;
    let mut name = format!("{PREFIX}{kind}-");
    for five in digest[..10].chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        name.extend((0..8).rev().map(|n| char::from(LETTERS[(bits >> (5 * n) & 31) as usize])));
    }
    name
}

/// The ranges that a VIP is in: of the upper level, with 4,096 addresses, and of the lower one, with 64.
///
/// iptables looks at rule after rule. Two levels make that tens of rules instead of thousands, and a Service that comes or goes
/// changes one small chain.
pub(super) fn nets(addr: IpAddr) -> (Prefix, Prefix) {
    (prefix(addr, 12), prefix(addr, 6))
}

fn prefix(addr: IpAddr, host_bits: u8) -> Prefix {
    match addr {
        IpAddr::V4(a) => ((a.to_bits() >> host_bits << host_bits).to_be_bytes().into(), 32 - host_bits),
        IpAddr::V6(a) => ((a.to_bits() >> host_bits << host_bits).to_be_bytes().into(), 128 - host_bits),
    }
}

/// The last address of a range.
pub(super) fn last((addr, len): Prefix) -> IpAddr {
    match addr {
        IpAddr::V4(a) => (a.to_bits() | u32::MAX.checked_shr(len.into()).unwrap_or(0)).to_be_bytes().into(),
        IpAddr::V6(a) => (a.to_bits() | u128::MAX.checked_shr(len.into()).unwrap_or(0)).to_be_bytes().into(),
    }
}

/// How many nodePorts one chain is for.
pub(super) const PORTS: u16 = 64;

/// The first nodePort of the chain that one is in.
pub(super) fn first_port(port: u16) -> u16 {
    port / PORTS * PORTS
}

/// The lowest address of a family.
pub(super) fn lowest(family: Family) -> IpAddr {
    match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0; 16].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_spelled_in_letters_and_digits() {
        let port = PortId { addr: "fd00::1".parse().unwrap(), port: 65_535, proto: Proto::Sctp };
        let endpoint = Endpoint { addr: "fd00::2".parse().unwrap(), port: 1 };
        let vip = Vip { addr: port.addr, proto: port.proto, port: port.port };
        let (net, vips) = nets(port.addr);
        let chains = [
            Chain::Services,
            Chain::HealthChecks,
            Chain::Net(net),
            Chain::Vips(vips),
            Chain::Ports(Proto::Sctp, first_port(65_535)),
            Chain::Cluster(port),
            Chain::Local(port),
            Chain::External(port),
            Chain::Ranges(vip),
            Chain::Endpoint(port, endpoint),
        ];
        for chain in chains {
            let name = chain.name();
            assert!(name.len() <= 28 && name.starts_with(PREFIX), "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_range_has_its_first_and_last_address() {
        let (net, vips) = nets("10.96.17.200".parse().unwrap());
        assert_eq!(net, ("10.96.16.0".parse().unwrap(), 20));
        assert_eq!(vips, ("10.96.17.192".parse().unwrap(), 26));
        assert_eq!(last(net), "10.96.31.255".parse::<IpAddr>().unwrap());
        let (net, vips) = nets("fd00:96::12ff".parse().unwrap());
        assert_eq!((net.1, vips.1), (116, 122));
        assert_eq!(last(vips), "fd00:96::12ff".parse::<IpAddr>().unwrap());
    }
}
