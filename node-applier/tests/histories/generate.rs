//! Objects and changes of chance, from few values, so that they meet: addresses that clash, ports that are used again.

use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::{Mode, Proto, Settings};
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, NodePortAddresses, Options, Pool, Service, ServicePort, Slice, SlicePort,
};

use crate::rng::Rng;
use crate::values;
use crate::values::{
    NODE_PORTS, NODES, PORT_NAMES, PORTS, PROTOS, SERVICES, SLICES, TARGET_PORTS, ZONES, ip, pods, prefixes,
    vips,
};
use crate::world::{Event, World};

/// A beginning: a pool, nodes, some Services with endpoints.
pub(crate) fn begin(mode: Mode, rng: &mut Rng) -> Vec<Event> {
    let mut events = vec![Event::Pool(pool(mode, rng))];
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
        _ => Event::Pool(pool(world.options().mode, rng)),
    }
}

fn pool(mode: Mode, rng: &mut Rng) -> Pool {
    let node_selector = if rng.one_in(6) { [("pool".to_owned(), "x".to_owned())].into() } else { [].into() };
    Pool { node_selector, options: options(mode, rng) }
}

fn options(mode: Mode, rng: &mut Rng) -> Options {
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
    let node_port_addresses = match rng.below(7) {
        0 => NodePortAddresses::All,
        1 => NodePortAddresses::Only { primary: false, prefixes: prefixes(&["198.51.100.0/24"]) },
        2 => NodePortAddresses::Only { primary: false, prefixes: prefixes(&["fd00:2::/64", "192.0.2.2/32"]) },
        3 => NodePortAddresses::Only {
            primary: false,
            prefixes: prefixes(&["192.0.2.0/24", "0.0.0.0/0", "::/0"]),
        },
        4 => NodePortAddresses::Only { primary: false, prefixes: prefixes(&["127.0.0.0/8", "192.0.2.0/24"]) },
        _ => NodePortAddresses::Only { primary: true, prefixes: Vec::new() },
    };
    Options {
        mode,
        localhost_node_ports: !rng.one_in(4),
        ipvs: rulecast_compiler::model::default_ipvs(),
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
    let (v4, v6) =
        (cluster_ips_of(number, &values::cluster_ips()), cluster_ips_of(number, &values::cluster_ips6()));
    match rng.below(4) {
        0 => cluster_ips.extend(v6),
        1 => cluster_ips.extend(v4),
        _ => cluster_ips.extend(v4.into_iter().chain(v6)),
    }
    if cluster_ips.is_empty() {
        cluster_ips = vec![values::cluster_ips()[number]];
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
            proto: proto(rng),
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

fn proto(rng: &mut Rng) -> Proto {
    if rng.one_in(4) { rng.pick(&PROTOS) } else { Proto::Tcp }
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
    let names = if rng.one_in(4) { rng.some(&PORT_NAMES, 3) } else { PORT_NAMES.to_vec() };
    let ports = names.into_iter().map(|name| SlicePort {
        name: name.to_owned(),
        proto: proto(rng),
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
        4 => rng.pick(&SERVICES).clone_into(&mut slice.service),
        _ => slice.endpoints.push(endpoint(3, rng)),
    }
    Event::Slice(name.clone(), Some(slice))
}

/// One of them, if there is any.
pub(crate) fn any<'a, T>(
    map: &'a std::collections::BTreeMap<String, T>,
    rng: &mut Rng,
) -> Option<(&'a String, &'a T)> {
    if map.is_empty() { None } else { map.iter().nth(rng.below(map.len())) }
}
