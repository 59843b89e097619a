//! A Service as its records have it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use rulecast_bundle::nft::text::prefix;
use rulecast_bundle::{GroupId, Key, Lane, LaneKey, Proto, Value};
use serde::Serialize;

use crate::expand::{self, exceptions};
use crate::facts::{Fact, facts};

/// What a Service's records say, with the names of Kubernetes' Service. Lists are sorted; what a Service does not have is
/// left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDescription {
    /// `spec.clusterIPs`.
    #[serde(rename = "clusterIPs", skip_serializing_if = "BTreeSet::is_empty")]
    pub cluster_ips: BTreeSet<IpAddr>,
    /// `spec.externalIPs` and `status.loadBalancer.ingress[].ip`: in a bundle they are one thing.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external_addresses: BTreeSet<IpAddr>,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: Policy,
    /// `spec.externalTrafficPolicy`; none where no external address or nodePort is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<Policy>,
    /// `spec.sessionAffinity`.
    pub session_affinity: SessionAffinity,
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, 1 to 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// `spec.loadBalancerSourceRanges`, without ranges inside others.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", serialize_with = "prefixes")]
    pub load_balancer_source_ranges: BTreeSet<(IpAddr, u8)>,
    /// Where there are ranges: those of the external addresses that they are for, the load balancer's.
    #[serde(rename = "loadBalancerIPs", skip_serializing_if = "BTreeSet::is_empty")]
    pub load_balancer_ips: BTreeSet<IpAddr>,
    /// `spec.healthCheckNodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<u16>,
    /// `spec.ports`, by protocol and port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortDescription>,
    /// What the fields above say and the records do not (`without …`), and the reverse (`with …`). For example an address
    /// that another Service has on one of the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<String>,
}

/// A Service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortDescription {
    /// Its name; empty when it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its protocol.
    #[serde(serialize_with = "display")]
    pub protocol: Proto,
    /// The port at the Service's addresses.
    pub port: u16,
    /// The port at the nodes' addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A traffic policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Policy {
    /// All endpoints.
    #[default]
    Cluster,
    /// The node's own endpoints.
    Local,
}

/// Whether a client stays at its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum SessionAffinity {
    /// No.
    #[default]
    None,
    /// By its address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

fn display<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn prefixes<S: serde::Serializer>(
    prefixes: &BTreeSet<(IpAddr, u8)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(prefixes.iter().map(|(addr, len)| prefix(*addr, *len)))
}

impl ServiceDescription {
    /// Describes the records of one Service, all of them and no others. Membership is passed over.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a (Key, Value)>) -> Self {
        let facts = facts(records);
        let mut description = Self::default();
        for fact in &facts {
            description.take(fact);
        }
        description.policies(&facts);
        description.ports.sort_by_key(|p| (p.protocol, p.port));
        description.exceptions = exceptions(&facts, &expand::expected(&description, &facts));
        description
    }

    /// Of two facts about one thing the first counts; the other is an exception.
    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Target(id) => {
                self.cluster_ips.insert(id.addr);
                self.port(id);
            }
            Fact::Name(id, name) => {
                let port = self.port(id);
                if port.name.is_empty() {
                    port.name.clone_from(name);
                }
            }
            Fact::Affinity(_, timeout) => {
                self.session_affinity = SessionAffinity::ClientIp;
                self.timeout_seconds.get_or_insert(*timeout);
            }
            Fact::Answers(id, key) => self.take_key(id, key),
            Fact::Restricted((addr, ..)) => drop(self.load_balancer_ips.insert(*addr)),
            Fact::Range(_, range) => drop(self.load_balancer_source_ranges.insert(*range)),
            Fact::HealthCheck(port) => drop(self.health_check_node_port.get_or_insert(*port)),
            Fact::Counts(..) | Fact::Element(..) => {}
        }
    }

    fn take_key(&mut self, id: &GroupId, key: &LaneKey) {
        match (Lane::of(key.lane), key.addr) {
            (Some(Lane::External | Lane::ExternalInside | Lane::ExternalOutside), Some(addr)) => {
                self.external_addresses.insert(addr);
            }
            (Some(Lane::NodePort | Lane::NodePortInside | Lane::NodePortOutside), None) => {
                self.port(id).node_port.get_or_insert(key.port);
            }
            _ => {}
        }
    }

    fn port(&mut self, id: &GroupId) -> &mut PortDescription {
        let known = self.ports.iter().position(|p| (p.protocol, p.port) == (id.proto, id.port));
        let at = known.unwrap_or_else(|| {
            let (name, node_port) = (String::new(), None);
            self.ports.push(PortDescription { name, protocol: id.proto, port: id.port, node_port });
            self.ports.len() - 1
        });
        &mut self.ports[at]
    }

    fn policies(&mut self, facts: &BTreeSet<Fact>) {
        let lanes: BTreeSet<Lane> = facts
            .iter()
            .filter_map(|fact| if let Fact::Answers(_, key) = fact { Lane::of(key.lane) } else { None })
            .collect();
        let has = |wanted: &[Lane]| wanted.iter().any(|lane| lanes.contains(lane));
        if has(&[Lane::ClusterIpLocal]) && !has(&[Lane::ClusterIp]) {
            self.internal_traffic_policy = Policy::Local;
        }
        let local =
            [Lane::ExternalInside, Lane::ExternalOutside, Lane::NodePortInside, Lane::NodePortOutside];
        self.external_traffic_policy = if has(&[Lane::External, Lane::NodePort]) {
            Some(Policy::Cluster)
        } else {
            has(&local).then_some(Policy::Local)
        };
    }
}
