//! The facts that a description stands for. What is otherwise in the records goes beside it, so nothing is lost.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{GroupId, GroupKind, Lane, LaneKey};

use crate::facts::{Fact, Vip};
use crate::service::{Policy, PortDescription, ServiceDescription};

/// What a Service as described compiles to. Of a target that is missing only that is told, and of an address that is not
/// served no source ranges: the later steps ask `facts` what there is. Each step's answer follows from the description, its
/// exceptions and the steps before it.
pub(crate) fn expected(description: &ServiceDescription, facts: &BTreeSet<Fact>) -> BTreeSet<Fact> {
    let mut expected = BTreeSet::new();
    for port in &description.ports {
        for addr in &description.cluster_ips {
            for kind in [GroupKind::Cluster, GroupKind::Local] {
                let id = GroupId { addr: *addr, port: port.port, proto: port.protocol, kind };
                target(description, port, id, facts, &mut expected);
            }
        }
    }
    if let Some(port) = description.health_check_node_port {
        expected.insert(Fact::HealthCheck(port));
        let local = facts.iter().filter_map(|fact| match fact {
            Fact::Target(id) if id.kind == GroupKind::Local => Some(Fact::Counts(port, *id)),
            _ => None,
        });
        expected.extend(local);
    }
    source_ranges(description, facts, &mut expected);
    expected
}

fn target(
    description: &ServiceDescription,
    port: &PortDescription,
    id: GroupId,
    facts: &BTreeSet<Fact>,
    expected: &mut BTreeSet<Fact>,
) {
    let keys = keys(description, port, id);
    // A health check counts the local list even where no traffic uses it.
    let counted = id.kind == GroupKind::Local && description.health_check_node_port.is_some();
    if !keys.is_empty() || counted {
        expected.insert(Fact::Target(id));
    }
    if !facts.contains(&Fact::Target(id)) {
        return;
    }
    if !port.name.is_empty() {
        expected.insert(Fact::Name(id, port.name.clone()));
    }
    expected.extend(description.timeout_seconds.map(|timeout| Fact::Affinity(id, timeout)));
    expected.extend(keys.into_iter().map(|key| Fact::Answers(id, key)));
}

fn keys(description: &ServiceDescription, port: &PortDescription, id: GroupId) -> Vec<LaneKey> {
    let local = id.kind == GroupKind::Local;
    let key = |lane: Lane, addr, port| LaneKey { lane: lane as u8, addr, port };
    let mut keys = Vec::new();
    if local == (description.internal_traffic_policy == Policy::Local) {
        let lane = if local { Lane::ClusterIpLocal } else { Lane::ClusterIp };
        keys.push(key(lane, Some(id.addr), id.port));
    }
    let lanes = match (description.external_traffic_policy, local) {
        (Some(Policy::Cluster), false) => Some((Lane::External, Lane::NodePort)),
        (Some(Policy::Local), false) => Some((Lane::ExternalInside, Lane::NodePortInside)),
        (Some(Policy::Local), true) => Some((Lane::ExternalOutside, Lane::NodePortOutside)),
        (Some(Policy::Cluster), true) | (None, _) => None,
    };
    if let Some((external, node_port)) = lanes {
        let of_family = description.external_addresses.iter().filter(|a| Family::of(**a) == id.family());
        keys.extend(of_family.map(|addr| key(external, Some(*addr), id.port)));
        keys.extend(port.node_port.map(|number| key(node_port, None, number)));
    }
    keys
}

fn source_ranges(description: &ServiceDescription, facts: &BTreeSet<Fact>, expected: &mut BTreeSet<Fact>) {
    let served: BTreeSet<Vip> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Answers(id, key) => Some((key.addr?, id.proto, key.port)),
            _ => None,
        })
        .filter(|vip| description.load_balancer_ips.contains(&vip.0))
        .collect();
    for vip in served {
        let of_family = |range: &&(IpAddr, u8)| Family::of(range.0) == Family::of(vip.0);
        for range in description.load_balancer_source_ranges.iter().filter(of_family) {
            expected.insert(Fact::Restricted(vip));
            expected.insert(Fact::Range(vip, *range));
        }
    }
}

/// What differs, one line each.
pub(crate) fn exceptions(facts: &BTreeSet<Fact>, expected: &BTreeSet<Fact>) -> Vec<String> {
    let without = expected.difference(facts).map(|fact| format!("without {fact}"));
    let with = facts.difference(expected).map(|fact| format!("with {fact}"));
    without.chain(with).collect()
}
