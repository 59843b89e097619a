//! What each chain should hold: a function of the view, and of what is known of Service ports.
//!
//! kube-proxy's structure, with three differences. Frontends are looked up by ranges of addresses and ports instead of one by
//! one. An endpoint has a chain of its own only where clients are remembered; elsewhere its Service's chain translates. And what
//! an endpoint sends to itself is masqueraded by its address on the way out. That is a third of kube-proxy's rules, and
//! iptables' time goes with their number.
//!
//! Clients are remembered in ipsets, not by the match `recent`: whenever the legacy tools write a table, the kernel looks for
//! each such rule through the list of all lists of clients. With 10,000 sticky endpoints that takes 4 s for any change; ipsets
//! are found by number.

use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Empty, FamilyOptions, GroupKind, Name, Part, Proto, prefix_contains};

use super::chain::{Chain, Prefix, Table, Vip, last, lowest, nets};
use super::index::{Frontend, Index, Role};
use super::rule::{Rule, host, of_pods};
use crate::view::{PortId, Target, View};

/// What a family's chains are made from.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) view: &'a View,
    pub(super) options: &'a FamilyOptions,
    pub(super) index: &'a Index,
    pub(super) family: Family,
    pub(super) node_addrs: &'a [IpAddr],
}

/// The chains of a level below, as far as they have rules.
pub(super) trait Below {
    /// The chains of the lower level in a range of the upper one.
    fn vips(&self, net: Prefix) -> Vec<Prefix>;
    /// Those of the upper level.
    fn nets(&self) -> Vec<Prefix>;
    /// Those of nodePorts.
    fn ports(&self) -> Vec<(Proto, u16)>;
}

/// The built-in chains, what leads from them to ours, in order.
pub(super) fn jumps(table: Table) -> Vec<(&'static str, Rule)> {
    // Not what was translated: an endpoint may listen where another Service has a frontend.
    let new = || Rule::new().state("NEW").not_state("DNAT");
    match table {
        Table::Nat => vec![
            ("PREROUTING", Rule::new().jump(Chain::Services)),
            ("OUTPUT", Rule::new().jump(Chain::Services)),
            ("POSTROUTING", Rule::new().jump(Chain::Postrouting)),
        ],
        Table::Filter => vec![
            ("INPUT", Rule::new().jump(Chain::HealthChecks)),
            ("INPUT", new().jump(Chain::Services)),
            ("INPUT", Rule::new().jump(Chain::Loopback)),
            ("FORWARD", new().jump(Chain::Services)),
            ("FORWARD", Rule::new().jump(Chain::Forward)),
            ("OUTPUT", new().jump(Chain::Services)),
            ("OUTPUT", Rule::new().jump(Chain::Loopback)),
        ],
    }
}

/// The chains that are always there.
pub(super) fn fixed(table: Table) -> &'static [Chain] {
    match table {
        Table::Nat => {
            &[Chain::Services, Chain::NodePorts, Chain::Outside, Chain::Postrouting, Chain::Hairpin]
        }
        Table::Filter => {
            &[Chain::Services, Chain::NodePorts, Chain::Forward, Chain::Loopback, Chain::HealthChecks]
        }
    }
}

