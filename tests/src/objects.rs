//! Services and EndpointSlices, as JSON.

use serde_json::{Value, json};

use crate::network::{Network, Pod};

/// Where the tests' Services live.
pub const NAMESPACE: &str = "default";

/// A Service with dual-stack cluster IPs on port 80, TCP and UDP, to the pods' port 8080; `more` goes into its spec.
#[must_use]
pub fn service(name: &str, kind: &str, more: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "type": kind,
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080 },
                { "name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080 },
            ],
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

/// An endpoint in a slice.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    /// The pod's name.
    pub pod: &'a str,
    /// Whether it is ready.
    pub ready: bool,
}

/// A ready endpoint.
#[must_use]
pub fn ready(pod: &str) -> Endpoint<'_> {
    Endpoint { pod, ready: true }
}

/// An endpoint that is not ready.
#[must_use]
pub fn unready(pod: &str) -> Endpoint<'_> {
    Endpoint { pod, ready: false }
}

/// The EndpointSlices of a Service, one per family, as the EndpointSlice controller would write them.
#[must_use]
pub fn slices(network: &Network, service: &str, target_port: u16, endpoints: &[Endpoint<'_>]) -> Vec<Value> {
    let slice = |family: &str, suffix: &str, addr: &dyn Fn(&Pod) -> String| {
        let list = endpoints.iter().map(|e| {
            json!({
                "addresses": [addr(network.pod(e.pod))],
                "nodeName": network.node_of(e.pod).name,
                "conditions": { "ready": e.ready, "serving": e.ready, "terminating": false },
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{suffix}"), "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": family,
            "ports": [
                { "name": "tcp", "protocol": "TCP", "port": target_port },
                { "name": "udp", "protocol": "UDP", "port": target_port },
            ],
            "endpoints": list.collect::<Vec<_>>(),
        })
    };
    vec![slice("IPv4", "v4", &|pod| pod.v4.to_string()), slice("IPv6", "v6", &|pod| pod.v6.to_string())]
}
