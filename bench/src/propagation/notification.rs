//! Which endpoints the kernel tells to be new, in what nf_tables multicasts after a commit.
//!
//! The messages have the form of the requests (`nf_tables_commit_notify` in `net/netfilter/nf_tables_api.c`), and they are
//! sent when the new rules are in force.

use std::net::{Ipv4Addr, SocketAddrV4};

use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer, NlasIterator};

/// Whose rules are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// A chain for each endpoint of a Service with affinity, with its address in the name. For other Services an anonymous
    /// map of all endpoints of one, in the rule that translates.
    KubeProxy,
    /// A map `endpoints` of all Services.
    Rulecast,
}

// linux/netfilter/nfnetlink.h and nf_tables.h: NFNL_SUBSYS_NFTABLES in the upper byte, enum nf_tables_msg_types below.
const NFT_MSG_NEWCHAIN: u16 = 0x0a03;
const NFT_MSG_NEWSETELEM: u16 = 0x0a0c;
/// `struct nfgenmsg`, before the attributes.
const NFGENMSG_LEN: usize = 4;
/// `NFTA_CHAIN_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`.
const NFTA_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

/// The IPv4 endpoints that a datagram says are new.
pub(super) fn endpoints(datagram: &[u8], proxy: Proxy) -> Vec<SocketAddrV4> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let attributes = message.payload().get(NFGENMSG_LEN..).unwrap_or_default();
        match (message.message_type(), proxy) {
            (NFT_MSG_NEWCHAIN, Proxy::KubeProxy) => found.extend(of_chain(attributes)),
            (NFT_MSG_NEWSETELEM, _) if is_map(attributes, proxy) => of_elements(attributes, &mut found),
            _ => {}
        }
        let Ok(length) = usize::try_from(message.length()) else { break };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Chains `endpoint-HASH-NAMESPACE/SERVICE/PROTOCOL/PORT__ADDRESS/PORT` of `ip kube-proxy`
/// (`pkg/proxy/nftables/proxier.go`).
fn of_chain(attributes: &[u8]) -> Option<SocketAddrV4> {
    if text(attributes, NFTA_TABLE)? != "kube-proxy" {
        return None;
    }
    let (_, endpoint) = text(attributes, NFTA_CHAIN_NAME)?.strip_prefix("endpoint-")?.rsplit_once("__")?;
    let (address, port) = endpoint.split_once('/')?;
    Some(SocketAddrV4::new(address.parse().ok()?, port.parse().ok()?))
}

/// Whether elements are of a map that packets are translated with.
fn is_map(attributes: &[u8], proxy: Proxy) -> bool {
    let table = text(attributes, NFTA_TABLE);
    match proxy {
        // The name of an anonymous map says nothing. Those of other sets have other data.
        Proxy::KubeProxy => table == Some("kube-proxy"),
        Proxy::Rulecast => {
            table == Some("rulecast") && text(attributes, NFTA_SET_ELEM_LIST_SET) == Some("endpoints")
        }
    }
}

/// Elements whose data is an address and a port: four bytes each, the port in the first two.
fn of_elements(attributes: &[u8], found: &mut Vec<SocketAddrV4>) {
    for (_, element) in all(raw(attributes, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default()) {
        let value = raw(element, NFTA_SET_ELEM_DATA).and_then(|data| raw(data, NFTA_DATA_VALUE));
        if let Some(&[a, b, c, d, high, low, 0, 0]) = value {
            found.push(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])));
        }
    }
}

/// Types and payloads of attributes, up to the first one that does not fit.
fn all(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), attribute.length());
        (kind, &attribute.into_inner()[NLA_HEADER_SIZE..length.into()])
    })
}

fn raw(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    all(attributes).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// A string, without its NUL.
fn text(attributes: &[u8], kind: u16) -> Option<&str> {
    std::str::from_utf8(raw(attributes, kind)?.strip_suffix(&[0])?).ok()
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    /// What a kernel told of transactions that nft made: for kube-proxy, a table, a chain of another name, an endpoint's
    /// chain with its rule, and a Service's with its map; for rulecast, two elements of `endpoints` and one of another map.
    const RECORDED: &str = include_str!("recorded.hex");

    fn recorded(name: &str) -> Vec<u8> {
        let line = RECORDED.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        (0..line.len()).step_by(2).map(byte).collect()
    }

    fn read(name: &str, proxy: Proxy) -> Vec<String> {
        endpoints(&recorded(name), proxy).iter().map(SocketAddrV4::to_string).collect()
    }

    #[test]
    fn endpoints_are_chains_of_one_and_elements_of_the_other() {
        assert_eq!(
            read("kube-proxy", Proxy::KubeProxy),
            ["10.180.0.1:8080", "10.180.0.2:8080", "10.180.0.3:8080"]
        );
        assert_eq!(read("rulecast", Proxy::Rulecast), ["10.1.2.3:8080", "10.1.2.4:8080"]);
        assert!(read("kube-proxy", Proxy::Rulecast).is_empty());
        assert!(read("rulecast", Proxy::KubeProxy).is_empty());
    }

    #[test]
    fn other_tables_do_not_count() {
        for (name, proxy) in [("kube-proxy", Proxy::KubeProxy), ("rulecast", Proxy::Rulecast)] {
            let mut bytes = recorded(name);
            let places = |bytes: &[u8]| bytes.windows(name.len()).position(|w| w == name.as_bytes());
            while let Some(at) = places(&bytes) {
                bytes[at] = b'x';
            }
            assert!(endpoints(&bytes, proxy).is_empty());
        }
    }

    #[test]
    fn damaged_notifications_are_read_without_a_panic() {
        for (name, proxy) in [("kube-proxy", Proxy::KubeProxy), ("rulecast", Proxy::Rulecast)] {
            let bytes = recorded(name);
            for at in 0..bytes.len() {
                let _ = endpoints(&bytes[..at], proxy);
                for value in [0, 1, 3, 5, 255] {
                    let mut bad = bytes.clone();
                    bad[at] = value;
                    let _ = endpoints(&bad, proxy);
                }
            }
        }
    }
}
