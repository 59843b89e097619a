//! kube-proxy's verdict table, executable: a packet and the cluster's objects in, the verdict out.
//!
//! Written from what kube-proxy v1.36 does (`pkg/proxy/topology.go`, `pkg/proxy/nftables`), looking at objects only: no
//! bundle, no sets, no order of rules. Where two Services claim one key, rulecast's own rule decides, since kube-proxy
//! has none: cluster IP before nodePort before load balancer before external IP, then the name. Affinity is left out:
//! the client is one that nobody remembers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::nft::Family;
use rulecast_compiler::model::{DetectLocal, Node, NodePortAddresses, Prefix, Service, ServicePort};

use crate::packet::{Machine, Outcome, Packet, Verdict};
use crate::world::World;

mod endpoints;
mod iptables;

/// Why a Service has an address and port. In the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// A Service port in one family.
#[derive(Clone, Copy)]
struct Entry<'w> {
    name: &'w str,
    service: &'w Service,
    port: &'w ServicePort,
    cluster_ip: IpAddr,
}

/// A node in a cluster.
pub(crate) struct Model<'w> {
    world: &'w World,
    machine: &'w Machine,
    node: Node,
    /// Endpoints whose connections to themselves are masqueraded here.
    hairpin: BTreeSet<(SocketAddr, u8)>,
}

impl<'w> Model<'w> {
    pub(crate) fn new(world: &'w World, machine: &'w Machine) -> Self {
        let node = world.nodes.get(&machine.name).cloned().unwrap_or_default();
        let mut model = Self { world, machine, node, hairpin: BTreeSet::new() };
        let ports: Vec<_> = model.ports(Family::V4).chain(model.ports(Family::V6)).collect();
        for port in ports {
            if !model.served(port) {
                continue;
            }
            let lists = model.categorize(port);
            let reachable: BTreeSet<SocketAddr> = lists.cluster.into_iter().chain(lists.local).collect();
            for candidate in model.candidates(port) {
                if reachable.contains(&candidate.at) && model.is_local(candidate.endpoint) {
                    model.hairpin.insert((candidate.at, port.port.proto as u8));
                }
            }
        }
        model
    }

    /// What becomes of a new connection.
    pub(crate) fn verdict(&self, packet: &Packet) -> Verdict {
        if self.is_iptables() {
            return self.with_iptables(packet);
        }
        let refused = Verdict::from([Outcome::Rejected]);
        let vip = self.owner(packet, Some(packet.dst));
        let at_vip = vip.map(|(port, why)| self.at_vip(packet, port, why));
        if let Some(verdict) = at_vip.as_ref().filter(|verdict| **verdict != refused) {
            return verdict.clone();
        }
        // No endpoints anywhere: the address may still be the node's own, with a nodePort.
        match self.at_node_port(packet) {
            Some(verdict) if verdict != refused => verdict,
            at_node_port => at_vip.or(at_node_port).unwrap_or_else(|| self.elsewhere(packet)),
        }
    }

    fn at_vip(&self, packet: &Packet, port: Entry<'w>, why: Why) -> Verdict {
        if port.service.load_balancer_ips.contains(&packet.dst) && !self.in_source_ranges(port, packet) {
            return [Outcome::Dropped].into();
        }
        if why == Why::ClusterIp { self.at_cluster_ip(packet, port) } else { self.external(packet, port) }
    }

    fn at_cluster_ip(&self, packet: &Packet, port: Entry<'w>) -> Verdict {
        let lists = self.categorize(port);
        let list = if port.service.internal_local { lists.local } else { lists.cluster };
        self.to(packet, port, &list, lists.any, self.cluster_ip_masquerades(packet))
    }

