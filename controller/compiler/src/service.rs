//! One Service, compiled: its shape, and the kernel keys it lays claim to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{
    Empty, Group, GroupId, GroupKind, HealthCheck, Key, Lane, LaneKey, MAX_LANE_KEYS, Name, Part, Proto,
    Value, name, prefix_contains,
};

use crate::endpoints::usable_address;
use crate::model::{Options, Prefix, Service, ServicePort};

/// A kernel key that at most one Service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClaimKey {
    pub(crate) family: Family,
    /// None: a nodePort.
    pub(crate) addr: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) proto: Proto,
}

/// Why a Service has a key; stronger claims sort first. A cluster IP is allocated by the cluster; whoever may write a
/// Service may name any external IP (CVE-2020-8554), so that claim is the weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// What a Service compiles to in one pool.
#[derive(Default)]
pub(crate) struct Compiled {
    /// Sorted by key.
    pub(crate) records: Vec<(Key, Value)>,
    /// What was left out and why, for people.
    pub(crate) problems: Vec<String>,
    /// It has externalIPs, which the pool does not allow.
    pub(crate) ignores_external_ips: bool,
}

/// The kernel keys that a Service wants, sorted.
pub(crate) fn claims(service: &Service, options: &Options) -> Vec<(ClaimKey, Class)> {
    let mut claims = Vec::new();
    for cluster_ip in &service.cluster_ips {
        let family = Family::of(*cluster_ip);
        for port in &service.ports {
            let key = |addr, port_number| ClaimKey { family, addr, port: port_number, proto: port.proto };
            claims.push((key(Some(*cluster_ip), port.port), Class::ClusterIp));
            let vips = vips(service, options, family);
            claims.extend(vips.map(|(addr, class)| (key(Some(addr), port.port), class)));
            claims.extend(port.node_port.map(|number| (key(None, number), Class::NodePort)));
        }
    }
    if let Some(port) = service.health_check_node_port {
        claims.push((health_check_claim(port), Class::NodePort));
    }
    claims.sort_unstable();
    claims.dedup_by_key(|(key, _)| *key);
    claims
}

/// Health check ports are TCP nodePorts of the node itself, in both families at once.
fn health_check_claim(port: u16) -> ClaimKey {
    ClaimKey { family: Family::V4, addr: None, port, proto: Proto::Tcp }
}

fn vips<'a>(
    service: &'a Service,
    options: &Options,
    family: Family,
) -> impl Iterator<Item = (IpAddr, Class)> + 'a {
    let external: &[IpAddr] = if options.allow_external_ips { &service.external_ips } else { &[] };
    let balancer = service.load_balancer_ips.iter().map(|a| (*a, Class::LoadBalancer));
    balancer
        .chain(external.iter().map(|a| (*a, Class::ExternalIp)))
        .filter(move |(a, _)| Family::of(*a) == family)
}

/// Compiles a Service to its shape. `wins` tells whether it has a claim (see [`claims`]): another Service may have a stronger
/// one.
pub(crate) fn compile(
    owner: &str,
    service: &Service,
    options: &Options,
    wins: impl Fn(&ClaimKey) -> bool,
) -> Compiled {
    let mut out = Compiled::default();
    for cluster_ip in &service.cluster_ips {
        if let Err(why) = usable_address(*cluster_ip) {
            out.problems.push(format!("cluster IP {cluster_ip} is {why}"));
            continue;
        }
        for port in &service.ports {
            PortCompiler { owner, service, options, cluster_ip: *cluster_ip, port, wins: &wins }
                .compile(&mut out);
        }
    }
    health_check(owner, service, &wins, &mut out);
    out.ignores_external_ips = !options.allow_external_ips && !service.external_ips.is_empty();
    out.records.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    out.records.dedup_by(|(a, _), (b, _)| a == b);
    out.problems.sort_unstable();
    out.problems.dedup();
    out
}

/// A node answers for the local groups of all ports.
fn health_check(owner: &str, service: &Service, wins: impl Fn(&ClaimKey) -> bool, out: &mut Compiled) {
    let Some(port) = service.health_check_node_port else { return };
    if !wins(&health_check_claim(port)) {
        out.problems
            .push(format!("healthCheckNodePort {port} belongs to another Service: it is left out here"));
        return;
    }
    let local = |key: &Key| if let Key::Group(id) = key { Some(*id) } else { None };
    let mut groups: Vec<GroupId> = out.records.iter().filter_map(|(key, _)| local(key)).collect();
    groups.retain(|id| id.kind == GroupKind::Local);
    groups.sort_unstable();
    let check = HealthCheck { owner: owner.to_owned(), groups };
    out.records.push((Key::HealthCheck(port), Value::HealthCheck(check)));
}

/// Compiles one port in one family.
struct PortCompiler<'a, W> {
    owner: &'a str,
    service: &'a Service,
    options: &'a Options,
    cluster_ip: IpAddr,
    port: &'a ServicePort,
    wins: &'a W,
}

