//! Records: what a bundle is made of.
//!
//! A record is a [`Key`] and a [`Value`]. Both have one canonical encoding; keys sort by their encoding, and a
//! group's members follow the group, which is what makes the front-coded frames small.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use crate::codec::{DecodeError, Reader, Writer};
use crate::nft::{Family, Ruleset};
use crate::{Name, ruleset};

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
    /// One family's fixed rules.
    Rules(Family),
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
    /// See [`Key::Node`].
    Node(NodeFact),
    /// See [`Key::Element`].
    Element {
        /// The Service it comes from, as namespace/name.
        owner: String,
    },
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
    /// Its first InternalIP of each family.
    pub addrs: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// It is being deleted or drained by the autoscaler: load balancers should stop using it.
    pub draining: bool,
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

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Rules(a), Self::Rules(b)) => a.cmp(b),
            (Self::Node(a), Self::Node(b)) => a.cmp(b),
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

const RULES: u8 = 1;
const NODE: u8 = 2;
const ELEMENT: u8 = 3;
const TARGET: u8 = 4;

impl Key {
    fn rank(&self) -> u8 {
        match self {
            Self::Rules(_) => RULES,
            Self::Node(_) => NODE,
            Self::Element { .. } => ELEMENT,
            Self::Group(_) | Self::Member { .. } => TARGET,
        }
    }

    /// The group, and which of its members.
    #[expect(clippy::type_complexity, reason = "the sort key of one comparison")]
    fn target(&self) -> Option<(&GroupId, Option<(&Scope, &u16, &IpAddr)>)> {
        match self {
            Self::Group(group) => Some((group, None)),
            Self::Member { group, scope, port, addr } => Some((group, Some((scope, port, addr)))),
            _ => None,
        }
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(24));
        self.write(&mut w);
        w.0
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        match self {
            Self::Rules(family) => {
                w.u8(RULES);
                w.u8(family_byte(*family));
            }
            Self::Node(tag) => {
                w.u8(NODE);
                w.u64(tag.0);
            }
            Self::Element { family, set, parts } => {
                w.u8(ELEMENT);
                w.u8(family_byte(*family));
                w.text(set.as_str());
                w.list(parts, |w, part| write_part(w, *part));
            }
            Self::Group(id) => {
                write_group_id(w, id);
                w.u8(0);
            }
            Self::Member { group, scope, port, addr } => {
                write_group_id(w, group);
                match scope {
                    Scope::All => w.u8(1),
                    Scope::Zone(tag) => {
                        w.u8(2);
                        w.u64(tag.0);
                    }
                    Scope::Node(tag) => {
                        w.u8(3);
                        w.u64(tag.0);
                    }
                }
                w.u16(*port);
                w.addr(*addr);
            }
        }
    }

    /// Reads a key back; accepts only the canonical encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let key = match r.u8()? {
            RULES => Self::Rules(read_family(&mut r)?),
            NODE => Self::Node(Tag(r.u64()?)),
            ELEMENT => {
                let (family, set) = (read_family(&mut r)?, read_name(&mut r)?);
                let parts = r.list("element parts", 8, read_part)?;
                // What it takes in the kernel's registers.
                fits(parts.iter().map(|p| match p {
                    Part::Addr(addr) | Part::Prefix(addr, _) => address_bytes(Family::of(*addr)),
                    Part::Proto(_) | Part::Port(_) => 4,
                }))?;
                Self::Element { family, set, parts }
            }
            TARGET => read_target(&mut r)?,
            v => return Err(DecodeError::Invalid { what: "record type", value: v.into() }),
        };
        r.end()?;
        Ok(key)
    }
}

fn read_target(r: &mut Reader<'_>) -> Result<Key, DecodeError> {
    let v4 = read_family(r)? == Family::V4;
    let addr = r.addr(v4)?;
    let port = r.u16()?;
    let proto = Proto::decode(r)?;
    let kind = match r.u8()? {
        0 => GroupKind::Cluster,
        1 => GroupKind::Local,
        v => return Err(DecodeError::Invalid { what: "group kind", value: v.into() }),
    };
    let group = GroupId { addr, port, proto, kind };
    let scope = match r.u8()? {
        0 => return Ok(Key::Group(group)),
        1 => Scope::All,
        2 => Scope::Zone(Tag(r.u64()?)),
        3 => Scope::Node(Tag(r.u64()?)),
        v => return Err(DecodeError::Invalid { what: "scope", value: v.into() }),
    };
    Ok(Key::Member { group, scope, port: r.u16()?, addr: r.addr(v4)? })
}

