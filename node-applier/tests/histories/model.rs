//! kube-proxy's verdict table, executable: a packet and the cluster's objects in, the verdict out.
//!
//! Written from what kube-proxy v1.36 does (`pkg/proxy/topology.go`, `pkg/proxy/nftables`), looking at objects only: no
//! bundle, no sets, no order of rules. Where two Services claim one key, rulecast's own rule decides, since kube-proxy
//! has none: cluster IP before nodePort before load balancer before external IP, then the name. Affinity is left out:
//! the client is one that nobody remembers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::Proto;
use rulecast_bundle::nft::Family;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, NodePortAddresses, Prefix, Service, ServicePort,
};

use crate::packet::{Machine, Outcome, Packet, Verdict};
use crate::world::World;

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
struct Port<'w> {
    name: &'w str,
    service: &'w Service,
    port: &'w ServicePort,
    cluster_ip: IpAddr,
}

/// An endpoint of a port.
#[derive(Clone, Copy)]
struct Candidate<'w> {
    at: SocketAddr,
    endpoint: &'w Endpoint,
}

/// The lists of CategorizeEndpoints.
struct Lists {
    cluster: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    any: bool,
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

    fn at_vip(&self, packet: &Packet, port: Port<'w>, why: Why) -> Verdict {
        if port.service.load_balancer_ips.contains(&packet.dst) && !self.in_source_ranges(port, packet) {
            return [Outcome::Dropped].into();
        }
        if why == Why::ClusterIp {
            let lists = self.categorize(port);
            let list = if port.service.internal_local { lists.local } else { lists.cluster };
            return self.to(packet, port, &list, lists.any, self.cluster_ip_masquerades(packet));
        }
        self.external(packet, port)
    }

    /// NodePorts, load balancers and external IPs.
    fn external(&self, packet: &Packet, port: Port<'w>) -> Verdict {
        let lists = self.categorize(port);
        // The rule for cluster IPs looks at the address only.
        let by_cluster_ip = self.is_cluster_ip(packet.dst) && self.cluster_ip_masquerades(packet);
        if !port.service.external_local {
            return self.to(packet, port, &lists.cluster, lists.any, true);
        }
        if self.from_pod(packet) == Some(true) {
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
        port: Port<'w>,
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
            let hairpin = packet.src == at.ip() && self.hairpin.contains(&(*at, port.port.proto as u8));
            Outcome::To { endpoint: *at, masqueraded: masqueraded || hairpin }
        };
        list.iter().map(outcome).collect()
    }

    /// Whether traffic to a cluster IP is masqueraded.
    fn cluster_ip_masquerades(&self, packet: &Packet) -> bool {
        self.world.options().masquerade_all || self.from_pod(packet) == Some(false)
    }

