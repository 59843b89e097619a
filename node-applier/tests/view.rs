//! What nodes make of a compiled bundle, without a kernel: counts, health checks, addresses.

use std::net::IpAddr;

use rulecast_bundle::Proto;
use rulecast_bundle::nft::Family;
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    Endpoint, Node, NodePortAddresses, Options, Pool, Service, ServicePort, Slice, SlicePort,
};
use rulecast_node::view::{NoLocal, View};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A load balancer with a port for each number.
fn service(ports: &[u16]) -> Service {
    let port = |port: &u16| ServicePort {
        name: port.to_string(),
        proto: Proto::Tcp,
        port: *port,
        node_port: Some(30_000 + port),
    };
    Service {
        cluster_ips: vec![ip("10.96.0.1"), ip("fd00::1")],
        load_balancer_ips: vec![ip("203.0.113.1")],
        ports: ports.iter().map(port).collect(),
        ..Service::default()
    }
}

/// Endpoints as address, node, and whether they are ready; the others terminate.
fn slice(ports: &[u16], endpoints: &[(&str, &str, bool)]) -> Slice {
    let port = |port: &u16| SlicePort { name: port.to_string(), proto: Proto::Tcp, port: 8000 + port };
    let endpoint = |(addr, node, ready): &(&str, &str, bool)| Endpoint {
        node: Some((*node).into()),
        ready: *ready,
        terminating: !ready,
        ..Endpoint::ready(ip(addr))
    };
    Slice {
        service: "ns/web".into(),
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn compile(service: Service, slice: Slice, options: Options) -> Compiler {
    let mut compiler = Compiler::default();
    compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
    for (name, last) in [("n1", 1), ("n2", 2)] {
        let addrs = vec![IpAddr::from([192, 168, 0, last])];
        compiler.set_node(name, Some(Node { addrs, ..Node::default() }));
    }
    compiler.set_service("ns/web", Some(service));
    compiler.set_slice("ns/web-1", Some(slice));
    compiler.compile();
    compiler
}

fn view(compiler: &Compiler, node: &str) -> View {
    View::new(node, compiler.pools().next().unwrap().1.bundle())
}

#[test]
fn ports_without_local_endpoints_are_counted_by_policy_and_not_when_there_are_none_anywhere() {
    let both = Service { internal_local: true, external_local: true, ..service(&[80, 81]) };
    let count = |service: &Service, slice: Slice, node: &str| {
        let view = view(&compile(service.clone(), slice, Options::default()), node);
        let NoLocal { internal, external } = view.counts().no_local[0];
        assert_eq!(view.counts().no_local[1], NoLocal::default(), "no endpoints of IPv6: those are refused");
        [internal, external]
    };
    let there = || slice(&[80, 81], &[("10.1.0.1", "n1", true)]);
    assert_eq!(count(&both, there(), "n1"), [0, 0]);
    assert_eq!(count(&both, there(), "n2"), [2, 2]);
    assert_eq!(count(&Service { internal_local: false, ..both.clone() }, there(), "n2"), [0, 2]);
    assert_eq!(count(&Service { external_local: false, ..both.clone() }, there(), "n2"), [2, 0]);
    assert_eq!(count(&both, slice(&[80, 81], &[]), "n2"), [0, 0]);
    let terminating = slice(&[80, 81], &[("10.1.0.2", "n2", false), ("10.1.0.1", "n1", true)]);
    assert_eq!(count(&both, terminating, "n2"), [0, 0], "one that terminates still serves");
}

#[test]
fn counts_follow_changes_as_if_counted_anew() {
    let both = Service { internal_local: true, external_local: true, ..service(&[80]) };
    let mut compiler = compile(both.clone(), slice(&[80], &[]), Options::default());
    let _first = compiler.pool_mut("default").unwrap().take_changes();
    let mut followed = view(&compiler, "n2");
    for endpoints in [
        &[("10.1.0.1", "n1", true)][..],
        &[("10.1.0.1", "n1", true), ("10.1.0.2", "n2", true)],
        &[("10.1.0.2", "n2", true)],
        &[("10.1.0.2", "n2", false), ("10.1.0.1", "n1", true)],
        &[],
    ] {
        compiler.set_slice("ns/web-1", Some(slice(&[80], endpoints)));
        compiler.compile();
        let changes = compiler.pool_mut("default").unwrap().take_changes();
        followed.apply(&changes);
        assert_eq!(followed.counts(), view(&compiler, "n2").counts(), "{endpoints:?}");
    }
    compiler.set_service("ns/web", None);
    compiler.compile();
    followed.apply(&compiler.pool_mut("default").unwrap().take_changes());
    assert_eq!((followed.counts().targets, followed.counts().members), (0, 0));
}

#[test]
fn health_checks_count_addresses_that_are_ready_once() {
    let checked =
        Service { external_local: true, health_check_node_port: Some(32_000), ..service(&[80, 81]) };
    let slice = slice(
        &[80, 81],
        &[
            ("10.1.0.1", "n1", true),
            ("10.1.0.2", "n1", true),
            ("10.1.0.3", "n2", false),
            ("fd01::1", "n1", true),
        ],
    );
    let compiler = compile(checked, slice, Options::default());
    let counts = |node: &str| view(&compiler, node).health_checks().map(|(_, _, n)| n).collect::<Vec<_>>();
    assert_eq!(counts("n1"), [[2, 1]], "two addresses of IPv4, whatever the number of ports");
    assert_eq!(counts("n2"), [[0, 0]], "what terminates still serves, but does not count");
}

#[test]
fn a_health_check_that_moves_to_another_port_is_still_counted() {
    for ports in [[32_000, 31_000], [31_000, 32_000]] {
        let [old, new] = ports.map(|port| Service {
            external_local: true,
            health_check_node_port: Some(port),
            ..service(&[80])
        });
        let mut compiler = compile(old, slice(&[80], &[("10.1.0.1", "n1", true)]), Options::default());
        let _first = compiler.pool_mut("default").unwrap().take_changes();
        let mut followed = view(&compiler, "n1");
        followed.take_counts_changed();
        let mut step = |compiler: &mut Compiler| {
            compiler.compile();
            followed.apply(&compiler.pool_mut("default").unwrap().take_changes());
            assert!(followed.take_counts_changed(), "{ports:?}");
            followed.health_checks().map(|(port, _, counts)| (port, counts[0])).collect::<Vec<_>>()
        };
        compiler.set_service("ns/web", Some(new));
        assert_eq!(step(&mut compiler), [(ports[1], 1)]);
        compiler.set_slice("ns/web-1", Some(slice(&[80], &[])));
        assert_eq!(step(&mut compiler), [(ports[1], 0)]);
    }
}

#[test]
fn node_addresses_that_answer_are_kube_proxys_choice() {
    let own = ["192.168.0.1", "192.168.7.7", "10.9.9.9", "127.0.0.1", "fd00:5::1", "::1"].map(ip);
    let answering = |node_port_addresses| {
        let options = Options { node_port_addresses, ..Options::default() };
        let view = view(&compile(service(&[80]), slice(&[80], &[]), options), "n1");
        [Family::V4, Family::V6].map(|family| {
            let addrs = view.node_port_addrs(family, &own)?;
            Some(addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        })
    };
    let only = |primary, prefixes: &[(&str, u8)]| NodePortAddresses::Only {
        primary,
        prefixes: prefixes.iter().map(|(addr, len)| (ip(addr), *len)).collect(),
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(answering(NodePortAddresses::All), [None, None]);
    // The node has no primary address of IPv6: there, all answer.
    assert_eq!(answering(only(true, &[])), [text("192.168.0.1"), text("fd00:5::1")]);
    // Prefixes of one family mean no restriction for the other.
    assert_eq!(answering(only(false, &[("192.168.0.0", 16)])), [text("192.168.0.1 192.168.7.7"), None]);
    assert_eq!(answering(only(false, &[("127.0.0.0", 8), ("fd00::", 8)])), [text(""), text("fd00:5::1")]);
    assert_eq!(answering(only(false, &[("10.0.0.0", 8), ("0.0.0.0", 0)])), [None, None]);
}
