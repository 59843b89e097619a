//! ipsets over nfnetlink: making them, their entries, and reading them.
//!
//! From `include/uapi/linux/netfilter/ipset/ip_set.h` and `net/netfilter/ipset/`.

use std::net::{IpAddr, Ipv6Addr};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rulecast_bundle::nft::Family;

use crate::attr::{Attributes, Buffer};
use crate::error::Error;
use crate::expr::family_number;
use crate::requests::{Failed, Requests, Sent, is_unknown};
use crate::uapi::NLA_F_NET_BYTEORDER;

#[cfg(test)]
mod tests;
mod uapi;

use uapi::*;

/// The most entries of one set. The kernel takes memory for those that are there.
pub const MAX_ENTRIES: u32 = 1 << 20;
/// Entries in one message: well below the 64 KiB of an attribute.
const ENTRIES: usize = 400;

/// What the entries of a set are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetType {
    /// Addresses.
    Ip,
    /// Address, protocol and port.
    IpPort,
    /// Those and an address.
    IpPortIp,
    /// Those and a range of addresses.
    IpPortNet,
}

impl SetType {
    /// Its name in the kernel; its module is called alike: `ip_set_hash_ipport`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "hash:ip",
            Self::IpPort => "hash:ip,port",
            Self::IpPortIp => "hash:ip,port,ip",
            Self::IpPortNet => "hash:ip,port,net",
        }
    }

    /// The kernel module that has it.
    #[must_use]
    pub fn module(self) -> String {
        format!("ip_set_{}", self.name().replace(':', "_").replace(',', ""))
    }

    /// The oldest revision of the type that the tool ipset knows, with ranges and SCTP; kernels have later ones, too, which
    /// add options that are not used here.
    fn revision(self) -> u8 {
        match self {
            Self::Ip => 0,
            Self::IpPort | Self::IpPortIp => 1,
            Self::IpPortNet => 2,
        }
    }
}

/// An entry. Which parts it has is said by the set's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The address.
    pub addr: IpAddr,
    /// Protocol, as IANA numbers it, and port.
    pub port: Option<(u8, u16)>,
    /// The second address, with the length of its prefix, which is not 0.
    pub second: Option<(IpAddr, u8)>,
}

impl Entry {
    /// An address.
    #[must_use]
    pub fn addr(addr: IpAddr) -> Self {
        Self { addr, port: None, second: None }
    }

    /// Address, protocol and port.
    #[must_use]
    pub fn port(addr: IpAddr, proto: u8, port: u16) -> Self {
        Self { addr, port: Some((proto, port)), second: None }
    }

    /// The same with a range of addresses behind it; a single address is a prefix of its full length.
    #[must_use]
    pub fn with(self, prefix: (IpAddr, u8)) -> Self {
        Self { second: Some(prefix), ..self }
    }
}

/// One or more messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOperation {
    /// Makes a set for addresses of this family. One of the same name and type is left as it is.
    Create(String, SetType, Family),
    /// Makes a set for addresses that packets add and that time out, small as long as they are few. One of the same name and
    /// type is left as it is.
    CreateClients(String, Family),
    /// Adds entries; those that are there are left as they are (without `NLM_F_EXCL` that is no error).
    Add(String, Vec<Entry>),
    /// Removes entries; those that are not there are passed over.
    Remove(String, Vec<Entry>),
    /// Removes all entries.
    Flush(String),
    /// Removes the set; `IPSET_ERR_BUSY` while a rule uses it.
    Destroy(String),
}

/// A set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// Its name.
    pub name: String,
    /// Its type's name.
    pub kind: String,
    /// Its entries; kernels before 4.19 do not tell.
    pub entries: Option<u32>,
}

/// A socket to the ipsets of the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Ipsets {
    requests: Requests,
}

