//! Objects and changes of chance, from few values, so that they meet: addresses that clash, ports that are used again.

use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::{Mode, Proto, Settings};
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, NodePortAddresses, Options, Pool, Prefix, Service, ServicePort, Slice,
    SlicePort,
};

use crate::model::PROTOS;
use crate::packet::{Machine, Packet};
use crate::rng::Rng;
use crate::world::{Event, World};

const SERVICES: [&str; 6] = ["a/dns", "a/web", "b/api", "b/db", "c/lb", "c/web"];
const SLICES: [&str; 9] = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const ZONES: [&str; 3] = ["za", "zb", "zc"];
const PORT_NAMES: [&str; 3] = ["", "http", "alt"];
const PORTS: [u16; 4] = [53, 80, 443, 30_001];
const NODE_PORTS: [u16; 4] = [30_000, 30_001, 30_002, 80];
const TARGET_PORTS: [u16; 3] = [80, 8080, 9090];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').expect("a constant");
    (ip(addr), len.parse().expect("a constant"))
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| ip(t)).collect()
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|t| prefix(t)).collect()
}

fn cluster_ips() -> Vec<IpAddr> {
    ips(&["10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6", "10.96.0.7"])
}

fn cluster_ips6() -> Vec<IpAddr> {
    ips(&["fd00:96::1", "fd00:96::2", "fd00:96::3", "fd00:96::4"])
}

