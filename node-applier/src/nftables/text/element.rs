//! Elements: what their bytes say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rulecast_bundle::nft::{Data, Family, Field, SetDef};
use rulecast_netlink::{Key, Value, Verdict};

/// An element of a set or map. They sort by the values of their components.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    key: Vec<Component>,
    /// The last component's end, of a range.
    end: Option<Component>,
    content: Option<String>,
}

/// One component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Component {
    Addr(IpAddr),
    Proto(u8),
    Number(u32),
}

impl Element {
    pub(super) fn new(def: &SetDef, family: Family, key: &Key, value: Value<'_>) -> Self {
        let content = match (value, &def.data) {
            (Value::Verdict(Verdict::Drop), _) => Some("drop".to_owned()),
            (Value::Verdict(Verdict::Goto(chain)), _) => Some(format!("goto {chain}")),
            (Value::Bytes(data), Data::Fields(fields)) => Some(joined(&components(fields, family, data))),
            (Value::None | Value::Bytes(_), _) => None,
        };
        Self { key: components(&def.key, family, key), end: None, content }
    }

    pub(super) fn range(def: &SetDef, family: Family, from: &Key, to: &Key) -> Self {
        let end = components(&def.key, family, to).pop();
        Self { key: components(&def.key, family, from), end, content: None }
    }
}

/// The components of a key, each in registers of 4 bytes; see [`Key`].
fn components(fields: &[Field], family: Family, key: &Key) -> Vec<Component> {
    let mut rest = key.as_bytes();
    let mut take = |length: usize| {
        let (head, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        head
    };
    let mut component = |field: &Field| match field {
        Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr => match family {
            Family::V4 => Component::Addr(Ipv4Addr::from(bytes::<4>(take(4))).into()),
            Family::V6 => Component::Addr(Ipv6Addr::from(bytes::<16>(take(16))).into()),
        },
        Field::Proto => Component::Proto(take(4).first().copied().unwrap_or_default()),
        Field::DestPort | Field::OriginalDestPort => {
            Component::Number(u16::from_be_bytes(bytes::<2>(take(4))).into())
        }
        Field::RandomIndex => Component::Number(u32::from_ne_bytes(bytes::<4>(take(4)))),
    };
    fields.iter().map(&mut component).collect()
}

fn bytes<const N: usize>(from: &[u8]) -> [u8; N] {
    from.first_chunk().copied().unwrap_or([0; N])
}

fn joined(components: &[Component]) -> String {
    components.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.split_last(), self.end) {
            (Some((from, before)), Some(to)) => {
                for component in before {
                    write!(f, "{component} . ")?;
                }
                range(f, *from, to)?;
            }
            _ => f.write_str(&joined(&self.key))?,
        }
        match &self.content {
            Some(content) => write!(f, " : {content}"),
            None => Ok(()),
        }
    }
}

/// A range that is a prefix is written as one.
fn range(f: &mut fmt::Formatter<'_>, from: Component, to: Component) -> fmt::Result {
    let (Component::Addr(first), Component::Addr(last)) = (from, to) else {
        return write!(f, "{from}-{to}");
    };
    let (start, bits, whole) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (u128::from(a.to_bits()), u128::from(a.to_bits() ^ b.to_bits()), 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), a.to_bits() ^ b.to_bits(), 128),
        _ => return write!(f, "{first}-{last}"),
    };
    let is_prefix = bits & bits.wrapping_add(1) == 0 && start & bits == 0;
    match whole - (u128::BITS - bits.leading_zeros()) {
        length if length == whole => write!(f, "{first}"),
        length if is_prefix => write!(f, "{first}/{length}"),
        _ => write!(f, "{first}-{last}"),
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Proto(6) => f.write_str("tcp"),
            Self::Proto(17) => f.write_str("udp"),
            Self::Proto(132) => f.write_str("sctp"),
            Self::Proto(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}
