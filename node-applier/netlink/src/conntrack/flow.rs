//! One flow, and its encoding in requests and answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rulecast_bundle::nft::Family;

use crate::attr::{Attributes, Buffer};
use crate::expr::family_number;
use crate::uapi::*;

/// A UDP flow: a conntrack entry. The two directions differ by the NAT that it went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who began it.
    pub source: SocketAddr,
    /// Where the first packet was addressed to, before NAT.
    pub dest: SocketAddr,
    /// Who answers: after DNAT the endpoint, else the same as [`Self::dest`].
    pub reply_source: SocketAddr,
    /// Where answers go: after masquerading a node's address, else the same as [`Self::source`].
    pub reply_dest: SocketAddr,
    /// The conntrack zone of the reply direction; none for the default one.
    pub zone: Option<u16>,
    /// An opaque number made of the entry's place in memory and its original tuple (`CTA_ID`, `nf_ct_get_id`).
    pub id: Option<u32>,
}

/// Which original destinations a dump is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// All of them.
    All,
    /// This port of any address, as for nodePorts.
    Port(u16),
    /// This port of this address.
    Addr(SocketAddr),
}

impl Destinations {
    /// Whether this is one of them.
    #[must_use]
    pub fn contain(self, dest: SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::Port(port) => dest.port() == port,
            Self::Addr(addr) => dest.ip() == addr.ip() && dest.port() == addr.port(),
        }
    }
}

impl Flow {
    /// The flow's family.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.dest.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The flow in a conntrack entry; none if it is not UDP.
    pub(super) fn read(entry: Attributes<'_>) -> Option<Self> {
        let reply = entry.nest(CTA_TUPLE_REPLY);
        let (source, dest) = read_tuple(entry.nest(CTA_TUPLE_ORIG))?;
        let (reply_source, reply_dest) = read_tuple(reply)?;
        // A zone of both directions stands in the entry, one of a single direction in its tuple.
        let zone = entry.raw(CTA_ZONE).or_else(|| reply.raw(CTA_TUPLE_ZONE)).and_then(be16);
        Some(Self { source, dest, reply_source, reply_dest, zone, id: entry.number(CTA_ID) })
    }
}

fn read_tuple(tuple: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, proto) = (tuple.nest(CTA_TUPLE_IP), tuple.nest(CTA_TUPLE_PROTO));
    if proto.raw(CTA_PROTO_NUM) != Some(&[IPPROTO_UDP]) {
        return None;
    }
    let addr = |v4, v6| match ip.raw(v4) {
        Some(raw) => <[u8; 4]>::try_from(raw).ok().map(|raw| IpAddr::V4(Ipv4Addr::from(raw))),
        None => <[u8; 16]>::try_from(ip.raw(v6)?).ok().map(|raw| IpAddr::V6(Ipv6Addr::from(raw))),
    };
    let port = |kind| proto.raw(kind).and_then(be16);
    let source = SocketAddr::new(addr(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?);
    let dest = SocketAddr::new(addr(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?);
    (source.is_ipv4() == dest.is_ipv4()).then_some((source, dest))
}

fn be16(raw: &[u8]) -> Option<u16> {
    raw.try_into().ok().map(u16::from_be_bytes)
}

/// Deletions of these flows, with sequence numbers from 1; the last one asks for an acknowledgement.
///
/// A flow is named by its reply tuple, which has the endpoint in it, and by its id, which stands for the original tuple.
/// The original tuple and the id would not do: a later entry is often put where the deleted one was.
pub(super) fn deletions(flows: &[Flow]) -> Buffer {
    let mut request = Buffer::default();
    for (seq, flow) in (1..).zip(flows) {
        let ack = if seq as usize == flows.len() { NLM_F_ACK } else { 0 };
        let family = family_number(flow.family());
        let start = request.open_message(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | ack, seq, family, 0);
        request.nest(CTA_TUPLE_REPLY, |tuple| {
            tuple.nest(CTA_TUPLE_IP, |ip| {
                write_addr(ip, flow.reply_source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
                write_addr(ip, flow.reply_dest.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST);
            });
            tuple.nest(CTA_TUPLE_PROTO, |proto| {
                proto.raw(CTA_PROTO_NUM, &[IPPROTO_UDP]);
                proto.raw(CTA_PROTO_SRC_PORT, &flow.reply_source.port().to_be_bytes());
                proto.raw(CTA_PROTO_DST_PORT, &flow.reply_dest.port().to_be_bytes());
            });
        });
        // The kernel compares the zone of the tuple's direction only, so this finds one-way zones too.
        if let Some(zone) = flow.zone {
            request.raw(CTA_ZONE, &zone.to_be_bytes());
        }
        if let Some(id) = flow.id {
            request.number(CTA_ID, id);
        }
        request.close_message(start);
    }
    request
}

/// The part of a dump request by which the kernel leaves out other entries; one before 5.8 passes over it.
pub(super) fn write_filter(request: &mut Buffer, family: Family, to: Destinations) {
    let mut flags = CTA_FILTER_F_CTA_PROTO_NUM;
    let (addr, port) = match to {
        Destinations::All => (None, None),
        Destinations::Port(port) => (None, Some(port)),
        Destinations::Addr(addr) => (Some(addr.ip()), Some(addr.port())),
    };
    request.nest(CTA_TUPLE_ORIG, |tuple| {
        // Not for IPv6: see Conntrack::udp_flows.
        if let (Some(addr), Family::V4) = (addr.filter(IpAddr::is_ipv4), family) {
            flags |= CTA_FILTER_F_CTA_IP_DST;
            tuple.nest(CTA_TUPLE_IP, |ip| write_addr(ip, addr, CTA_IP_V4_DST, CTA_IP_V6_DST));
        }
        tuple.nest(CTA_TUPLE_PROTO, |proto| {
            proto.raw(CTA_PROTO_NUM, &[IPPROTO_UDP]);
            if let Some(port) = port {
                flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT;
                proto.raw(CTA_PROTO_DST_PORT, &port.to_be_bytes());
            }
        });
    });
    // Unlike all other numbers here, in host order.
    request.nest(CTA_FILTER, |filter| filter.raw(CTA_FILTER_ORIG_FLAGS, &flags.to_ne_bytes()));
}

fn write_addr(ip: &mut Buffer, addr: IpAddr, v4: u16, v6: u16) {
    match addr {
        IpAddr::V4(addr) => ip.raw(v4, &addr.octets()),
        IpAddr::V6(addr) => ip.raw(v6, &addr.octets()),
    }
}