/// Also a node's address, a cluster IP, a pod's, and some that no Service may have.
fn vips() -> Vec<IpAddr> {
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

fn pods() -> Vec<IpAddr> {
    let v4 = (1..=4).flat_map(|node: u8| (1..=3).map(move |pod: u8| IpAddr::from([10, 244, node, pod])));
    let v6 = ips(&["fd00:244:1::1", "fd00:244:1::2", "fd00:244:2::1", "fd00:244:3::1"]);
    v4.chain(v6).chain(ips(&["192.0.2.1", "192.0.2.2", "127.0.0.1", "169.254.0.9"])).collect()
}

/// The machines of the nodes, whether or not there are Node objects of theirs.
pub(crate) fn machines() -> Vec<Machine> {
    let machine = |number: u8| Machine {
        name: format!("n{number}"),
        addrs: vec![
            IpAddr::from([192, 0, 2, number]),
            IpAddr::from([198, 51, 100, number]),
            ip(&format!("fd00:2::{number}")),
        ],
    };
    (1..=4).map(machine).collect()
}

/// A beginning: a pool, nodes, some Services with endpoints.
pub(crate) fn begin(rng: &mut Rng) -> Vec<Event> {
    let mut events = vec![Event::Pool(pool(rng))];
    for name in NODES {
        if !rng.one_in(6) {
            events.push(Event::Node(name.to_owned(), Some(node(name, rng))));
        }
    }
    for (number, name) in SERVICES.iter().enumerate() {
        if !rng.one_in(3) {
            events.push(Event::Service((*name).to_owned(), Some(service(number, rng))));
        }
    }
    for name in SLICES {
        if !rng.one_in(3) {
            events.push(Event::Slice(name.to_owned(), Some(slice(rng))));
        }
    }
    events
}

/// One change.
pub(crate) fn change(world: &World, rng: &mut Rng) -> Event {
    match rng.below(20) {
        0..=4 => {
            let number = rng.below(SERVICES.len());
            Event::Service(SERVICES[number].to_owned(), (!rng.one_in(5)).then(|| service(number, rng)))
        }
        5..=8 => changed_service(world, rng),
        9..=11 => Event::Slice(rng.pick(&SLICES).to_owned(), (!rng.one_in(6)).then(|| slice(rng))),
        12..=16 => changed_slice(world, rng),
        17 | 18 => {
            let name = rng.pick(&NODES);
            Event::Node(name.to_owned(), (!rng.one_in(6)).then(|| node(name, rng)))
        }
        _ => Event::Pool(pool(rng)),
    }
}

fn pool(rng: &mut Rng) -> Pool {
    let node_selector = if rng.one_in(6) { [("pool".to_owned(), "x".to_owned())].into() } else { [].into() };
    Pool { node_selector, options: options(rng) }
}

fn options(rng: &mut Rng) -> Options {
    let detect_local = match rng.below(9) {
        0 => DetectLocal::None,
        1 => DetectLocal::ClusterCidr(prefixes(&["10.244.0.0/16"])),
        2 => DetectLocal::ClusterCidr(prefixes(&["fd00:244::/32", "10.244.0.0/15"])),
        // Nodes' addresses among them.
        3 => DetectLocal::ClusterCidr(prefixes(&["0.0.0.0/0", "::/0"])),
        4 => DetectLocal::NodeCidr,
        5 => DetectLocal::BridgeInterface("cbr0".to_owned()),
        6 => DetectLocal::InterfaceNamePrefix("veth".to_owned()),
        _ => DetectLocal::ClusterCidr(prefixes(&["10.244.0.0/16", "fd00:244::/32"])),
    };
    let node_port_addresses = match rng.below(6) {
        0 => NodePortAddresses::All,
        1 => NodePortAddresses::Only { primary: false, prefixes: prefixes(&["198.51.100.0/24"]) },
        2 => NodePortAddresses::Only { primary: false, prefixes: prefixes(&["fd00:2::/64", "192.0.2.2/32"]) },
        3 => NodePortAddresses::Only {
            primary: false,
            prefixes: prefixes(&["192.0.2.0/24", "0.0.0.0/0", "::/0"]),
        },
        _ => NodePortAddresses::Only { primary: true, prefixes: Vec::new() },
    };
    Options {
        mode: Mode::Nftables,
        detect_local,
        masquerade_all: rng.one_in(5),
        masquerade_bit: rng.pick(&[14, 0, 31]),
        node_port_addresses,
        service_cidrs: rng.some(&prefixes(&["10.96.0.0/16", "fd00:96::/64"]), 2).into_iter().collect(),
        allow_external_ips: !rng.one_in(4),
        settings: Settings::default(),
    }
}

fn node(name: &str, rng: &mut Rng) -> Node {
    let number: u8 = name[1..].parse().expect("n1 to n4");
    let labels = if rng.one_in(3) { [].into() } else { [("pool".to_owned(), "x".to_owned())].into() };
    let mut addrs = vec![IpAddr::from([192, 0, 2, number])];
    if !rng.one_in(3) {
        addrs.push(ip(&format!("fd00:2::{number}")));
    }
    Node {
        labels,
        zone: (!rng.one_in(4)).then(|| rng.pick(&ZONES).to_owned()),
        addrs,
        pod_cidrs: rng.some(&[(IpAddr::from([10, 244, number, 0]), 24), (ip("fd00:244::"), 32)], 2),
        draining: rng.one_in(8),
    }
}

/// A Service, most often with a cluster IP that no other has: the cluster allocates them uniquely, but news of a
/// deletion may come later than that of a creation.
fn service(number: usize, rng: &mut Rng) -> Service {
    let number = if rng.one_in(12) { rng.below(7) } else { number };
    let mut cluster_ips = Vec::new();
    let (v4, v6) = (cluster_ips_of(number, &self::cluster_ips()), cluster_ips_of(number, &cluster_ips6()));
    match rng.below(4) {
        0 => cluster_ips.extend(v6),
        1 => cluster_ips.extend(v4),
        _ => cluster_ips.extend(v4.into_iter().chain(v6)),
    }
    if cluster_ips.is_empty() {
        cluster_ips = vec![self::cluster_ips()[number]];
    }
    let external = !rng.one_in(3);
    let ranges = [
        "198.51.100.0/24",
        "203.0.113.64/26",
        "10.244.0.0/16",
        "192.0.2.0/24",
        "2001:db8:1::/48",
        "0.0.0.0/0",
    ];
    Service {
        cluster_ips,
        external_ips: if external && rng.one_in(2) { rng.some(&vips(), 3) } else { Vec::new() },
        load_balancer_ips: if external && rng.one_in(2) { rng.some(&vips(), 3) } else { Vec::new() },
        source_ranges: if rng.one_in(2) { rng.some(&prefixes(&ranges), 3) } else { Vec::new() },
        ports: ports(external, rng),
        internal_local: rng.one_in(3),
        external_local: rng.one_in(2),
        affinity: rng.one_in(4).then(|| rng.pick(&[1, 60, 10_800])),
        health_check_node_port: rng.one_in(6).then_some(32_000),
    }
}

fn cluster_ips_of(number: usize, all: &[IpAddr]) -> Option<IpAddr> {
    all.get(number).copied()
}

fn ports(external: bool, rng: &mut Rng) -> Vec<ServicePort> {
    let mut names = PORT_NAMES.to_vec();
    rng.shuffle(&mut names);
    names.truncate(1 + rng.below(3));
    let mut ports: Vec<ServicePort> = Vec::new();
    for name in names {
        let port = ServicePort {
            name: name.to_owned(),
            proto: if rng.one_in(2) { Proto::Tcp } else { rng.pick(&PROTOS) },
            port: rng.pick(&PORTS),
            node_port: (external && !rng.one_in(3)).then(|| rng.pick(&NODE_PORTS)),
        };
        // The API server lets no Service have a port or nodePort of one protocol twice.
        let clashes = |p: &ServicePort| {
            p.proto == port.proto
                && (p.port == port.port || (p.node_port.is_some() && p.node_port == port.node_port))
        };
        if !ports.iter().any(clashes) {
            ports.push(port);
        }
    }
    ports
}

fn changed_service(world: &World, rng: &mut Rng) -> Event {
    let Some((name, service)) = any(&world.services, rng) else {
        return Event::Service(SERVICES[0].to_owned(), Some(self::service(0, rng)));
    };
    let mut service = service.clone();
    match rng.below(8) {
        0 => service.internal_local ^= true,
        1 => service.external_local ^= true,
        2 => service.ports = ports(true, rng),
        3 => service.source_ranges = Vec::new(),
        4 => service.external_ips = rng.some(&vips(), 3),
        5 => service.load_balancer_ips = rng.some(&vips(), 3),
        6 => service.affinity = if service.affinity.is_some() { None } else { Some(60) },
        _ => {
            let at = rng.below(service.ports.len());
            let proto = service.ports[at].proto;
            let taken = service.ports.iter().any(|p| p.proto == proto && p.node_port == Some(30_003));
            let port = &mut service.ports[at];
            port.node_port = if taken || port.node_port.is_some() { None } else { Some(30_003) };
        }
    }
    Event::Service(name.clone(), Some(service))
}

fn slice(rng: &mut Rng) -> Slice {
    let ports = rng.some(&PORT_NAMES, 3).into_iter().map(|name| SlicePort {
        name: name.to_owned(),
        proto: if rng.one_in(2) { Proto::Tcp } else { rng.pick(&PROTOS) },
        port: rng.pick(&TARGET_PORTS),
    });
    let ports = ports.collect();
    let count = rng.below(6);
    let hinted = rng.below(4);
    let endpoints = (0..count).map(|_| endpoint(hinted, rng)).collect();
    Slice { service: rng.pick(&SERVICES).to_owned(), ports, endpoints }
}

/// An endpoint; `hinted`: 0 without hints, 1 with zones, 2 with zones and nodes, else with what comes.
fn endpoint(hinted: usize, rng: &mut Rng) -> Endpoint {
    let addr = rng.pick(&pods());
    let (ready, serving, terminating) = rng.pick(&[
        (true, true, false),
        (true, true, false),
        (true, true, true),
        (false, true, true),
        (false, true, false),
        (false, false, true),
    ]);
    let names = |all: &[&str], rng: &mut Rng| -> Vec<Arc<str>> {
        let mut some: Vec<Arc<str>> = rng.some(all, 2).into_iter().map(Arc::from).collect();
        if some.is_empty() && !rng.one_in(8) {
            some.push(rng.pick(all).into());
        }
        some
    };
    let (zoned, noded) = match hinted {
        0 => (false, false),
        1 => (true, false),
        2 => (true, true),
        _ => (rng.one_in(2), rng.one_in(2)),
    };
    Endpoint {
        addr,
        node: (!rng.one_in(6)).then(|| rng.pick(&NODES).into()),
        ready,
        serving,
        terminating,
        zones: if zoned { names(&ZONES, rng) } else { Vec::new() },
        nodes: if noded { names(&NODES, rng) } else { Vec::new() },
    }
}

fn changed_slice(world: &World, rng: &mut Rng) -> Event {
    let Some((name, slice)) = any(&world.slices, rng) else {
        return Event::Slice(SLICES[0].to_owned(), Some(self::slice(rng)));
    };
    let mut slice = slice.clone();
    let count = slice.endpoints.len();
    match rng.below(7) {
        0 | 1 if count > 0 => drop(slice.endpoints.remove(rng.below(count))),
        2 if count > 0 => slice.endpoints[rng.below(count)].ready ^= true,
        3 if count > 0 => slice.endpoints[rng.below(count)].terminating ^= true,
        // To another Service.
        4 => slice.service = rng.pick(&SERVICES).to_owned(),
        _ => slice.endpoints.push(endpoint(3, rng)),
    }
    Event::Slice(name.clone(), Some(slice))
}

fn any<'a, T>(map: &'a std::collections::BTreeMap<String, T>, rng: &mut Rng) -> Option<(&'a String, &'a T)> {
    if map.is_empty() { None } else { map.iter().nth(rng.below(map.len())) }
}