fn write_group_id(w: &mut Writer, id: &GroupId) {
    w.u8(TARGET);
    w.u8(family_byte(id.family()));
    w.addr(id.addr);
    w.u16(id.port);
    w.u8(id.proto as u8);
    w.u8(u8::from(id.kind == GroupKind::Local));
}

/// The most bytes of a key: the kernel's sixteen registers.
const MAX_KEY_BYTES: usize = 64;

/// Refuses components that are more than the kernel's registers hold.
pub(crate) fn fits(components: impl Iterator<Item = usize>) -> Result<(), DecodeError> {
    let bytes: usize = components.sum();
    if bytes > MAX_KEY_BYTES {
        let (value, limit) = (bytes as u64, MAX_KEY_BYTES as u64);
        return Err(DecodeError::TooLarge { what: "key", value, limit });
    }
    Ok(())
}

/// An address in registers.
pub(crate) fn address_bytes(family: Family) -> usize {
    if family == Family::V4 { 4 } else { 16 }
}

pub(crate) fn family_byte(family: Family) -> u8 {
    if family == Family::V4 { 4 } else { 6 }
}

pub(crate) fn read_family(r: &mut Reader<'_>) -> Result<Family, DecodeError> {
    match r.u8()? {
        4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        v => Err(DecodeError::Invalid { what: "address family", value: v.into() }),
    }
}

pub(crate) fn read_name(r: &mut Reader<'_>) -> Result<Name, DecodeError> {
    Name::new(r.text("name")?).map_err(|_| DecodeError::Text("a kernel name"))
}

pub(crate) fn write_ip(w: &mut Writer, addr: IpAddr) {
    w.u8(family_byte(Family::of(addr)));
    w.addr(addr);
}

pub(crate) fn read_ip(r: &mut Reader<'_>) -> Result<IpAddr, DecodeError> {
    let v4 = read_family(r)? == Family::V4;
    r.addr(v4)
}

pub(crate) fn write_prefix(w: &mut Writer, prefix: &(IpAddr, u8)) {
    write_ip(w, prefix.0);
    w.u8(prefix.1);
}

pub(crate) fn read_prefix(r: &mut Reader<'_>) -> Result<(IpAddr, u8), DecodeError> {
    let addr = read_ip(r)?;
    let len = r.u8()?;
    if len > if addr.is_ipv4() { 32 } else { 128 } {
        return Err(DecodeError::Invalid { what: "prefix length", value: len.into() });
    }
    Ok((addr, len))
}

fn write_part(w: &mut Writer, part: Part) {
    match part {
        Part::Addr(addr) => {
            w.u8(1);
            write_ip(w, addr);
        }
        Part::Proto(proto) => {
            w.u8(2);
            w.u8(proto as u8);
        }
        Part::Port(port) => {
            w.u8(3);
            w.u16(port);
        }
        Part::Prefix(addr, len) => {
            w.u8(4);
            write_prefix(w, &(addr, len));
        }
    }
}

fn read_part(r: &mut Reader<'_>) -> Result<Part, DecodeError> {
    match r.u8()? {
        1 => Ok(Part::Addr(read_ip(r)?)),
        2 => Ok(Part::Proto(Proto::decode(r)?)),
        3 => Ok(Part::Port(r.u16()?)),
        4 => read_prefix(r).map(|(addr, len)| Part::Prefix(addr, len)),
        v => Err(DecodeError::Invalid { what: "element part", value: v.into() }),
    }
}

/// In a group's encoding: the lane key's address is the group's own.
const SAME_ADDR: u8 = 1;
/// The lane key's port is the group's own.
const SAME_PORT: u8 = 2;
/// The lane key has another address, which follows.
const OTHER_ADDR: u8 = 4;