impl<'a> Program<'a> {
    /// A chain's rules; none: it is not wanted.
    pub(super) fn rules(&self, table: Table, chain: Chain, below: &impl Below) -> Option<Vec<Rule>> {
        let rules = match (table, chain) {
            (_, Chain::Services) => return Some(self.services(below)),
            (_, Chain::NodePorts) => return Some(node_ports(below)),
            (_, Chain::Net(net)) => {
                let jump = |vips: Prefix| Rule::new().to(vips).jump(Chain::Vips(vips));
                below.vips(net).into_iter().map(jump).collect()
            }
            (Table::Nat, Chain::Vips(_) | Chain::Ports(..)) => self.translated(chain),
            (Table::Filter, Chain::Vips(_) | Chain::Ports(..)) => self.refused(chain),
            (Table::Nat, Chain::Outside) => return Some(self.outside()),
            (Table::Nat, Chain::Postrouting) => return Some(self.postrouting()),
            (Table::Nat, Chain::Hairpin) => {
                let to_itself = |addr| Rule::new().from(host(addr)).to(host(addr)).masquerade();
                return Some(self.index.own().map(to_itself).collect());
            }
            (Table::Nat, Chain::Cluster(port)) => Self::pick(self.target(port, GroupKind::Cluster), port),
            (Table::Nat, Chain::Local(port)) => Self::pick(self.target(port, GroupKind::Local), port),
            (Table::Nat, Chain::External(port)) => self.external(port),
            (Table::Nat, Chain::Ranges(vip)) => self.ranges(vip),
            (Table::Nat, Chain::Endpoint(port, endpoint)) => {
                let lists = [GroupKind::Cluster, GroupKind::Local].map(|kind| self.target(port, kind));
                let used = |t: &&Target| t.members().iter().any(|m| m.endpoint == endpoint);
                let seconds = lists.into_iter().flatten().filter(used).find_map(|t| t.shape()?.affinity);
                let rules = seconds.map(|seconds| {
                    let remember = Rule::new().remember(&chain.name(), seconds);
                    [remember, Rule::new().proto(port.proto).translate(endpoint)]
                });
                rules.into_iter().flatten().collect()
            }
            (Table::Filter, Chain::Forward) => return Some(self.forward()),
            (Table::Filter, Chain::Loopback) => return Some(self.loopback()),
            (Table::Filter, Chain::HealthChecks) => {
                let answer = |port| Rule::new().at_port(Proto::Tcp, port).accept();
                return Some(self.view.health_check_ports().map(answer).collect());
            }
            _ => Vec::new(),
        };
        (!rules.is_empty()).then_some(rules)
    }

    fn v4(&self) -> bool {
        self.family == Family::V4
    }

