//! Packets of chance: to what Services have or might have had, from every kind of source.

use std::net::IpAddr;

use rulecast_bundle::Proto;

use crate::generate::any;
use crate::packet::{Machine, Packet};
use crate::rng::Rng;
use crate::values::{NODE_PORTS, PORTS, PROTOS, cluster_ips, cluster_ips6, ip, ips, pods, vips};
use crate::world::World;

/// The machines of the nodes, whether or not there are Node objects of theirs.
pub(crate) fn machines() -> Vec<Machine> {
    let machine = |number: u8| Machine {
        name: format!("n{number}"),
        second: IpAddr::from([198, 51, 100, number]),
        addrs: vec![
            IpAddr::from([192, 0, 2, number]),
            IpAddr::from([198, 51, 100, number]),
            ip(&format!("fd00:2::{number}")),
        ],
    };
    (1..=4).map(machine).collect()
}

/// A packet of chance at a machine.
pub(crate) fn packet(world: &World, machine: &Machine, rng: &mut Rng) -> Packet {
    let (proto, dst, dport) = aimed(world, machine, rng).unwrap_or_else(|| astray(machine, rng));
    let family = |addr: &IpAddr| addr.is_ipv4() == dst.is_ipv4();
    let foreign =
        ["198.51.100.77", "203.0.113.77", "8.8.8.8", "10.245.0.1", "2001:db8:1::7", "2001:db8:2::7"];
    let mut from: Vec<IpAddr> = pods().into_iter().chain(ips(&foreign)).chain(ips(&foreign)).collect();
    for _ in 0..3 {
        from.extend(&machine.addrs);
    }
    // A packet from a loopback address goes nowhere but to the node itself.
    from.retain(|addr| family(addr) && !addr.is_loopback());
    let src = if dst.is_loopback() && rng.one_in(2) { dst } else { rng.pick(&from) };
    let interfaces = [None, Some("cbr0"), Some("cbr01"), Some("veth1"), Some("eth0")];
    let interface = if machine.is_local(src) { None } else { rng.pick(&interfaces) };
    Packet { proto, src, dst, dport, interface }
}

/// To a port of a Service, most often one that has a slice.
fn aimed(world: &World, machine: &Machine, rng: &mut Rng) -> Option<(Proto, IpAddr, u16)> {
    let with_slice = any(&world.slices, rng).and_then(|(_, slice)| world.services.get(&slice.service));
    let service = with_slice.or_else(|| any(&world.services, rng).map(|(_, service)| service))?;
    let port = rng.pick(&service.ports);
    let (to, number) = match rng.below(10) {
        0..=3 => (service.cluster_ips.clone(), Some(port.port)),
        4 | 5 => ([&service.load_balancer_ips[..], &service.external_ips].concat(), Some(port.port)),
        6..=8 => ([&machine.addrs[..], &ips(&["127.0.0.1", "::1"])].concat(), port.node_port),
        _ => return None,
    };
    if to.is_empty() { None } else { Some((port.proto, rng.pick(&to), number?)) }
}

/// To anything at all.
fn astray(machine: &Machine, rng: &mut Rng) -> (Proto, IpAddr, u16) {
    let odd = ips(&["10.96.7.7", "fd00:96::77", "127.0.0.1", "::1", "192.0.2.9", "198.51.100.3", "9.9.9.9"]);
    let to = [&machine.addrs[..], &cluster_ips(), &cluster_ips6(), &vips(), &odd].concat();
    let dports = [&PORTS[..], &NODE_PORTS].concat();
    (rng.pick(&PROTOS), rng.pick(&to), rng.pick(&dports))
}
