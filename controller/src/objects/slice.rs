//! EndpointSlices.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use rulecast_compiler::model::{Endpoint, Slice, SlicePort};
use serde::Deserialize;

use super::convert::{Convert, Wrong, has_label, nullable};
use super::{Content, Kind, text};

/// Slices of headless Services have this label: nobody proxies to them.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "discovery::EndpointSlice")]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawSlice {
    metadata: ObjectMeta,
    address_type: String,
    #[serde(default, deserialize_with = "nullable")]
    ports: Vec<Port>,
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Deserialize, Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    conditions: Conditions,
    node_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    hints: Hints,
}

#[derive(Deserialize, Debug, Clone, Copy, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    #[serde(deserialize_with = "nullable")]
    for_zones: Vec<Hint>,
    #[serde(deserialize_with = "nullable")]
    for_nodes: Vec<Hint>,
}

#[derive(Deserialize, Debug, Clone)]
struct Hint {
    name: String,
}

impl Convert for RawSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, warnings: &mut Vec<String>) -> Result<Content, Wrong> {
        let labels = self.metadata.labels.as_ref();
        let service = labels.and_then(|l| l.get(SERVICE_NAME)).filter(|name| !name.is_empty());
        let ipv4 = match self.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            "FQDN" => return Ok(Content::Ignored),
            other => {
                return Err(Wrong::new("addressType", format!("{other:?} is neither IPv4, IPv6 nor FQDN")));
            }
        };
        let Some(service) = service.filter(|_| !has_label(&self.metadata, HEADLESS)) else {
            return Ok(Content::Ignored);
        };
        let namespace = self.metadata.namespace.as_deref().unwrap_or("default");
        Ok(Content::Slice(Slice {
            service: format!("{namespace}/{service}"),
            ports: ports(self.ports, warnings),
            endpoints: endpoints(self.endpoints, ipv4, warnings),
        }))
    }
}

fn ports(ports: Vec<Port>, warnings: &mut Vec<String>) -> Vec<SlicePort> {
    let mut out = Vec::with_capacity(ports.len());
    for (i, port) in ports.into_iter().enumerate() {
        // No number means every port, which no Service port can be mapped to.
        let Some(number) = port.port.filter(|n| *n > 0) else { continue };
        match text::protocol(port.protocol.as_deref()) {
            Some(proto) => {
                out.push(SlicePort { name: port.name.unwrap_or_default(), proto, port: number });
            }
            None => warnings.push(format!(
                "ports[{i}].protocol: {:?} is neither TCP, UDP nor SCTP; port {number} is not served",
                port.protocol.unwrap_or_default()
            )),
        }
    }
    out
}

/// An endpoint whose address makes no sense is left out: keeping the slice's previous version instead would keep dead
/// endpoints alive.
fn endpoints(raw: Vec<RawEndpoint>, ipv4: bool, warnings: &mut Vec<String>) -> Vec<Endpoint> {
    let mut out = Vec::with_capacity(raw.len());
    for (i, endpoint) in raw.into_iter().enumerate() {
        // Further addresses are by definition of the same pod; kube-proxy and the API's documentation say to use the first.
        let Some(first) = endpoint.addresses.first() else {
            warnings.push(format!("endpoints[{i}].addresses: empty; the endpoint is left out"));
            continue;
        };
        let Some(addr) = text::address(first).filter(|addr| addr.is_ipv4() == ipv4) else {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            let problem = format!("{first:?} is not an {family} address; the endpoint is left out");
            warnings.push(format!("endpoints[{i}].addresses[0]: {problem}"));
            continue;
        };
        let Conditions { ready, serving, terminating } = endpoint.conditions;
        let ready = ready.unwrap_or(true);
        let names = |hints: Vec<Hint>| hints.into_iter().map(|h| Arc::from(h.name)).collect();
        out.push(Endpoint {
            addr,
            node: endpoint.node_name.filter(|n| !n.is_empty()).map(Arc::from),
            ready,
            // Unknown counts as serving, as with kube-proxy: what matters then is whether it is ready or terminating.
            serving: serving.unwrap_or(true),
            terminating: terminating.unwrap_or(false),
            zones: names(endpoint.hints.for_zones),
            nodes: names(endpoint.hints.for_nodes),
        });
    }
    out
}