impl Value {
    /// The canonical encoding, which depends on the key.
    #[must_use]
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        let mut w = Writer::default();
        self.write(key, &mut w);
        w.0
    }

    pub(crate) fn write(&self, key: &Key, w: &mut Writer) {
        match self {
            Self::Rules(ruleset) => ruleset::write(w, ruleset),
            Self::Node(fact) => {
                w.text(&fact.name);
                w.u64(fact.zone.map_or(0, |t| t.0));
                w.list(&fact.addrs, |w, a| write_ip(w, *a));
                w.list(&fact.pod_cidrs, write_prefix);
                w.u8(fact.draining.into());
            }
            Self::Element { owner } => w.text(owner),
            Self::Group(group) => write_group(w, key, group),
            Self::Member(member) => {
                w.u32(member.node);
                w.u8(member.terminating.into());
            }
        }
    }

    /// Reads the value of a record with this key; accepts only the canonical encoding.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let value = Self::read(key, &mut r)?;
        r.end()?;
        Ok(value)
    }

    /// Reads the value that `r` begins with.
    pub(crate) fn read(key: &Key, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = r.0;
        let value = match key {
            Key::Rules(family) => Self::Rules(Box::new(ruleset::read(r, *family)?)),
            Key::Node(_) => Self::Node(read_node(r)?),
            Key::Element { .. } => Self::Element { owner: r.text("owner")?.to_owned() },
            Key::Group(id) => Self::Group(read_group(id, r)?),
            Key::Member { .. } => {
                Self::Member(Member { node: r.u32()?, terminating: r.bool("member flag")? })
            }
        };
        let mut again = Writer::default();
        value.write(key, &mut again);
        if again.0 != before[..before.len() - r.0.len()] {
            return Err(DecodeError::NotCanonical("a record"));
        }
        Ok(value)
    }

    /// The Service that the record comes from, as namespace/name; none for the pool's own records. A member's owner is
    /// its group's.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Element { owner } | Self::Group(Group { owner, .. }) => Some(owner),
            Self::Rules(_) | Self::Node(_) | Self::Member(_) => None,
        }
    }
}

fn read_node(r: &mut Reader<'_>) -> Result<NodeFact, DecodeError> {
    Ok(NodeFact {
        name: r.text("node name")?.to_owned(),
        zone: Some(r.u64()?).filter(|t| *t != 0).map(Tag),
        addrs: r.list("node addresses", 16, read_ip)?,
        pod_cidrs: r.list("pod CIDRs", 64, read_prefix)?,
        draining: r.bool("draining")?,
    })
}

fn write_group(w: &mut Writer, key: &Key, group: &Group) {
    let Key::Group(id) = key else { unreachable!("a group's value has a group's key") };
    w.text(&group.owner);
    w.text(&group.port_name);
    w.u8(u8::from(group.empty == Empty::Drop));
    w.varint(group.affinity.unwrap_or(0).into());
    w.list(&group.keys, |w, lane| {
        let addr_flag = match lane.addr {
            None => 0,
            Some(addr) if addr == id.addr => SAME_ADDR,
            Some(_) => OTHER_ADDR,
        };
        let port_flag = if lane.port == id.port { SAME_PORT } else { 0 };
        w.u8(lane.lane);
        w.u8(addr_flag | port_flag);
        if let (OTHER_ADDR, Some(addr)) = (addr_flag, lane.addr) {
            w.addr(addr);
        }
        if port_flag == 0 {
            w.u16(lane.port);
        }
    });
}

/// The most kernel keys of one group: a Service has a handful of VIPs.
pub const MAX_LANE_KEYS: usize = 4096;

fn read_group(id: &GroupId, r: &mut Reader<'_>) -> Result<Group, DecodeError> {
    let owner = r.text("owner")?.to_owned();
    let port_name = r.text("port name")?.to_owned();
    let empty = if r.bool("empty verdict")? { Empty::Drop } else { Empty::Reject };
    let timeout = r.len("affinity timeout", 86_400)?;
    let keys = r.list("keys of a group", MAX_LANE_KEYS, |r| {
        let lane = r.u8()?;
        let flags = r.u8()?;
        if flags > (OTHER_ADDR | SAME_PORT) || flags & (SAME_ADDR | OTHER_ADDR) == (SAME_ADDR | OTHER_ADDR) {
            return Err(DecodeError::Invalid { what: "lane key flags", value: flags.into() });
        }
        let addr = match flags & (SAME_ADDR | OTHER_ADDR) {
            0 => None,
            SAME_ADDR => Some(id.addr),
            _ => Some(r.addr(id.addr.is_ipv4())?),
        };
        let port = if flags & SAME_PORT != 0 { id.port } else { r.u16()? };
        Ok(LaneKey { lane, addr, port })
    })?;
    if !keys.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::NotCanonical("a group's key list"));
    }
    let affinity = u32::try_from(timeout).ok().filter(|t| *t > 0);
    Ok(Group { owner, port_name, empty, affinity, keys })
}
