//! From manifests to what the tools list, without a kernel.

use std::net::IpAddr;

use rulecast_bundle::{Mode, Proto};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, NodePortAddresses, Options, Pool, Service, ServicePort, Slice, SlicePort,
};

use super::super::text::render;
use crate::view::View;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with two addresses, and Services of every kind.
fn view() -> View {
    let mut compiler = Compiler::default();
    let mut options = Options {
        mode: Mode::Ipvs,
        detect_local: DetectLocal::ClusterCidr(vec![(ip("10.244.0.0"), 16), (ip("fd00:244::"), 56)]),
        node_port_addresses: NodePortAddresses::All,
        ..Options::default()
    };
    "sh".clone_into(&mut options.ipvs.scheduler);
    compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
    compiler.set_node("n1", Some(Node { addrs: vec![ip("192.168.0.1")], ..Node::default() }));
    let port = |proto, port, node_port| ServicePort { name: String::new(), proto, port, node_port };
    let web = Service {
        cluster_ips: vec![ip("10.96.0.1"), ip("fd00:96::1")],
        load_balancer_ips: vec![ip("203.0.113.1")],
        source_ranges: vec![(ip("192.168.0.0"), 24), (ip("0.0.0.0"), 0)],
        ports: vec![port(Proto::Tcp, 80, Some(30_080))],
        affinity: Some(600),
        ..Service::default()
    };
    let local = Service {
        cluster_ips: vec![ip("10.96.0.2")],
        // One of them is the node's own: it is not put on the device.
        external_ips: vec![ip("203.0.113.2"), ip("192.168.0.1")],
        ports: vec![port(Proto::Udp, 53, None)],
        external_local: true,
        ..Service::default()
    };
    let inside = Service {
        cluster_ips: vec![ip("10.96.0.3")],
        ports: vec![port(Proto::Sctp, 132, None)],
        internal_local: true,
        ..Service::default()
    };
    let empty = Service {
        cluster_ips: vec![ip("10.96.0.4")],
        ports: vec![port(Proto::Tcp, 80, Some(30_084))],
        ..Service::default()
    };
    let endpoint = |addr, node: &str| Endpoint { node: Some(node.into()), ..Endpoint::ready(ip(addr)) };
    let slices = [
        ("web", Proto::Tcp, vec![endpoint("10.244.1.1", "n1"), endpoint("10.244.2.1", "n2")]),
        ("web-6", Proto::Tcp, vec![endpoint("fd00:244::1", "n2")]),
        ("local", Proto::Udp, vec![endpoint("10.244.2.2", "n2")]),
        ("inside", Proto::Sctp, vec![endpoint("10.244.2.3", "n2")]),
    ];
    for (name, service) in [("ns/web", web), ("ns/local", local), ("ns/inside", inside), ("ns/empty", empty)]
    {
        compiler.set_service(name, Some(service));
    }
    for (name, proto, endpoints) in slices {
        let ports = vec![SlicePort { name: String::new(), proto, port: 8080 }];
        let service = format!("ns/{}", name.trim_end_matches("-6"));
        compiler.set_slice(&format!("ns/{name}"), Some(Slice { service, ports, endpoints }));
    }
    compiler.compile();
    View::new("n1", compiler.pools().next().unwrap().1.bundle())
}

#[test]
fn services_of_every_kind_as_the_tools_list_them() {
    let addrs = ["127.0.0.1", "192.168.0.1", "192.168.0.9", "fd00::9", "fe80::9", "::1"].map(ip);
    let text = render(&view(), &addrs);
    // The rules have a test of their own.
    let listed: Vec<&str> =
        text.lines().filter(|line| !line.starts_with(['*', ':', 'C']) && !line.contains("RCV-")).collect();
    assert_eq!(listed.join("\n") + "\n", include_str!("listed.txt"), "{text}");
}

#[test]
fn nothing_is_told_of_another_mode() {
    let mut compiler = Compiler::default();
    compiler.set_pool("default", Some(Pool::default()));
    compiler.compile();
    let view = View::new("n1", compiler.pools().next().unwrap().1.bundle());
    assert_eq!(render(&view, &[]), "");
}
