//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use rulecast_compiler::model::Node;
use serde::Deserialize;

use super::convert::{Convert, Wrong, nullable};
use super::{Content, Kind, text};

const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// The most pod CIDRs of a node; the API server lets one of each family through.
const MAX_POD_CIDRS: usize = 64;

#[derive(Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "core::Node")]
pub(crate) struct RawNode {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    spec: Spec,
    #[serde(default, deserialize_with = "nullable")]
    status: Status,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", deserialize_with = "nullable")]
    pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    taints: Vec<Taint>,
}

#[derive(Deserialize, Debug, Clone)]
struct Taint {
    key: String,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<Address>,
}

#[derive(Deserialize, Debug, Clone)]
struct Address {
    r#type: String,
    address: String,
}

impl Convert for RawNode {
    const KIND: Kind = Kind::Node;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, _: &mut Vec<String>) -> Result<Content, Wrong> {
        let draining = self.metadata.deletion_timestamp.is_some()
            || self.spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED);
        let labels = self.metadata.labels.unwrap_or_default();
        Ok(Content::Node(Node {
            zone: labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned(),
            labels,
            addrs: addresses(&self.status.addresses)?,
            pod_cidrs: pod_cidrs(&self.spec)?,
            draining,
        }))
    }
}

fn addresses(addresses: &[Address]) -> Result<Vec<IpAddr>, Wrong> {
    let mut out: Vec<IpAddr> = Vec::new();
    let of_kind = |kind| addresses.iter().enumerate().filter(move |(_, a)| a.r#type == kind);
    for (i, address) in of_kind("InternalIP").chain(of_kind("ExternalIP")) {
        let ip = text::address(&address.address).ok_or_else(|| {
            let field = format!("status.addresses[{i}].address");
            Wrong::new(field, format!("{:?} is not an IP address", address.address))
        })?;
        if !out.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
            out.push(ip);
        }
    }
    Ok(out)
}

fn pod_cidrs(spec: &Spec) -> Result<Vec<(IpAddr, u8)>, Wrong> {
    let one = spec.pod_cidr.as_ref().filter(|cidr| !cidr.is_empty());
    let all =
        if spec.pod_cidrs.is_empty() { one.map(std::slice::from_ref) } else { Some(&spec.pod_cidrs[..]) };
    let read = |(i, cidr): (usize, &String)| {
        text::prefix(cidr)
            .ok_or_else(|| Wrong::new(format!("spec.podCIDRs[{i}]"), format!("{cidr:?} is not a CIDR")))
    };
    let all = all.unwrap_or_default();
    // A record that no node could read would take all the others with it.
    if all.len() > MAX_POD_CIDRS {
        let problem = format!("has {} prefixes; at most {MAX_POD_CIDRS} are possible", all.len());
        return Err(Wrong::new("spec.podCIDRs", problem));
    }
    all.iter().enumerate().map(read).collect()
}