    /// NodePorts, load balancers and external IPs.
    fn external(&self, packet: &Packet, port: Entry<'w>) -> Verdict {
        let lists = self.categorize(port);
        // The rule for cluster IPs looks at the address only.
        let by_cluster_ip =
            !self.is_iptables() && self.is_cluster_ip(packet.dst) && self.cluster_ip_masquerades(packet);
        if !port.service.external_local {
            return self.to(packet, port, &lists.cluster, lists.any, true);
        }
        if self.is_from_pod(packet) == Some(true) {
            return self.to(packet, port, &lists.cluster, lists.any, by_cluster_ip);
        }
        if self.machine.is_local(packet.src) {
            return self.to(packet, port, &lists.cluster, lists.any, true);
        }
        self.to(packet, port, &lists.local, lists.any, by_cluster_ip)
    }

    fn at_node_port(&self, packet: &Packet) -> Option<Verdict> {
        if !self.answers_node_ports(packet.dst) {
            return None;
        }
        let (port, _) = self.owner(packet, None)?;
        Some(self.external(packet, port))
    }

    /// Not an address and port of a Service.
    fn elsewhere(&self, packet: &Packet) -> Verdict {
        let outcome = if self.is_cluster_ip(packet.dst) {
            Outcome::Rejected
        } else if self.world.options().service_cidrs.iter().any(|cidr| contains(*cidr, packet.dst)) {
            Outcome::Dropped
        } else {
            Outcome::Untouched { masqueraded: false }
        };
        [outcome].into()
    }

    fn to(
        &self,
        packet: &Packet,
        port: Entry<'w>,
        list: &[SocketAddr],
        any: bool,
        masqueraded: bool,
    ) -> Verdict {
        if !any {
            return [Outcome::Rejected].into();
        }
        if list.is_empty() {
            return [Outcome::Dropped].into();
        }
        let outcome = |at: &SocketAddr| {
            let hairpin = packet.src == at.ip() && self.is_hairpin(*at, port.port.proto);
            Outcome::To { endpoint: *at, masqueraded: masqueraded || hairpin }
        };
        list.iter().map(outcome).collect()
    }

    /// Whether traffic to a cluster IP is masqueraded.
    fn cluster_ip_masquerades(&self, packet: &Packet) -> bool {
        self.world.options().masquerade_all || self.is_from_pod(packet) == Some(false)
    }

    /// Whether a packet is from a pod of the node's own, as far as that can be told; none: it cannot.
    fn is_from_pod(&self, packet: &Packet) -> Option<bool> {
        let of = family(packet.dst);
        let inside = |prefixes: &[Prefix]| {
            let mut prefixes = prefixes.iter().filter(|p| family(p.0) == of).peekable();
            prefixes.peek()?;
            Some(prefixes.any(|prefix| contains(*prefix, packet.src)))
        };
        match &self.world.options().detect_local {
            DetectLocal::None => None,
            DetectLocal::ClusterCidr(prefixes) => inside(prefixes),
            DetectLocal::NodeCidr => inside(&self.node.pod_cidrs),
            DetectLocal::BridgeInterface(name) => Some(packet.interface == Some(name)),
            DetectLocal::InterfaceNamePrefix(name) => {
                Some(packet.interface.is_some_and(|interface| interface.starts_with(name)))
            }
        }
    }

    /// Where a range holds the node's primary address, the VIP itself counts as a source too.
    fn in_source_ranges(&self, port: Entry<'w>, packet: &Packet) -> bool {
        let ranges = port.service.source_ranges.iter();
        let ranges: Vec<&Prefix> = ranges.filter(|r| family(r.0) == family(port.cluster_ip)).collect();
        let hold = |addr: IpAddr| ranges.iter().any(|range| contains(**range, addr));
        let primary = self.node.addrs.iter().find(|a| family(**a) == family(packet.dst));
        let own = packet.src == packet.dst && primary.is_some_and(|addr| hold(*addr));
        ranges.is_empty() || hold(packet.src) || own
    }

