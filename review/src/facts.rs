//! A Service's records as single facts, each of which can be said in one line.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::nft::Family;
use rulecast_bundle::nft::text::prefix;
use rulecast_bundle::{GroupId, Key, Lane, LaneKey, Part, Proto, Value};

/// The set of VIPs that only some sources may use, and that of those sources.
const RESTRICTED: &str = "firewall-ips";
const RANGES: &str = "firewall-ranges";

/// An address that clients use, with protocol and port.
pub(crate) type Vip = (IpAddr, Proto, u16);

/// One thing that records say. The facts of records are as many as needed to write the records anew, but for what a
/// target does when it is empty, which is not part of a shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// There is this target.
    Target(GroupId),
    /// Its port has a name.
    Name(GroupId, String),
    /// It has session affinity, with a timeout in seconds.
    Affinity(GroupId, u32),
    /// It answers this key.
    Answers(GroupId, LaneKey),
    /// Only some sources may use this address.
    Restricted(Vip),
    /// This range may.
    Range(Vip, (IpAddr, u8)),
    /// Nodes answer health checks here.
    HealthCheck(u16),
    /// They count this target's endpoints.
    Counts(u16, GroupId),
    /// An element of a set that is not known here.
    Element(Family, String, Vec<Part>),
}

/// What the records say; none of them is another Service's.
pub(crate) fn facts<'a>(records: impl IntoIterator<Item = &'a (Key, Value)>) -> BTreeSet<Fact> {
    let mut facts = BTreeSet::new();
    for (key, value) in records {
        match (key, value) {
            (Key::Group(id), Value::Group(group)) => {
                facts.insert(Fact::Target(*id));
                if !group.port_name.is_empty() {
                    facts.insert(Fact::Name(*id, group.port_name.clone()));
                }
                facts.extend(group.affinity.map(|timeout| Fact::Affinity(*id, timeout)));
                facts.extend(group.keys.iter().map(|key| Fact::Answers(*id, *key)));
            }
            (Key::HealthCheck(port), Value::HealthCheck(check)) => {
                facts.insert(Fact::HealthCheck(*port));
                facts.extend(check.groups.iter().map(|id| Fact::Counts(*port, *id)));
            }
            (Key::Element { family, set, parts }, _) => {
                facts.insert(element(*family, set.as_str(), parts));
            }
            _ => {}
        }
    }
    facts
}

fn element(family: Family, set: &str, parts: &[Part]) -> Fact {
    let of_family = |addr: IpAddr| Family::of(addr) == family;
    match (set, parts) {
        (RESTRICTED, [Part::Addr(addr), Part::Proto(proto), Part::Port(port)]) if of_family(*addr) => {
            Fact::Restricted((*addr, *proto, *port))
        }
        (RANGES, [Part::Addr(addr), Part::Proto(proto), Part::Port(port), Part::Prefix(net, len)])
            if of_family(*addr) =>
        {
            Fact::Range((*addr, *proto, *port), (*net, *len))
        }
        _ => Fact::Element(family, set.to_owned(), parts.to_vec()),
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(id) => write!(f, "target {id}"),
            Self::Name(id, name) => write!(f, "target {id}: port name {name:?}"),
            Self::Affinity(id, timeout) => write!(f, "target {id}: session affinity of {timeout} s"),
            Self::Answers(id, key) => {
                let lane = Lane::of(key.lane).map_or_else(|| key.lane.to_string(), |l| format!("{l:?}"));
                match key.addr {
                    Some(addr) => write!(f, "target {id}: {lane} {}", SocketAddr::new(addr, key.port)),
                    None => write!(f, "target {id}: {lane} {}", key.port),
                }
            }
            Self::Restricted(vip) => write!(f, "source ranges for {}", Address(*vip)),
            Self::Range(vip, (net, len)) => {
                write!(f, "source range {} for {}", prefix(*net, *len), Address(*vip))
            }
            Self::HealthCheck(port) => write!(f, "healthCheckNodePort {port}"),
            Self::Counts(port, id) => write!(f, "healthCheckNodePort {port} counts target {id}"),
            Self::Element(family, set, parts) => write!(f, "{family:?} element of {set:?}: {parts:?}"),
        }
    }
}

struct Address(Vip);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (addr, proto, port) = self.0;
        write!(f, "{}/{proto}", SocketAddr::new(addr, port))
    }
}
