//! Which endpoints a Service port has at a node: `CategorizeEndpoints` of kube-proxy's `topology.go`, line by line.

use std::cmp::Reverse;
use std::net::SocketAddr;

use rulecast_compiler::model::{Endpoint, SlicePort};

use super::{Entry, Model, family, usable};

/// An endpoint of a port.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'w> {
    pub(super) at: SocketAddr,
    pub(super) endpoint: &'w Endpoint,
}

/// The lists of CategorizeEndpoints.
pub(super) struct Lists {
    pub(super) cluster: Vec<SocketAddr>,
    pub(super) local: Vec<SocketAddr>,
    pub(super) any: bool,
}

impl<'w> Model<'w> {
    /// The port's endpoints, each once. Of one that several slices have, the most usable counts, then the one that
    /// names a node.
    pub(super) fn candidates(&self, port: Entry<'w>) -> Vec<Candidate<'w>> {
        let mut found: Vec<Candidate<'w>> = Vec::new();
        let slices = self.world.slices.values().filter(|slice| slice.service == port.name);
        for slice in slices {
            let wanted = |p: &&SlicePort| p.name == port.port.name && p.proto == port.port.proto;
            for number in slice.ports.iter().filter(wanted).map(|p| p.port) {
                let endpoints = slice.endpoints.iter().filter(|e| family(e.addr) == family(port.cluster_ip));
                for endpoint in endpoints.filter(|e| usable(e.addr)) {
                    found.push(Candidate { at: SocketAddr::new(endpoint.addr, number), endpoint });
                }
            }
        }
        let rank = |e: &Endpoint| {
            (!e.terminating, is_ready(e), is_draining(e), e.node.is_some(), Reverse(e.node.clone()))
        };
        found.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| rank(b.endpoint).cmp(&rank(a.endpoint))));
        found.dedup_by(|a, b| a.at == b.at);
        found
    }

    pub(super) fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(&*self.machine.name)
    }

    pub(super) fn categorize(&self, port: Entry<'w>) -> Lists {
        let endpoints = self.candidates(port);
        let service = port.service;
        let externally_accessible = port.port.node_port.is_some() || self.has_external_address(port);
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

    /// A load balancer's or external IP of the port's family that is served.
    fn has_external_address(&self, port: Entry<'w>) -> bool {
        let external = port.service.external_ips.iter().filter(|_| self.world.options().allow_external_ips);
        let mut addrs = port.service.load_balancer_ips.iter().chain(external);
        addrs.any(|addr| family(*addr) == family(port.cluster_ip) && usable(*addr))
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
