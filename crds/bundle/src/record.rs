//! Records: what a bundle is made of.
//!
//! A record is a [`Key`] and a [`Value`]. Both have one canonical encoding; keys sort by their encoding, and a
//! group's members follow the group, which is what makes the front-coded frames small.

mod key;
mod options;
mod value;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use crate::Name;
use crate::codec::{DecodeError, Reader};
use crate::nft::{Family, Ruleset};

pub(crate) use key::{address_bytes, family_byte, fits, read_name, read_prefix, write_ip, write_prefix};
pub use options::{FamilyOptions, IpvsOptions, NodePortAddresses, Pods};
pub use value::MAX_LANE_KEYS;

/// A transport protocol, numbered as IANA numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Proto {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Proto {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            6 => Ok(Self::Tcp),
            17 => Ok(Self::Udp),
            132 => Ok(Self::Sctp),
            v => Err(DecodeError::Invalid { what: "protocol", value: v.into() }),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A node's or zone's name, shortened to the first 8 bytes of its SHA-256.
///
/// Of two nodes of one cluster with equal tags only the first by name has a [`NodeFact`], which tells it by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

impl Tag {
    /// The tag of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        Self(u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes")))
    }

    /// The tag's upper half, never 0. It marks where an endpoint runs; two nodes may share it, which costs one of
    /// them a hairpin element that no packet matches.
    #[must_use]
    pub fn short(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits").max(1)
    }
}

/// For whom a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every node without a list of its own.
    All,
    /// The nodes of one zone.
    Zone(Tag),
    /// One node.
    Node(Tag),
    /// For no new connections: an endpoint that still serves, so that UDP flows which use it may stay.
    Serving,
}

/// Which endpoint list of a Service port a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// All endpoints that a node may use.
    Cluster,
    /// Only those on the node itself (traffic policy Local).
    Local,
}

/// Identifies a load-balancing target: a Service port by its cluster IP, which the cluster allocates uniquely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The Service's cluster IP of this family.
    pub addr: IpAddr,
    /// The Service port.
    pub port: u16,
    /// The Service port's protocol.
    pub proto: Proto,
    /// Which list.
    pub kind: GroupKind,
}

impl GroupId {
    /// The group's address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.addr)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == GroupKind::Local { " (local)" } else { "" };
        write!(f, "{}/{}{kind}", std::net::SocketAddr::new(self.addr, self.port), self.proto)
    }
}

/// One component of a static element's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An address.
    Addr(IpAddr),
    /// A protocol.
    Proto(Proto),
    /// A port.
    Port(u16),
    /// A range of addresses: prefix and length.
    Prefix(IpAddr, u8),
}

/// What a record is about; unique within a bundle. Keys compare as their encodings do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// One family's fixed rules, in nftables mode.
    Rules(Family),
    /// One family's options, in iptables and IPVS mode.
    Options(Family),
    /// What a node needs to know of itself.
    Node(Tag),
    /// An element of a static set.
    Element {
        /// The table's family.
        family: Family,
        /// The set.
        set: Name,
        /// The element's key.
        parts: Vec<Part>,
    },
    /// A Service's health check for load balancers, by its healthCheckNodePort.
    HealthCheck(u16),
    /// What the pool sets on its nodes beside rules.
    Settings,
    /// A load-balancing target.
    Group(GroupId),
    /// An endpoint of a target.
    Member {
        /// The target.
        group: GroupId,
        /// For which nodes. The most specific scope that has a member wins as a whole.
        scope: Scope,
        /// The endpoint's port.
        port: u16,
        /// The endpoint's address, of the group's family.
        addr: IpAddr,
    },
}

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// See [`Key::Rules`].
    Rules(Box<Ruleset>),
    /// See [`Key::Options`].
    Options(Box<FamilyOptions>),
    /// See [`Key::Node`].
    Node(NodeFact),
    /// See [`Key::Element`].
    Element {
        /// The Service it comes from, as namespace/name.
        owner: String,
    },
    /// See [`Key::HealthCheck`].
    HealthCheck(HealthCheck),
    /// See [`Key::Settings`].
    Settings(Settings),
    /// See [`Key::Group`].
    Group(Group),
    /// See [`Key::Member`].
    Member(Member),
}