    fn target(&self, port: PortId, kind: GroupKind) -> Option<&'a Target> {
        self.view.target(&port.group(kind))
    }

    fn has_members(&self, port: PortId, kind: GroupKind) -> bool {
        self.target(port, kind).is_some_and(|t| t.shape().is_some() && !t.members().is_empty())
    }

    fn services(&self, below: &impl Below) -> Vec<Rule> {
        let jump = |net: Prefix| Rule::new().to(net).jump(Chain::Net(net));
        let mut rules: Vec<Rule> = below.nets().into_iter().map(jump).collect();
        let loopback = (IpAddr::from([127, 0, 0, 0]), 8);
        match self.view.node_port_addrs(self.family, self.node_addrs) {
            Some(addrs) => {
                rules.extend(
                    addrs.into_iter().map(|a| Rule::new().to(host(a)).at_node().jump(Chain::NodePorts)),
                );
                if self.options.localhost_node_ports {
                    rules.push(Rule::new().to(loopback).at_node().jump(Chain::NodePorts));
                }
            }
            None if self.options.localhost_node_ports => {
                rules.push(Rule::new().at_node().jump(Chain::NodePorts));
            }
            None => {
                let loopback =
                    if self.v4() { loopback } else { (IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128) };
                rules.push(Rule::new().not_to(loopback).at_node().jump(Chain::NodePorts));
            }
        }
        rules
    }

    fn pods(&self) -> Vec<Rule> {
        of_pods(self.family, self.options, &self.view.fact().pod_cidrs)
    }

    fn marks_outside(&self) -> bool {
        self.options.masquerade_all || !self.pods().is_empty()
    }

    fn outside(&self) -> Vec<Rule> {
        if !self.marks_outside() {
            return Vec::new();
        }
        let pods = if self.options.masquerade_all { Vec::new() } else { self.pods() };
        let mark = Rule::new().mark(self.options.mark);
        pods.into_iter().map(Rule::leave).chain([mark]).collect()
    }

    fn postrouting(&self) -> Vec<Rule> {
        let mark = self.options.mark;
        vec![
            Rule::new().state("DNAT").jump(Chain::Hairpin),
            Rule::new().unmarked(mark).leave(),
            Rule::new().unmark(mark),
            Rule::new().masquerade(),
        ]
    }

    /// kube-proxy's: where the FORWARD chain's policy is to drop, Services still work.
    fn forward(&self) -> Vec<Rule> {
        let invalid = (!self.options.liberal).then(|| Rule::new().state("INVALID").drop());
        let rest = [
            Rule::new().marked(self.options.mark).accept(),
            Rule::new().state("RELATED,ESTABLISHED").accept(),
        ];
        invalid.into_iter().chain(rest).collect()
    }

    /// With route_localnet, packets from elsewhere would reach what listens at loopback addresses only.
    fn loopback(&self) -> Vec<Rule> {
        let net = (IpAddr::from([127, 0, 0, 0]), 8);
        let foreign = || Rule::new().not_from(net).to(net).not_state("RELATED,ESTABLISHED,DNAT").drop();
        self.options.localhost_node_ports.then(foreign).into_iter().collect()
    }

    fn frontends(&self, chain: Chain) -> impl Iterator<Item = (Frontend, PortId, Role)> {
        let vip = |addr, proto, port| Frontend::Vip(Vip { addr, proto, port });
        let (first, last) = match chain {
            Chain::Vips(range) => (vip(range.0, Proto::Tcp, 0), vip(last(range), Proto::Sctp, u16::MAX)),
            Chain::Ports(proto, first) => {
                let last = first + (super::chain::PORTS - 1);
                (Frontend::NodePort(proto, first), Frontend::NodePort(proto, last))
            }
            // None.
            _ => (vip(lowest(self.family), Proto::Sctp, 1), vip(lowest(self.family), Proto::Sctp, 1)),
        };
        self.index.between(first, last)
    }

    /// Frontends to where they are translated.
    fn translated(&self, chain: Chain) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (frontend, port, role) in self.frontends(chain) {
            let to = || addressed(frontend);
            let (cluster, local) =
                (self.has_members(port, GroupKind::Cluster), self.has_members(port, GroupKind::Local));
            let ranges = match frontend {
                Frontend::Vip(vip) => self.is_restricted(vip).then_some(Chain::Ranges(vip)),
                Frontend::NodePort(..) => None,
            };
            let target = match role {
                Role::ClusterIp => cluster.then_some(Chain::Cluster(port)),
                Role::ClusterIpLocal => local.then_some(Chain::Local(port)),
                Role::External | Role::ExternalLocal => {
                    (cluster || local).then(|| ranges.unwrap_or(Chain::External(port)))
                }
            };
            let Some(target) = target else { continue };
            if matches!(role, Role::ClusterIp | Role::ClusterIpLocal) && self.marks_outside() {
                rules.push(to().jump(Chain::Outside));
            }
            rules.push(to().jump(target));
        }
        rules
    }

    /// Frontends that were not translated although there is a Service.
    fn refused(&self, chain: Chain) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (frontend, port, role) in self.frontends(chain) {
            let (cluster, local) =
                (self.has_members(port, GroupKind::Cluster), self.has_members(port, GroupKind::Local));
            let drops_local = self
                .target(port, GroupKind::Local)
                .and_then(Target::shape)
                .is_some_and(|shape| shape.empty == Empty::Drop);
            let restricted = matches!(frontend, Frontend::Vip(vip) if self.is_restricted(vip));
            let rule = addressed(frontend);
            let verdict = match role {
                Role::ClusterIp if cluster => None,
                Role::ClusterIpLocal if local => None,
                Role::External if cluster => restricted.then(|| rule.drop()),
                Role::ExternalLocal if cluster || local => (restricted || !local).then(|| rule.drop()),
                Role::ClusterIpLocal | Role::ExternalLocal if drops_local => Some(rule.drop()),
                _ => Some(rule.reject(self.v4())),
            };
            rules.extend(verdict);
        }
        rules
    }

    fn external(&self, port: PortId) -> Vec<Rule> {
        let (cluster, local) =
            (self.has_members(port, GroupKind::Cluster), self.has_members(port, GroupKind::Local));
        let mark = || Rule::new().mark(self.options.mark);
        let mut rules = Vec::new();
        if self.index.has(port, Role::External) && cluster {
            rules.extend([mark(), Rule::new().jump(Chain::Cluster(port))]);
        } else if self.index.has(port, Role::ExternalLocal) {
            if cluster {
                // This node and its pods may use all endpoints.
                rules.extend(self.pods().into_iter().map(|pods| pods.jump(Chain::Cluster(port))));
                rules.push(Rule::new().by_node().mark(self.options.mark));
                rules.push(Rule::new().by_node().jump(Chain::Cluster(port)));
            }
            rules.extend(local.then(|| Rule::new().jump(Chain::Local(port))));
        }
        rules
    }

    /// Picks one of the members, each as likely as the others.
    fn pick(target: Option<&Target>, port: PortId) -> Vec<Rule> {
        let Some((target, shape)) = target.and_then(|t| Some((t, t.shape()?))) else { return Vec::new() };
        let members = target.members();
        let sticky = |endpoint| Chain::Endpoint(port, endpoint);
        let known = members.iter().filter(|_| shape.affinity.is_some()).map(|member| {
            let chain = sticky(member.endpoint);
            Rule::new().remembered(&chain.name()).jump(chain)
        });
        let picks = members.iter().enumerate().map(|(n, member)| {
            let rest = members.len() - n;
            let rule = if shape.affinity.is_some() { Rule::new() } else { Rule::new().proto(port.proto) };
            let rule = if rest > 1 { rule.one_in(rest) } else { rule };
            if shape.affinity.is_some() {
                rule.jump(sticky(member.endpoint))
            } else {
                rule.translate(member.endpoint)
            }
        });
        known.chain(picks).collect()
    }

    fn restrictions(&self, vip: Vip, set: &'static str) -> impl Iterator<Item = &'a [Part]> {
        let parts = vec![Part::Addr(vip.addr), Part::Proto(vip.proto), Part::Port(vip.port)];
        let set = rulecast_bundle::name(set);
        let first = (self.family, set.clone(), parts.clone());
        let family = self.family;
        let of_vip =
            move |e: &&(Family, Name, Vec<Part>)| e.0 == family && e.1 == set && e.2.starts_with(&parts);
        self.view.elements().range(first..).take_while(of_vip).map(|e| e.2.as_slice())
    }

    fn is_restricted(&self, vip: Vip) -> bool {
        self.restrictions(vip, "firewall-ips").next().is_some()
    }

    /// Who may use a VIP. What a node with that VIP as an address of its own sends there comes from the VIP: it may where the
    /// node itself may, as with kube-proxy.
    fn ranges(&self, vip: Vip) -> Vec<Rule> {
        let Some((port, Role::External | Role::ExternalLocal)) = self.index.get(Frontend::Vip(vip)) else {
            return Vec::new();
        };
        if !self.is_restricted(vip) || self.external(port).is_empty() {
            return Vec::new();
        }
        let range = |parts: &[Part]| match parts.last() {
            Some(Part::Prefix(addr, len)) => Some((*addr, *len)),
            _ => None,
        };
        let ranges: Vec<Prefix> = self.restrictions(vip, "firewall-ranges").filter_map(range).collect();
        let holds = |addr| ranges.iter().any(|range| prefix_contains(*range, addr));
        let own = self.view.primary(self.family).is_some_and(holds) && !holds(vip.addr);
        let sources = ranges.iter().copied().chain(own.then(|| host(vip.addr)));
        sources.map(|source| Rule::new().from(source).jump(Chain::External(port))).collect()
    }
}

fn node_ports(below: &impl Below) -> Vec<Rule> {
    let jump = |(proto, first)| Rule::new().at_ports(proto, first).jump(Chain::Ports(proto, first));
    below.ports().into_iter().map(jump).collect()
}

fn addressed(frontend: Frontend) -> Rule {
    match frontend {
        Frontend::Vip(vip) => Rule::new().at_vip(vip),
        Frontend::NodePort(proto, port) => Rule::new().at_port(proto, port),
    }
}

/// The range of the upper level that one of the lower level is in.
pub(super) fn net_of(vips: Prefix) -> Prefix {
    nets(vips.0).0
}