/// A packet of chance at a machine: to what Services have or might have had, from every kind of source.
pub(crate) fn packet(world: &World, machine: &Machine, rng: &mut Rng) -> Packet {
    let service = any(&world.services, rng).map(|(_, service)| service).filter(|_| !rng.one_in(8));
    let mut to: Vec<IpAddr> = machine.addrs.clone();
    let mut dports: Vec<u16> = Vec::new();
    let mut protos: Vec<Proto> = Vec::new();
    if let Some(service) = service {
        for _ in 0..3 {
            to.extend(&service.cluster_ips);
        }
        for _ in 0..2 {
            to.extend(&service.load_balancer_ips);
            to.extend(&service.external_ips);
        }
        let port = rng.pick(&service.ports);
        dports.extend(
            [port.port, port.port, port.port].into_iter().chain(port.node_port).chain(port.node_port),
        );
        protos.extend([port.proto; 5]);
    } else {
        to.extend(cluster_ips().into_iter().chain(cluster_ips6()).chain(vips()));
    }
    if rng.one_in(6) {
        to.extend(ips(&[
            "10.96.7.7",
            "fd00:96::77",
            "127.0.0.1",
            "::1",
            "192.0.2.9",
            "198.51.100.3",
            "9.9.9.9",
        ]));
    }
    dports.push(rng.pick(&NODE_PORTS));
    protos.push(rng.pick(&PROTOS));
    let (dst, dport, proto) = (rng.pick(&to), rng.pick(&dports), rng.pick(&protos));
    let family = |addr: &IpAddr| addr.is_ipv4() == dst.is_ipv4();
    let foreign =
        ["198.51.100.77", "203.0.113.77", "8.8.8.8", "10.245.0.1", "2001:db8:1::7", "2001:db8:2::7"];
    let mut from: Vec<IpAddr> = pods().into_iter().chain(ips(&foreign)).chain(ips(&foreign)).collect();
    for _ in 0..3 {
        from.extend(&machine.addrs);
    }
    // A packet from a loopback address goes nowhere but to the node itself.
    from.retain(|addr| family(addr) && !addr.is_loopback());
    let src = rng.pick(&from);
    let interfaces = [None, Some("cbr0"), Some("cbr01"), Some("veth1"), Some("eth0")];
    let interface = if machine.is_local(src) { None } else { rng.pick(&interfaces) };
    Packet { proto, src, dst, dport, interface }
}