/// What a node should not have to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFact {
    /// The node's name.
    pub name: String,
    /// Its zone.
    pub zone: Option<Tag>,
    /// Its primary address of each family.
    pub addrs: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// It is being deleted or drained by the autoscaler: load balancers should stop using it.
    pub draining: bool,
    /// It is in a wave: it follows the bundle of the pool's next shape ([`next_of`]) as long as this is so.
    pub next: bool,
}

/// The name of the bundle by which a pool's next shape reaches the nodes of a wave. No pool has such a name.
#[must_use]
pub fn next_of(pool: &str) -> String {
    format!("{pool}{NEXT}")
}

/// Whether a bundle is that of some pool's next shape.
#[must_use]
pub fn is_next(bundle: &str) -> bool {
    bundle.ends_with(NEXT)
}

const NEXT: &str = ".next";

/// A Service with a healthCheckNodePort: a node answers there whether it has ready endpoints of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service, as namespace/name.
    pub owner: String,
    /// The groups of its ports that hold the nodes' own endpoints, sorted.
    pub groups: Vec<GroupId>,
}

/// Settings of the node's kernel. None, and 0 but for the flag: as the node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// The most connections tracked, for each CPU.
    pub conntrack_max_per_core: Option<u32>,
    /// The least that `conntrack_max_per_core` comes to.
    pub conntrack_min: Option<u32>,
    /// `nf_conntrack_tcp_timeout_established`, in seconds.
    pub tcp_established_timeout: Option<u32>,
    /// `nf_conntrack_tcp_timeout_close_wait`, in seconds.
    pub tcp_close_wait_timeout: Option<u32>,
    /// `nf_conntrack_tcp_be_liberal`.
    pub tcp_be_liberal: Option<bool>,
    /// `nf_conntrack_udp_timeout`, in seconds.
    pub udp_timeout: Option<u32>,
    /// `nf_conntrack_udp_timeout_stream`, in seconds.
    pub udp_stream_timeout: Option<u32>,
}

/// A load-balancing target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The Service, as namespace/name.
    pub owner: String,
    /// The Service port's name; may be empty.
    pub port_name: String,
    /// What happens to new connections on a node whose list is empty.
    pub empty: Empty,
    /// Session affinity by client address, with its timeout in seconds, 1 to 86,400.
    pub affinity: Option<u32>,
    /// The kernel keys it answers, sorted.
    pub keys: Vec<LaneKey>,
}

/// What happens to new connections to a target without members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// Refused.
    Reject,
    /// Dropped: there are endpoints, but none that this node may use.
    Drop,
}

/// A kernel key that a group answers. The protocol is the group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// Position in [`Ruleset::lanes`].
    pub lane: u8,
    /// The VIP; none for a nodePort.
    pub addr: Option<IpAddr>,
    /// The VIP's port, or the nodePort.
    pub port: u16,
}

/// An endpoint of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// [`Tag::short`] of the node it runs on; 0 when unknown.
    pub node: u32,
    /// It is terminating, and used because nothing better is there.
    pub terminating: bool,
}

/// Whether an address lies in a prefix (address with the host bits zero, and length).
#[must_use]
pub fn prefix_contains((net, len): (IpAddr, u8), addr: IpAddr) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    let differ = bits(net) ^ bits(addr);
    net.is_ipv4() == addr.is_ipv4() && differ.checked_shr(128 - u32::from(len)).unwrap_or(0) == 0
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Rules(a), Self::Rules(b)) | (Self::Options(a), Self::Options(b)) => a.cmp(b),
            (Self::Node(a), Self::Node(b)) => a.cmp(b),
            (Self::HealthCheck(a), Self::HealthCheck(b)) => a.cmp(b),
            (Self::Element { .. }, Self::Element { .. }) => self.encode().cmp(&other.encode()),
            _ => (self.rank(), self.target()).cmp(&(other.rank(), other.target())),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