impl Ipsets {
    /// Opens it and makes sure that ipsets are there and may be used; the kernel loads the module if it can.
    pub fn open() -> Result<Self, Error> {
        let mut requests = Requests::open(NETLINK_NETFILTER)?;
        let answer = requests.get(
            "ask for the protocol of ipsets",
            |b, seq, flags| message(b, IPSET_CMD_PROTOCOL, flags, seq, 0, |_| ()),
            |_| (),
        );
        match answer {
            Ok(()) => Ok(Self { requests }),
            Err(Error::Refused { errno, .. }) if is_unknown(errno) => {
                Err(Error::NoIpset(std::io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out operations one after the other. When one is refused, those behind it may have been carried out.
    pub fn apply(&mut self, operations: &[SetOperation]) -> Result<Sent, Failed> {
        let messages: Vec<Piece<'_>> = operations.iter().enumerate().flat_map(pieces).collect();
        self.requests.send_all(&messages, Piece::write, Piece::describe).map_err(|failed| {
            let at = failed.at.map(|at| messages[at].operation);
            match at.map(|at| &operations[at]) {
                Some(SetOperation::CreateClients(..))
                    if failed.error.errno() == Some(IPSET_ERR_FIND_TYPE) =>
                {
                    let what = "ipsets of the type hash:ip".to_owned();
                    Failed { at, error: Error::NoModule { what, module: SetType::Ip.module() } }
                }
                Some(SetOperation::Create(_, kind, _))
                    if failed.error.errno() == Some(IPSET_ERR_FIND_TYPE) =>
                {
                    let what = format!("ipsets of the type {}", kind.name());
                    Failed { at, error: Error::NoModule { what, module: kind.module() } }
                }
                _ => Failed { at, error: explain(failed.error) },
            }
        })
    }

    /// All sets, without their entries.
    pub fn sets(&mut self) -> Result<Vec<SetHeader>, Error> {
        self.requests.dump(
            "list the ipsets",
            |b, seq, flags| {
                message(b, IPSET_CMD_LIST, flags, seq, 0, |b| {
                    order(b, IPSET_ATTR_FLAGS, &IPSET_FLAG_LIST_HEADER.to_be_bytes());
                });
            },
            Vec::new,
            |all: &mut Vec<SetHeader>, message| {
                let set = message.attributes();
                let Some(name) = set.text(IPSET_ATTR_SETNAME) else { return };
                let kind = set.text(IPSET_ATTR_TYPENAME).unwrap_or_default().to_owned();
                let entries = set.nest(IPSET_ATTR_DATA).number(IPSET_ATTR_ELEMENTS);
                if all.last().is_none_or(|last| last.name != name) {
                    all.push(SetHeader { name: name.to_owned(), kind, entries });
                }
            },
        )
    }

    /// The entries of a set.
    pub fn entries(&mut self, name: &str) -> Result<Vec<Entry>, Error> {
        self.requests.dump(
            "list the entries of an ipset",
            |b, seq, flags| {
                message(b, IPSET_CMD_LIST, flags, seq, 0, |b| b.text(IPSET_ATTR_SETNAME, name));
            },
            Vec::new,
            |all, message| {
                let entries = message.attributes().nest(IPSET_ATTR_ADT);
                all.extend(entries.iter().filter_map(|(_, entry)| read_entry(Attributes(entry))));
            },
        )
    }
}

/// One message of an operation.
struct Piece<'a> {
    operation: usize,
    what: What<'a>,
}

enum What<'a> {
    Whole(&'a SetOperation),
    Entries { command: u16, name: &'a str, entries: &'a [Entry] },
}

fn pieces((operation, what): (usize, &SetOperation)) -> Vec<Piece<'_>> {
    let piece = |what| Piece { operation, what };
    match what {
        SetOperation::Add(name, all) | SetOperation::Remove(name, all) => {
            let add = matches!(what, SetOperation::Add(..));
            let command = if add { IPSET_CMD_ADD } else { IPSET_CMD_DEL };
            all.chunks(ENTRIES).map(|entries| piece(What::Entries { command, name, entries })).collect()
        }
        _ => vec![piece(What::Whole(what))],
    }
}

impl Piece<'_> {
    fn write(b: &mut Buffer, piece: &Self, seq: u32, flags: u16) {
        match &piece.what {
            What::Entries { command, name, entries } => {
                message(b, *command, flags, seq, 0, |b| write_entries(b, name, entries));
            }
            What::Whole(SetOperation::Create(name, kind, family)) => {
                message(b, IPSET_CMD_CREATE, flags, seq, family_number(*family), |b| {
                    write_create(b, name, *kind, *family);
                });
            }
            What::Whole(SetOperation::CreateClients(name, family)) => {
                message(b, IPSET_CMD_CREATE, flags, seq, family_number(*family), |b| {
                    write_create_clients(b, name, *family);
                });
            }
            What::Whole(SetOperation::Flush(name)) => {
                message(b, IPSET_CMD_FLUSH, flags, seq, 0, |b| b.text(IPSET_ATTR_SETNAME, name));
            }
            What::Whole(SetOperation::Destroy(name)) => {
                message(b, IPSET_CMD_DESTROY, flags, seq, 0, |b| b.text(IPSET_ATTR_SETNAME, name));
            }
            What::Whole(SetOperation::Add(..) | SetOperation::Remove(..)) => {
                unreachable!("these are sent in pieces")
            }
        }
    }

    fn describe(piece: &Self) -> String {
        match &piece.what {
            What::Entries { command, name, .. } if *command == IPSET_CMD_ADD => {
                format!("add entries to the ipset {name}")
            }
            What::Entries { name, .. } => format!("remove entries from the ipset {name}"),
            What::Whole(SetOperation::Create(name, kind, _)) => {
                format!("make the ipset {name} of the type {}", kind.name())
            }
            What::Whole(SetOperation::CreateClients(name, _)) => format!("make the ipset {name} for clients"),
            What::Whole(SetOperation::Flush(name)) => format!("empty the ipset {name}"),
            What::Whole(
                SetOperation::Destroy(name) | SetOperation::Add(name, _) | SetOperation::Remove(name, _),
            ) => format!("remove the ipset {name}"),
        }
    }
}

/// Gives the errors that only ipsets have a text.
fn explain(error: Error) -> Error {
    match error {
        Error::Refused { operation, errno, kernel_message: None } => {
            let text = match errno {
                IPSET_ERR_BUSY => Some("a rule uses the set"),
                IPSET_ERR_TYPE_MISMATCH => Some("a set of this name has another type"),
                IPSET_ERR_HASH_FULL => Some("the set is full"),
                _ => None,
            };
            Error::Refused { operation, errno, kernel_message: text.map(str::to_owned) }
        }
        other => other,
    }
}

/// A message, with the protocol's version as its first attribute.
fn message(b: &mut Buffer, kind: u16, flags: u16, seq: u32, family: u8, write: impl FnOnce(&mut Buffer)) {
    let start = b.open_message(kind, flags, seq, family, 0);
    b.raw(IPSET_ATTR_PROTOCOL, &[IPSET_PROTOCOL]);
    write(b);
    b.close_message(start);
}

/// A number that the kernel takes only when it is said to be in network order.
fn order(b: &mut Buffer, kind: u16, bytes: &[u8]) {
    b.raw(kind | NLA_F_NET_BYTEORDER, bytes);
}

fn write_create(b: &mut Buffer, name: &str, kind: SetType, family: Family) {
    b.text(IPSET_ATTR_SETNAME, name);
    b.text(IPSET_ATTR_TYPENAME, kind.name());
    b.raw(IPSET_ATTR_REVISION, &[kind.revision()]);
    b.raw(IPSET_ATTR_FAMILY, &[family_number(family)]);
    b.nest(IPSET_ATTR_DATA, |b| {
        order(b, IPSET_ATTR_HASHSIZE, &1024_u32.to_be_bytes());
        order(b, IPSET_ATTR_MAXELEM, &MAX_ENTRIES.to_be_bytes());
    });
}

/// The fewest buckets (`IPSET_MIMINAL_HASHSIZE`): there may be thousands of such sets, and they grow.
const FEW: u32 = 64;
/// The most clients of one set: the kernel's own default.
const CLIENTS: u32 = 1 << 16;

/// Entries time out when they were added with a timeout, so the set's own is 0: never.
fn write_create_clients(b: &mut Buffer, name: &str, family: Family) {
    b.text(IPSET_ATTR_SETNAME, name);
    b.text(IPSET_ATTR_TYPENAME, SetType::Ip.name());
    b.raw(IPSET_ATTR_REVISION, &[SetType::Ip.revision()]);
    b.raw(IPSET_ATTR_FAMILY, &[family_number(family)]);
    b.nest(IPSET_ATTR_DATA, |b| {
        order(b, IPSET_ATTR_HASHSIZE, &FEW.to_be_bytes());
        order(b, IPSET_ATTR_MAXELEM, &CLIENTS.to_be_bytes());
        order(b, IPSET_ATTR_TIMEOUT, &0_u32.to_be_bytes());
    });
}

fn write_entries(b: &mut Buffer, name: &str, entries: &[Entry]) {
    b.text(IPSET_ATTR_SETNAME, name);
    // The kernel wants a line number beside several entries, in the machine's order.
    b.raw(IPSET_ATTR_LINENO, &0_u32.to_ne_bytes());
    b.nest(IPSET_ATTR_ADT, |b| {
        for entry in entries {
            b.nest(IPSET_ATTR_DATA, |b| write_entry(b, entry));
        }
    });
}

fn write_entry(b: &mut Buffer, entry: &Entry) {
    write_addr(b, IPSET_ATTR_IP, entry.addr);
    if let Some((proto, port)) = entry.port {
        order(b, IPSET_ATTR_PORT, &port.to_be_bytes());
        b.raw(IPSET_ATTR_PROTO, &[proto]);
    }
    if let Some((addr, len)) = entry.second {
        write_addr(b, IPSET_ATTR_IP2, addr);
        let full = if addr.is_ipv4() { 32 } else { 128 };
        if len < full {
            b.raw(IPSET_ATTR_CIDR2, &[len]);
        }
    }
}

fn write_addr(b: &mut Buffer, kind: u16, addr: IpAddr) {
    b.nest(kind, |b| match addr {
        IpAddr::V4(addr) => order(b, IPSET_ATTR_IPADDR_IPV4, &addr.octets()),
        IpAddr::V6(addr) => order(b, IPSET_ATTR_IPADDR_IPV6, &addr.octets()),
    });
}

fn read_entry(entry: Attributes<'_>) -> Option<Entry> {
    let port = entry.raw(IPSET_ATTR_PORT).and_then(|raw| Some(u16::from_be_bytes(raw.try_into().ok()?)));
    let proto = entry.raw(IPSET_ATTR_PROTO).and_then(|raw| raw.first().copied());
    let second = read_addr(entry.nest(IPSET_ATTR_IP2)).map(|addr| {
        let full = if addr.is_ipv4() { 32 } else { 128 };
        (addr, entry.raw(IPSET_ATTR_CIDR2).and_then(|raw| raw.first().copied()).unwrap_or(full))
    });
    Some(Entry { addr: read_addr(entry.nest(IPSET_ATTR_IP))?, port: proto.zip(port), second })
}

fn read_addr(addr: Attributes<'_>) -> Option<IpAddr> {
    if let Some(raw) = addr.raw(IPSET_ATTR_IPADDR_IPV4) {
        return raw.try_into().ok().map(|raw: [u8; 4]| raw.into());
    }
    let raw: [u8; 16] = addr.raw(IPSET_ATTR_IPADDR_IPV6)?.try_into().ok()?;
    Some(Ipv6Addr::from(raw).into())
}
