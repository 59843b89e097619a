//! What a Service can be reached at, and from where it is worth trying.

use std::net::{IpAddr, SocketAddr};

use rulecast_tests::probe::Proto;
use serde_json::Value;

use crate::probes::{Probe, Source, Target};
use crate::world::{World, secondary};

/// An address of the Service range that the allocator does not give out by itself.
const UNALLOCATED: [&str; 2] = ["10.96.0.200", "fd00:96::c8"];

/// All probes of a Service.
pub(crate) fn of_service(world: &World, service: &Value) -> Vec<Probe> {
    let mut probes = Vec::new();
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let sticky = service["spec"]["sessionAffinity"] == "ClientIP";
    let is_local = service["spec"]["externalTrafficPolicy"] == "Local";
    let has_ranges = !service["spec"]["loadBalancerSourceRanges"].is_null();
    for port in list(&service["spec"]["ports"]) {
        let proto = match port["protocol"].as_str() {
            Some("TCP") => Proto::Tcp,
            Some("UDP") => Proto::Udp,
            // This kernel has no SCTP sockets.
            _ => continue,
        };
        let number = |field: &str| u16::try_from(port[field].as_u64().unwrap_or(0)).unwrap_or(0);
        let mut add = |sources: &[Source], what: String, ip: IpAddr, port: u16| {
            let (fixture, to) = (name.to_owned(), SocketAddr::new(ip, port));
            let target = Target { fixture, what, proto, to, sticky, is_local, has_ranges };
            probes.extend(sources.iter().map(|source| Probe { source: *source, target: target.clone() }));
        };
        for ip in ips(&service["spec"]["clusterIPs"], "") {
            add(&Source::ALL, "clusterIP".to_owned(), ip, number("port"));
            if name == "default" {
                add(&Source::ALL, "clusterIP at a port it has not".to_owned(), ip, 81);
            }
        }
        for ip in ips(&service["status"]["loadBalancer"]["ingress"], "/ip") {
            add(&Source::ALL, "load balancer address".to_owned(), ip, number("port"));
        }
        for ip in ips(&service["spec"]["externalIPs"], "") {
            add(&Source::ALL, "externalIP".to_owned(), ip, number("port"));
        }
        if number("nodePort") != 0 {
            node_ports(world, number("nodePort"), &mut add);
        }
    }
    probes
}

fn node_ports(world: &World, port: u16, add: &mut impl FnMut(&[Source], String, IpAddr, u16)) {
    let some = [Source::Pod("a3"), Source::Node(0), Source::Client];
    for (node, number) in world.network.nodes.iter().zip(1..) {
        for ip in [node.v4, node.v6] {
            add(&Source::ALL, format!("nodePort of {}", node.name), ip, port);
        }
        for ip in secondary(number) {
            add(&some, format!("nodePort of {}'s second address", node.name), ip, port);
        }
    }
    for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])] {
        add(&[Source::Node(0)], "nodePort of loopback".to_owned(), ip, port);
    }
}

/// Probes of what no Service has.
pub(crate) fn of_nobody() -> Vec<Probe> {
    let mut probes = Vec::new();
    for ip in UNALLOCATED {
        for proto in [Proto::Tcp, Proto::Udp] {
            let to = SocketAddr::new(ip.parse().expect("an address"), 80);
            let (fixture, what) = ("nobody".to_owned(), "a cluster IP that no Service has".to_owned());
            let target =
                Target { fixture, what, proto, to, sticky: false, is_local: false, has_ranges: false };
            probes.extend(Source::ALL.map(|source| Probe { source, target: target.clone() }));
        }
    }
    probes
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn ips(value: &Value, pointer: &str) -> Vec<IpAddr> {
    list(value).filter_map(|v| v.pointer(pointer)?.as_str()?.parse().ok()).collect()
}