    /// Whether a packet is from a pod of the node's own, as far as that can be told; none: it cannot.
    fn from_pod(&self, packet: &Packet) -> Option<bool> {
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
    fn in_source_ranges(&self, port: Port<'w>, packet: &Packet) -> bool {
        let ranges = port.service.source_ranges.iter();
        let ranges: Vec<&Prefix> = ranges.filter(|r| family(r.0) == family(port.cluster_ip)).collect();
        let hold = |addr: IpAddr| ranges.iter().any(|range| contains(**range, addr));
        let primary = self.node.addrs.iter().find(|a| family(**a) == family(packet.dst));
        let own = packet.src == packet.dst && primary.is_some_and(|addr| hold(*addr));
        ranges.is_empty() || hold(packet.src) || own
    }

    fn answers_node_ports(&self, addr: IpAddr) -> bool {
        if !self.machine.is_local(addr) || addr.is_loopback() {
            return false;
        }
        match &self.world.options().node_port_addresses {
            NodePortAddresses::All => true,
            NodePortAddresses::Only { primary: true, .. } => {
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

    fn ports(&self, of: Family) -> impl Iterator<Item = Port<'w>> {
        let world = self.world;
        world.services.iter().flat_map(move |(name, service)| {
            let cluster_ip = service.cluster_ips.iter().copied().find(|a| family(*a) == of && usable(*a));
            cluster_ip.into_iter().flat_map(move |cluster_ip| {
                service.ports.iter().map(move |port| Port { name, service, port, cluster_ip })
            })
        })
    }

    /// A port is what it is by its cluster IP: it is served by the Service that has that.
    fn served(&self, port: Port<'w>) -> bool {
        let rivals = self.ports(family(port.cluster_ip)).filter(|rival| {
            rival.cluster_ip == port.cluster_ip
                && (rival.port.port, rival.port.proto) == (port.port.port, port.port.proto)
        });
        rivals.map(|rival| rival.name).min() == Some(port.name)
    }

    /// The Service port that has an address and port, or a nodePort.
    fn owner(&self, packet: &Packet, addr: Option<IpAddr>) -> Option<(Port<'w>, Why)> {
        if addr.is_some_and(|addr| !usable(addr)) {
            return None;
        }
        let claims = self.ports(family(packet.dst)).filter(|port| port.port.proto == packet.proto);
        let claims = claims.filter_map(|port| Some((self.claim(port, addr, packet.dport)?, port)));
        let first = claims.min_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
        first.map(|(why, port)| (port, why)).filter(|(port, _)| self.served(*port))
    }

    fn claim(&self, port: Port<'w>, addr: Option<IpAddr>, number: u16) -> Option<Why> {
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

    /// The port's endpoints, each once. Of one that several slices have, what does not terminate counts, then the most
    /// usable, then the one that names a node.
    fn candidates(&self, port: Port<'w>) -> Vec<Candidate<'w>> {
        let mut found: Vec<Candidate<'w>> = Vec::new();
        let slices = self.world.slices.values().filter(|slice| slice.service == port.name);
        for slice in slices {
            let wanted = |p: &&rulecast_compiler::model::SlicePort| {
                p.name == port.port.name && p.proto == port.port.proto
            };
            for number in slice.ports.iter().filter(wanted).map(|p| p.port) {
                let endpoints = slice.endpoints.iter().filter(|e| family(e.addr) == family(port.cluster_ip));
                for endpoint in endpoints.filter(|e| usable(e.addr)) {
                    found.push(Candidate { at: SocketAddr::new(endpoint.addr, number), endpoint });
                }
            }
        }
        let rank = |e: &Endpoint| {
            (!e.terminating, is_ready(e), is_draining(e), e.node.is_some(), std::cmp::Reverse(e.node.clone()))
        };
        found.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| rank(b.endpoint).cmp(&rank(a.endpoint))));
        found.dedup_by(|a, b| a.at == b.at);
        found
    }

    fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(&*self.machine.name)
    }

    /// `CategorizeEndpoints`, line by line.
    fn categorize(&self, port: Port<'w>) -> Lists {
        let endpoints = self.candidates(port);
        let service = port.service;
        let externally_accessible = port.port.node_port.is_some()
            || !service.load_balancer_ips.is_empty()
            || !service.external_ips.is_empty();
        let uses_cluster = !service.internal_local || externally_accessible;
        let uses_local = service.internal_local || (service.external_local && externally_accessible);
        let mut lists = Lists { cluster: Vec::new(), local: Vec::new(), any: false };
        let at = |list: Vec<&Candidate<'w>>| list.into_iter().map(|c| c.at).collect::<Vec<_>>();
        if uses_cluster {
            let topology = self.topology(&endpoints);
            let ready = endpoints.iter().filter(|c| is_ready(c.endpoint));
            lists.cluster = at(ready.filter(|c| self.available(c.endpoint, topology)).collect());
            if lists.cluster.is_empty() {
                lists.cluster = at(endpoints.iter().filter(|c| is_draining(c.endpoint)).collect());
            }
            lists.any = !lists.cluster.is_empty();
        }
        if uses_local {
            lists.any |= endpoints.iter().any(|c| is_ready(c.endpoint) || is_draining(c.endpoint));
            let local = || endpoints.iter().filter(|c| self.is_local(c.endpoint));
            lists.local = at(local().filter(|c| is_ready(c.endpoint)).collect());
            if lists.local.is_empty() {
                lists.local = at(local().filter(|c| is_draining(c.endpoint)).collect());
            }
        }
        lists
    }

    fn topology(&self, endpoints: &[Candidate<'w>]) -> Topology {
        let ready: Vec<&Endpoint> = endpoints.iter().map(|c| c.endpoint).filter(|e| is_ready(e)).collect();
        if ready.is_empty() {
            return Topology::None;
        }
        if ready.iter().all(|e| !e.nodes.is_empty())
            && ready.iter().any(|e| self.available(e, Topology::SameNode))
        {
            return Topology::SameNode;
        }
        if ready.iter().all(|e| !e.zones.is_empty())
            && ready.iter().any(|e| self.available(e, Topology::SameZone))
        {
            return Topology::SameZone;
        }
        Topology::None
    }

    fn available(&self, endpoint: &Endpoint, topology: Topology) -> bool {
        let zone = self.node.zone.as_deref();
        match topology {
            Topology::None => true,
            Topology::SameNode => endpoint.nodes.iter().any(|n| **n == *self.machine.name),
            Topology::SameZone => endpoint.zones.iter().any(|z| zone == Some(&**z)),
        }
    }
}

#[derive(Clone, Copy)]
enum Topology {
    None,
    SameNode,
    SameZone,
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.ready
}

/// Not ready any more, but terminating and still serving.
fn is_draining(endpoint: &Endpoint) -> bool {
    !endpoint.ready && endpoint.serving && endpoint.terminating
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

/// The protocols of Services.
pub(crate) const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];
