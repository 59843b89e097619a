//! The few values that objects and packets are made of.

use std::net::IpAddr;

use rulecast_bundle::Proto;
use rulecast_compiler::model::Prefix;

/// The protocols of Services.
pub(crate) const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];
pub(crate) const SERVICES: [&str; 6] = ["a/dns", "a/web", "b/api", "b/db", "c/lb", "c/web"];
pub(crate) const SLICES: [&str; 9] = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
pub(crate) const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
pub(crate) const ZONES: [&str; 3] = ["za", "zb", "zc"];
pub(crate) const PORT_NAMES: [&str; 3] = ["", "http", "alt"];
pub(crate) const PORTS: [u16; 4] = [53, 80, 443, 30_001];
pub(crate) const NODE_PORTS: [u16; 4] = [30_000, 30_001, 30_002, 80];
pub(crate) const TARGET_PORTS: [u16; 3] = [80, 8080, 9090];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').expect("a constant");
    (ip(addr), len.parse().expect("a constant"))
}

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| ip(t)).collect()
}

pub(crate) fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|t| prefix(t)).collect()
}

pub(crate) fn cluster_ips() -> Vec<IpAddr> {
    ips(&["10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6", "10.96.0.7"])
}

pub(crate) fn cluster_ips6() -> Vec<IpAddr> {
    ips(&["fd00:96::1", "fd00:96::2", "fd00:96::3", "fd00:96::4"])
}

/// Also a node's address, a cluster IP, a pod's, and some that no Service may have.
pub(crate) fn vips() -> Vec<IpAddr> {
    ips(&[
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.3",
        "192.0.2.1",
        "10.96.0.2",
        "10.244.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "2001:db8::1",
        "2001:db8::2",
        "fd00:2::1",
        "fd00:96::2",
        "fe80::1",
    ])
}

pub(crate) fn pods() -> Vec<IpAddr> {
    let v4 = (1..=4).flat_map(|node: u8| (1..=3).map(move |pod: u8| IpAddr::from([10, 244, node, pod])));
    let v6 = ips(&["fd00:244:1::1", "fd00:244:1::2", "fd00:244:2::1", "fd00:244:3::1"]);
    v4.chain(v6).chain(ips(&["192.0.2.1", "192.0.2.2", "127.0.0.1", "169.254.0.9"])).collect()
}