impl<W: Fn(&ClaimKey) -> bool> PortCompiler<'_, W> {
    fn compile(&self, out: &mut Compiled) {
        if !self.won(Some(self.cluster_ip), self.port.port, out) {
            return;
        }
        let (cluster_keys, local_keys) = self.keys(out);
        for (kind, keys) in [(GroupKind::Cluster, cluster_keys), (GroupKind::Local, local_keys)] {
            // A health check counts the local list even where no traffic uses it.
            let counted = kind == GroupKind::Local && self.service.health_check_node_port.is_some();
            if keys.is_empty() && !counted {
                continue;
            }
            let id = GroupId { addr: self.cluster_ip, port: self.port.port, proto: self.port.proto, kind };
            let group = Group {
                owner: self.owner.to_owned(),
                port_name: self.port.name.clone(),
                // What it does when empty depends on endpoints.
                empty: Empty::Reject,
                affinity: self.service.affinity,
                keys: keys.into_iter().collect(),
            };
            out.records.push((Key::Group(id), Value::Group(group)));
        }
        self.firewall(out);
    }

    /// Whether this Service has the key; says so if not.
    fn won(&self, addr: Option<IpAddr>, port: u16, out: &mut Compiled) -> bool {
        let proto = self.port.proto;
        let won = (self.wins)(&ClaimKey { family: Family::of(self.cluster_ip), addr, port, proto });
        if !won {
            let what = addr.map_or_else(
                || format!("nodePort {port}"),
                |a| format!("{}", std::net::SocketAddr::new(a, port)),
            );
            out.problems.push(format!("{what}/{proto} belongs to another Service: it is left out here"));
        }
        won
    }

    /// The kernel keys that lead to the cluster list, and those that lead to the local list.
    fn keys(&self, out: &mut Compiled) -> (BTreeSet<LaneKey>, BTreeSet<LaneKey>) {
        let (mut cluster, mut local) = (BTreeSet::new(), BTreeSet::new());
        let key = |lane: Lane, addr, port| LaneKey { lane: lane as u8, addr, port };
        if self.service.internal_local {
            local.insert(key(Lane::ClusterIpLocal, Some(self.cluster_ip), self.port.port))
        } else {
            cluster.insert(key(Lane::ClusterIp, Some(self.cluster_ip), self.port.port))
        };
        let mut add = |lanes: [Lane; 3], addr, port| {
            let [everybody, inside, outside] = lanes;
            if self.service.external_local {
                cluster.insert(key(inside, addr, port));
                local.insert(key(outside, addr, port));
            } else {
                cluster.insert(key(everybody, addr, port));
            }
        };
        let family = Family::of(self.cluster_ip);
        let mut vips: BTreeSet<IpAddr> =
            vips(self.service, self.options, family).map(|(addr, _)| addr).collect();
        // Two more keys are the cluster IP's and the nodePort's.
        if let Some(first_too_many) = vips.iter().nth(MAX_LANE_KEYS - 2).copied() {
            let rest = vips.split_off(&first_too_many);
            out.problems.push(format!("{} external addresses too many are left out", rest.len()));
        }
        for vip in vips {
            match usable_address(vip) {
                Err(why) => out.problems.push(format!("external address {vip} is {why}: it is left out")),
                // Traffic to the cluster IP is cluster-internal, whoever else names that address.
                Ok(()) if vip == self.cluster_ip => {}
                Ok(()) if self.won(Some(vip), self.port.port, out) => {
                    add(
                        [Lane::External, Lane::ExternalInside, Lane::ExternalOutside],
                        Some(vip),
                        self.port.port,
                    );
                }
                Ok(()) => {}
            }
        }
        if let Some(number) = self.port.node_port
            && self.won(None, number, out)
        {
            add([Lane::NodePort, Lane::NodePortInside, Lane::NodePortOutside], None, number);
        }
        (cluster, local)
    }

    /// loadBalancerSourceRanges hold for the load balancer's addresses only. Ranges of the other family alone mean no
    /// restriction, as with kube-proxy.
    fn firewall(&self, out: &mut Compiled) {
        let family = Family::of(self.cluster_ip);
        let of_family = |prefix: &&Prefix| Family::of(prefix.0) == family;
        let ranges = disjoint(self.service.source_ranges.iter().filter(of_family).copied().collect());
        if ranges.is_empty() {
            return;
        }
        for vip in self.service.load_balancer_ips.iter().filter(|a| Family::of(**a) == family) {
            let claim = ClaimKey { family, addr: Some(*vip), port: self.port.port, proto: self.port.proto };
            if usable_address(*vip).is_err() || !(self.wins)(&claim) {
                continue;
            }
            let vip = [Part::Addr(*vip), Part::Proto(self.port.proto), Part::Port(self.port.port)];
            let mut element = |set: Name, parts: Vec<Part>| {
                let owner = self.owner.to_owned();
                out.records.push((Key::Element { family, set, parts }, Value::Element { owner }));
            };
            element(name("firewall-ips"), vip.to_vec());
            for (addr, len) in &ranges {
                element(name("firewall-ranges"), [&vip[..], &[Part::Prefix(*addr, *len)]].concat());
            }
        }
    }
}

/// Leaves out prefixes that lie inside another: the kernel's interval sets do not take overlapping elements.
fn disjoint(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    prefixes.sort_unstable_by_key(|(addr, len)| (*len, *addr));
    let mut kept: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        if !kept.iter().any(|outer| prefix_contains(*outer, prefix.0)) {
            kept.push(prefix);
        }
    }
    kept.sort_unstable();
    kept
}
