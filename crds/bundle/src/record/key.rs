//! The encoding of keys, and of what keys and values are made of.

use std::net::IpAddr;

use super::{GroupId, GroupKind, Key, Part, Proto, Scope, Tag};
use crate::Name;
use crate::codec::{DecodeError, Reader, Writer};
use crate::nft::Family;

const RULES: u8 = 1;
const NODE: u8 = 2;
const ELEMENT: u8 = 3;
const TARGET: u8 = 4;
const HEALTH_CHECK: u8 = 5;
const SETTINGS: u8 = 6;
const OPTIONS: u8 = 7;

impl Key {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Rules(_) => RULES,
            Self::Node(_) => NODE,
            Self::Element { .. } => ELEMENT,
            Self::Group(_) | Self::Member { .. } => TARGET,
            Self::HealthCheck(_) => HEALTH_CHECK,
            Self::Settings => SETTINGS,
            Self::Options(_) => OPTIONS,
        }
    }

    /// The group that the record is, or is a member of.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Self::Group(group) | Self::Member { group, .. } => Some(*group),
            _ => None,
        }
    }

    /// The group, and which of its members.
    #[expect(clippy::type_complexity, reason = "the sort key of one comparison")]
    pub(super) fn target(&self) -> Option<(&GroupId, Option<(&Scope, &u16, &IpAddr)>)> {
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
            Self::HealthCheck(port) => {
                w.u8(HEALTH_CHECK);
                w.u16(*port);
            }
            Self::Settings => w.u8(SETTINGS),
            Self::Options(family) => {
                w.u8(OPTIONS);
                w.u8(family_byte(*family));
            }
            Self::Group(id) => {
                w.u8(TARGET);
                write_group_id(w, id);
                w.u8(0);
            }
            Self::Member { group, scope, port, addr } => {
                w.u8(TARGET);
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
                    Scope::Serving => w.u8(4),
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
            HEALTH_CHECK => Self::HealthCheck(r.u16()?),
            SETTINGS => Self::Settings,
            OPTIONS => Self::Options(read_family(&mut r)?),
            v => return Err(DecodeError::Invalid { what: "record type", value: v.into() }),
        };
        r.end()?;
        Ok(key)
    }
}

fn read_target(r: &mut Reader<'_>) -> Result<Key, DecodeError> {
    let group = read_group_id(r)?;
    let scope = match r.u8()? {
        0 => return Ok(Key::Group(group)),
        1 => Scope::All,
        2 => Scope::Zone(Tag(r.u64()?)),
        3 => Scope::Node(Tag(r.u64()?)),
        4 => Scope::Serving,
        v => return Err(DecodeError::Invalid { what: "scope", value: v.into() }),
    };
    Ok(Key::Member { group, scope, port: r.u16()?, addr: r.addr(group.addr.is_ipv4())? })
}

pub(super) fn read_group_id(r: &mut Reader<'_>) -> Result<GroupId, DecodeError> {
    let v4 = read_family(r)? == Family::V4;
    let (addr, port, proto) = (r.addr(v4)?, r.u16()?, Proto::decode(r)?);
    let kind = match r.u8()? {
        0 => GroupKind::Cluster,
        1 => GroupKind::Local,
        v => return Err(DecodeError::Invalid { what: "group kind", value: v.into() }),
    };
    Ok(GroupId { addr, port, proto, kind })
}

pub(super) fn write_group_id(w: &mut Writer, id: &GroupId) {
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
