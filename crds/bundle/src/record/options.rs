//! A pool's options in the modes whose layout the applier knows.
//!
//! In nftables mode the bundle says what the table looks like ([`crate::nft::Ruleset`]), because Services are elements of maps
//! there. With iptables and IPVS a Service is chains, or virtual servers: their layout is a program, which the applier has,
//! and the bundle says with what options it is to run.

use std::net::IpAddr;

use super::key::{read_prefix, write_prefix};
use crate::codec::{DecodeError, Reader, Writer};
use crate::nft::Family;

/// The options of one family, in iptables and IPVS mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyOptions {
    /// The bit of the packet mark that says that a packet is to be masqueraded.
    pub mark: u32,
    /// Everything that is addressed to cluster IPs is masqueraded.
    pub masquerade_all: bool,
    /// Packets that conntrack calls invalid are let through.
    pub liberal: bool,
    /// How traffic of the node's own pods is told.
    pub pods: Pods,
    /// Which of the node's addresses answer nodePorts; none: all of them.
    pub node_port_addresses: Option<NodePortAddresses>,
    /// In IPv4 the loopback addresses answer nodePorts, too.
    pub localhost_node_ports: bool,
    /// What IPVS mode needs; none: this is iptables mode.
    pub ipvs: Option<IpvsOptions>,
}

/// How a node tells traffic of its own pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pods {
    /// It cannot.
    Unknown,
    /// It comes from one of these.
    Prefixes(Vec<(IpAddr, u8)>),
    /// It comes from one of the node's own pod CIDRs ([`crate::NodeFact::pod_cidrs`]).
    NodeCidr,
    /// It comes in through this interface, or through one whose name begins so.
    Interface {
        /// The name; of letters, digits, `_`, `.`, `@` and `-`.
        name: String,
        /// It is the beginning of a name.
        prefix: bool,
    },
}

/// Those of a node's addresses that answer nodePorts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// The primary one.
    pub primary: bool,
    /// All inside these.
    pub prefixes: Vec<(IpAddr, u8)>,
}

/// What IPVS mode needs beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpvsOptions {
    /// The kernel's name of the scheduler: 1 to 15 lower-case letters.
    pub scheduler: String,
    /// The node does not answer ARP for addresses of other interfaces.
    pub strict_arp: bool,
    /// Virtual servers in here are somebody else's.
    pub exclude: Vec<(IpAddr, u8)>,
    /// How long an idle TCP connection is remembered, in seconds; 0: as the kernel has it. So with the other two.
    pub tcp_timeout: u32,
    /// The same after a FIN.
    pub tcp_fin_timeout: u32,
    /// The same of a UDP flow.
    pub udp_timeout: u32,
}

/// The most prefixes in a list.
const MAX_PREFIXES: usize = 1024;

const MASQUERADE_ALL: u8 = 1;
const LIBERAL: u8 = 2;
const LOCALHOST: u8 = 4;
const NODE_PORT_ADDRESSES: u8 = 8;
const PRIMARY: u8 = 16;
const IPVS: u8 = 32;

pub(super) fn write(w: &mut Writer, options: &FamilyOptions) {
    let FamilyOptions { mark, pods, node_port_addresses, ipvs, .. } = options;
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    w.u32(*mark);
    w.u8(flag(options.masquerade_all, MASQUERADE_ALL)
        | flag(options.liberal, LIBERAL)
        | flag(options.localhost_node_ports, LOCALHOST)
        | flag(node_port_addresses.is_some(), NODE_PORT_ADDRESSES)
        | flag(node_port_addresses.as_ref().is_some_and(|a| a.primary), PRIMARY)
        | flag(ipvs.is_some(), IPVS));
    match pods {
        Pods::Unknown => w.u8(0),
        Pods::Prefixes(prefixes) => {
            w.u8(1);
            w.list(prefixes, write_prefix);
        }
        Pods::NodeCidr => w.u8(2),
        Pods::Interface { name, prefix } => {
            w.u8(if *prefix { 4 } else { 3 });
            w.text(name);
        }
    }
    if let Some(addresses) = node_port_addresses {
        w.list(&addresses.prefixes, write_prefix);
    }
    if let Some(ipvs) = ipvs {
        w.text(&ipvs.scheduler);
        w.u8(ipvs.strict_arp.into());
        w.list(&ipvs.exclude, write_prefix);
        for seconds in [ipvs.tcp_timeout, ipvs.tcp_fin_timeout, ipvs.udp_timeout] {
            w.u32(seconds);
        }
    }
}

pub(super) fn read(r: &mut Reader<'_>, family: Family) -> Result<FamilyOptions, DecodeError> {
    let mark = r.u32()?;
    if mark.count_ones() != 1 {
        return Err(DecodeError::Invalid { what: "mark, which is not one bit,", value: mark.into() });
    }
    let flags = r.u8()?;
    if flags >= IPVS << 1 {
        return Err(DecodeError::Invalid { what: "flags of options", value: flags.into() });
    }
    let pods = match r.u8()? {
        0 => Pods::Unknown,
        1 => Pods::Prefixes(prefixes(r, family)?),
        2 => Pods::NodeCidr,
        kind @ (3 | 4) => Pods::Interface { name: interface(r.text("interface")?)?, prefix: kind == 4 },
        v => return Err(DecodeError::Invalid { what: "way to tell pods", value: v.into() }),
    };
    let node_port_addresses = (flags & NODE_PORT_ADDRESSES != 0)
        .then(|| {
            Ok::<_, DecodeError>(NodePortAddresses {
                primary: flags & PRIMARY != 0,
                prefixes: prefixes(r, family)?,
            })
        })
        .transpose()?;
    Ok(FamilyOptions {
        mark,
        masquerade_all: flags & MASQUERADE_ALL != 0,
        liberal: flags & LIBERAL != 0,
        localhost_node_ports: flags & LOCALHOST != 0,
        pods,
        node_port_addresses,
        ipvs: (flags & IPVS != 0).then(|| read_ipvs(r, family)).transpose()?,
    })
}

fn read_ipvs(r: &mut Reader<'_>, family: Family) -> Result<IpvsOptions, DecodeError> {
    let scheduler = r.text("scheduler")?;
    if !(1..=15).contains(&scheduler.len()) || !scheduler.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(DecodeError::Text("a scheduler"));
    }
    Ok(IpvsOptions {
        scheduler: scheduler.to_owned(),
        strict_arp: r.bool("strictARP")?,
        exclude: prefixes(r, family)?,
        tcp_timeout: r.u32()?,
        tcp_fin_timeout: r.u32()?,
        udp_timeout: r.u32()?,
    })
}

/// Prefixes become text of rules of one family.
fn prefixes(r: &mut Reader<'_>, family: Family) -> Result<Vec<(IpAddr, u8)>, DecodeError> {
    let prefixes = r.list("prefixes", MAX_PREFIXES, read_prefix)?;
    match prefixes.iter().find(|(addr, _)| Family::of(*addr) != family) {
        Some((_, len)) => {
            Err(DecodeError::Invalid { what: "prefix of the other family", value: (*len).into() })
        }
        None => Ok(prefixes),
    }
}

/// The name becomes part of a rule.
fn interface(name: &str) -> Result<String, DecodeError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
    if (1..=15).contains(&name.len()) && name.bytes().all(good) {
        Ok(name.to_owned())
    } else {
        Err(DecodeError::Text("the name of an interface"))
    }
}