    fn answers_node_ports(&self, addr: IpAddr) -> bool {
        if !self.machine.is_local(addr) {
            return false;
        }
        if addr.is_loopback() {
            return self.is_iptables() && self.loopback_answers_node_ports(addr);
        }
        match &self.world.options().node_port_addresses {
            NodePortAddresses::All => true,
            // As the histories' pools are of mode nftables.
            NodePortAddresses::Default | NodePortAddresses::Only { primary: true, .. } => {
                let primary = self.node.addrs.iter().find(|a| family(**a) == family(addr));
                primary.is_none_or(|primary| *primary == addr)
            }
            NodePortAddresses::Only { prefixes, .. } => {
                let prefixes: Vec<&Prefix> =
                    prefixes.iter().filter(|p| family(p.0) == family(addr)).collect();
                prefixes.is_empty() || prefixes.iter().any(|p| contains(**p, addr))
            }
        }
    }

    /// An address that some Service has as its cluster IP.
    fn is_cluster_ip(&self, addr: IpAddr) -> bool {
        self.ports(family(addr)).any(|port| port.cluster_ip == addr && self.served(port))
    }

    fn ports(&self, of: Family) -> impl Iterator<Item = Entry<'w>> {
        let world = self.world;
        world.services.iter().flat_map(move |(name, service)| {
            let cluster_ip = service.cluster_ips.iter().copied().find(|a| family(*a) == of && usable(*a));
            cluster_ip.into_iter().flat_map(move |cluster_ip| {
                service.ports.iter().map(move |port| Entry { name, service, port, cluster_ip })
            })
        })
    }

    /// A port is what it is by its cluster IP: it is served by the Service that has that.
    fn served(&self, port: Entry<'w>) -> bool {
        let rivals = self.ports(family(port.cluster_ip)).filter(|rival| {
            rival.cluster_ip == port.cluster_ip
                && (rival.port.port, rival.port.proto) == (port.port.port, port.port.proto)
        });
        rivals.map(|rival| rival.name).min() == Some(port.name)
    }

    /// The Service port that has an address and port, or a nodePort.
    fn owner(&self, packet: &Packet, addr: Option<IpAddr>) -> Option<(Entry<'w>, Why)> {
        if addr.is_some_and(|addr| !usable(addr)) {
            return None;
        }
        let claims = self.ports(family(packet.dst)).filter(|port| port.port.proto == packet.proto);
        let claims = claims.filter_map(|port| Some((self.claim(port, addr, packet.dport)?, port)));
        let first = claims.min_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
        first.map(|(why, port)| (port, why)).filter(|(port, _)| self.served(*port))
    }

    fn claim(&self, port: Entry<'w>, addr: Option<IpAddr>, number: u16) -> Option<Why> {
        let Some(addr) = addr else {
            return (port.port.node_port == Some(number)).then_some(Why::NodePort);
        };
        if port.port.port != number {
            return None;
        }
        if addr == port.cluster_ip {
            Some(Why::ClusterIp)
        } else if port.service.load_balancer_ips.contains(&addr) {
            Some(Why::LoadBalancer)
        } else if self.world.options().allow_external_ips && port.service.external_ips.contains(&addr) {
            Some(Why::ExternalIp)
        } else {
            None
        }
    }
}

fn family(addr: IpAddr) -> Family {
    Family::of(addr)
}

/// Addresses by which a Service could reach into the node itself are no addresses of Services or endpoints.
fn usable(addr: IpAddr) -> bool {
    !addr.is_loopback() && !addr.is_unspecified() && !addr.is_multicast() && !is_link_local(addr)
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    }
}

/// Whether a prefix has an address, bit by bit.
pub(crate) fn contains((net, len): Prefix, addr: IpAddr) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let bit = |octets: &[u8], at: usize| octets[at / 8] >> (7 - at % 8) & 1;
    let (net, addr) = (bits(net), bits(addr));
    net.len() == addr.len() && (0..usize::from(len)).all(|at| bit(&net, at) == bit(&addr, at))
}
