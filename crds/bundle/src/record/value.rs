//! The encoding of values.

use super::key::{read_group_id, read_ip, read_prefix, write_group_id, write_ip, write_prefix};
use super::options;
use super::{Empty, Group, GroupId, HealthCheck, Key, LaneKey, Member, NodeFact, Settings, Tag, Value};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ruleset;

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
            Self::Options(given) => options::write(w, given),
            Self::Node(fact) => {
                w.text(&fact.name);
                w.u64(fact.zone.map_or(0, |t| t.0));
                w.list(&fact.addrs, |w, a| write_ip(w, *a));
                w.list(&fact.pod_cidrs, write_prefix);
                w.u8(u8::from(fact.draining) | u8::from(fact.next) << 1);
            }
            Self::Element { owner } => w.text(owner),
            Self::HealthCheck(check) => {
                w.text(&check.owner);
                w.list(&check.groups, write_group_id);
            }
            Self::Settings(settings) => write_settings(w, settings),
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
            Key::Options(family) => Self::Options(Box::new(options::read(r, *family)?)),
            Key::Node(_) => Self::Node(read_node(r)?),
            Key::Element { .. } => Self::Element { owner: r.text("owner")?.to_owned() },
            Key::HealthCheck(_) => Self::HealthCheck(read_health_check(r)?),
            Key::Settings => Self::Settings(read_settings(r)?),
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
            Self::Element { owner }
            | Self::Group(Group { owner, .. })
            | Self::HealthCheck(HealthCheck { owner, .. }) => Some(owner),
            Self::Rules(_) | Self::Options(_) | Self::Node(_) | Self::Settings(_) | Self::Member(_) => None,
        }
    }
}

fn read_node(r: &mut Reader<'_>) -> Result<NodeFact, DecodeError> {
    let mut fact = NodeFact {
        name: r.text("node name")?.to_owned(),
        zone: Some(r.u64()?).filter(|t| *t != 0).map(Tag),
        addrs: r.list("node addresses", 16, read_ip)?,
        pod_cidrs: r.list("pod CIDRs", 64, read_prefix)?,
        draining: false,
        next: false,
    };
    let flags = r.u8()?;
    if flags > 3 {
        return Err(DecodeError::Invalid { what: "flags of a node", value: flags.into() });
    }
    (fact.draining, fact.next) = (flags & 1 != 0, flags & 2 != 0);
    Ok(fact)
}

fn read_health_check(r: &mut Reader<'_>) -> Result<HealthCheck, DecodeError> {
    let owner = r.text("owner")?.to_owned();
    let groups = r.list("groups of a health check", MAX_LANE_KEYS, read_group_id)?;
    if !groups.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::NotCanonical("a health check's groups"));
    }
    Ok(HealthCheck { owner, groups })
}

/// A number that is not set is 0, which as a setting means the same.
fn write_settings(w: &mut Writer, settings: &Settings) {
    let Settings { conntrack_max_per_core, conntrack_min, tcp_be_liberal, .. } = settings;
    let Settings { tcp_established_timeout, tcp_close_wait_timeout, udp_timeout, udp_stream_timeout, .. } =
        settings;
    w.u8(tcp_be_liberal.map_or(0, |on| 1 + u8::from(on)));
    for number in [
        conntrack_max_per_core,
        conntrack_min,
        tcp_established_timeout,
        tcp_close_wait_timeout,
        udp_timeout,
        udp_stream_timeout,
    ] {
        w.u32(number.unwrap_or(0));
    }
}

fn read_settings(r: &mut Reader<'_>) -> Result<Settings, DecodeError> {
    let tcp_be_liberal = match r.u8()? {
        0 => None,
        v @ (1 | 2) => Some(v == 2),
        v => return Err(DecodeError::Invalid { what: "a flag's setting", value: v.into() }),
    };
    let mut number = || Ok(Some(r.u32()?).filter(|n| *n > 0));
    Ok(Settings {
        tcp_be_liberal,
        conntrack_max_per_core: number()?,
        conntrack_min: number()?,
        tcp_established_timeout: number()?,
        tcp_close_wait_timeout: number()?,
        udp_timeout: number()?,
        udp_stream_timeout: number()?,
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
