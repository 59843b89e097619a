//! Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use rulecast_compiler::model::{Service, ServicePort};
use serde::Deserialize;

use super::convert::{Convert, Wrong, has_label, nullable};
use super::{Content, Kind, text};

/// Services with this label are another proxy's.
pub(crate) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY: i64 = 10_800;
const MAX_AFFINITY: i64 = 86_400;

#[derive(Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "core::Service")]
pub(crate) struct RawService {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    spec: Spec,
    #[serde(default, deserialize_with = "nullable")]
    status: Status,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    external_ips: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    load_balancer_source_ranges: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<Port>,
    session_affinity: Option<String>,
    #[serde(deserialize_with = "nullable")]
    session_affinity_config: AffinityConfig,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    health_check_node_port: Option<u16>,
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the API's names")]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
    node_port: Option<u16>,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(default)]
struct AffinityConfig {
    #[serde(rename = "clientIP", deserialize_with = "nullable")]
    client_ip: ClientIp,
}

#[derive(Deserialize, Debug, Clone, Copy, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<i64>,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(deserialize_with = "nullable")]
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(default)]
struct LoadBalancer {
    #[serde(deserialize_with = "nullable")]
    ingress: Vec<Ingress>,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl Convert for RawService {
    const KIND: Kind = Kind::Service;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, warnings: &mut Vec<String>) -> Result<Content, Wrong> {
        let Spec { r#type, cluster_ip, .. } = &self.spec;
        let headless = matches!(cluster_ip.as_deref(), None | Some("" | "None"))
            && self.spec.cluster_ips.is_empty()
            || self.spec.cluster_ips.first().is_some_and(|ip| ip == "None");
        let external_name = r#type.as_deref() == Some("ExternalName");
        if headless || external_name || has_label(&self.metadata, PROXY_NAME) {
            return Ok(Content::Ignored);
        }
        service(self.spec, &self.status, warnings).map(Content::Service)
    }
}

fn service(spec: Spec, status: &Status, warnings: &mut Vec<String>) -> Result<Service, Wrong> {
    let load_balancer = spec.r#type.as_deref() == Some("LoadBalancer");
    // Of a ClusterIP Service without external addresses no external traffic is known, so the policy means nothing.
    let external =
        load_balancer || spec.r#type.as_deref() == Some("NodePort") || !spec.external_ips.is_empty();
    let external_local = external && spec.external_traffic_policy.as_deref() == Some("Local");
    let health = spec.health_check_node_port.filter(|p| *p > 0 && load_balancer && external_local);
    Ok(Service {
        cluster_ips: cluster_ips(&spec)?,
        external_ips: addresses("spec.externalIPs", &spec.external_ips)?,
        load_balancer_ips: ingress(&status.load_balancer.ingress)?,
        source_ranges: source_ranges(&spec.load_balancer_source_ranges)?,
        ports: ports(spec.ports, warnings)?,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity: affinity(spec.session_affinity.as_deref(), spec.session_affinity_config.client_ip)?,
        health_check_node_port: health,
    })
}

fn cluster_ips(spec: &Spec) -> Result<Vec<IpAddr>, Wrong> {
    let given = if spec.cluster_ips.is_empty() {
        addresses("spec.clusterIP", spec.cluster_ip.as_slice())?
    } else {
        addresses("spec.clusterIPs", &spec.cluster_ips)?
    };
    let mut ips: Vec<IpAddr> = Vec::with_capacity(given.len());
    for ip in given {
        if !ips.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

fn addresses(field: &str, texts: &[String]) -> Result<Vec<IpAddr>, Wrong> {
    let read = |(i, text): (usize, &String)| {
        text::address(text)
            .ok_or_else(|| Wrong::new(format!("{field}[{i}]"), format!("{text:?} is not an IP address")))
    };
    texts.iter().enumerate().map(read).collect()
}

fn ingress(ingress: &[Ingress]) -> Result<Vec<IpAddr>, Wrong> {
    let mut ips = Vec::new();
    for (i, entry) in ingress.iter().enumerate() {
        // ipMode Proxy: the load balancer wants to see the traffic, also that from inside the cluster.
        let served = matches!(entry.ip_mode.as_deref(), None | Some("" | "VIP"));
        if let Some(ip) = entry.ip.as_deref().filter(|ip| served && !ip.is_empty()) {
            ips.push(text::address(ip).ok_or_else(|| {
                let field = format!("status.loadBalancer.ingress[{i}].ip");
                Wrong::new(field, format!("{ip:?} is not an IP address"))
            })?);
        }
    }
    Ok(ips)
}

fn source_ranges(ranges: &[String]) -> Result<Vec<(IpAddr, u8)>, Wrong> {
    let read = |(i, range): (usize, &String)| {
        text::prefix(range).ok_or_else(|| {
            let field = format!("spec.loadBalancerSourceRanges[{i}]");
            // Leaving it out could open the Service to everybody, or close it.
            Wrong::new(field, format!("{range:?} is not a CIDR such as 203.0.113.0/24"))
        })
    };
    ranges.iter().enumerate().map(read).collect()
}

fn ports(ports: Vec<Port>, warnings: &mut Vec<String>) -> Result<Vec<ServicePort>, Wrong> {
    let mut out = Vec::with_capacity(ports.len());
    for (i, port) in ports.into_iter().enumerate() {
        let Some(proto) = text::protocol(port.protocol.as_deref()) else {
            let unknown = port.protocol.unwrap_or_default();
            warnings.push(format!(
                "spec.ports[{i}].protocol: {unknown:?} is neither TCP, UDP nor SCTP; port {} is not served",
                port.port
            ));
            continue;
        };
        if port.port == 0 {
            return Err(Wrong::new(format!("spec.ports[{i}].port"), "must be from 1 to 65535"));
        }
        let node_port = port.node_port.filter(|p| *p > 0);
        // No API server lets this through, but a directory of manifests may have it.
        let same = |other: &ServicePort| {
            other.proto == proto
                && (other.port == port.port || node_port.is_some() && other.node_port == node_port)
        };
        if out.iter().any(same) {
            let problem =
                "has the port or the nodePort of another port of this Service with the same protocol";
            return Err(Wrong::new(format!("spec.ports[{i}]"), problem));
        }
        out.push(ServicePort { name: port.name.unwrap_or_default(), proto, port: port.port, node_port });
    }
    Ok(out)
}

fn affinity(kind: Option<&str>, config: ClientIp) -> Result<Option<u32>, Wrong> {
    match kind {
        None | Some("" | "None") => Ok(None),
        Some("ClientIP") => {
            let seconds = config.timeout_seconds.unwrap_or(DEFAULT_AFFINITY);
            let valid = u32::try_from(seconds).ok().filter(|_| (1..=MAX_AFFINITY).contains(&seconds));
            valid.map(Some).ok_or_else(|| {
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                Wrong::new(field, format!("{seconds} is not from 1 to {MAX_AFFINITY}"))
            })
        }
        Some(other) => {
            Err(Wrong::new("spec.sessionAffinity", format!("{other:?} is neither None nor ClientIP")))
        }
    }
}
