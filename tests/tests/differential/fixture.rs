//! A Service with its EndpointSlices, described in a line or two.

use std::net::IpAddr;

use rulecast_tests::network::Network;
use rulecast_tests::objects::NAMESPACE;
use serde_json::{Value, json};

/// A Service, its slices, and what is known of them.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    /// The Service's name.
    pub(crate) name: String,
    /// The Service, without status.
    pub(crate) service: Value,
    /// Its slices.
    pub(crate) slices: Vec<Value>,
    /// What the load balancer reports.
    pub(crate) ingress: Vec<Value>,
    /// What becomes of pod a3's connections to the first cluster IP's first port: who answers, or how it ends. Empty:
    /// there is no cluster IP.
    pub(crate) expected: &'static str,
}

/// The ports of a Service: TCP and UDP at 80, to the pods' 8080. With a nodePort, if it is not 0.
pub(crate) fn ports(node_port: u16) -> Value {
    let port = |name: &str, protocol: &str| {
        let mut port = json!({ "name": name, "protocol": protocol, "port": 80, "targetPort": 8080 });
        if node_port != 0 {
            port["nodePort"] = node_port.into();
        }
        port
    };
    json!([port("tcp", "TCP"), port("udp", "UDP")])
}

/// The ports of a slice.
pub(crate) fn slice_ports(port: u16) -> Value {
    json!([
        { "name": "tcp", "protocol": "TCP", "port": port },
        { "name": "udp", "protocol": "UDP", "port": port },
    ])
}

impl Fixture {
    /// A dual-stack Service; `more` goes into its spec.
    pub(crate) fn new(name: &str, kind: &str, node_port: u16, more: &Value) -> Self {
        let mut spec =
            json!({ "type": kind, "ipFamilyPolicy": "RequireDualStack", "ports": ports(node_port) });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        });
        Self { name: name.to_owned(), service, slices: Vec::new(), ingress: Vec::new(), expected: "" }
    }

    /// What a pod that is no endpoint sees, see [`Fixture::expected`].
    #[must_use]
    pub(crate) fn expect(mut self, expected: &'static str) -> Self {
        self.expected = expected;
        self
    }

    /// Adds one slice for each family, as the EndpointSlice controller would write them.
    #[must_use]
    pub(crate) fn slices(self, network: &Network, endpoints: &[&str]) -> Self {
        self.slices_with(network, "", &slice_ports(8080), endpoints)
    }

    /// The same with these ports; `suffix` tells several from each other.
    #[must_use]
    pub(crate) fn slices_with(
        mut self,
        network: &Network,
        suffix: &str,
        ports: &Value,
        endpoints: &[&str],
    ) -> Self {
        self.slices.extend(slices(network, &self.name, suffix, ports, endpoints));
        self
    }

    /// Sets a label of every slice.
    #[must_use]
    pub(crate) fn slice_label(mut self, label: &str, value: &str) -> Self {
        for slice in &mut self.slices {
            slice["metadata"]["labels"][label] = value.into();
        }
        self
    }

    /// Sets a label of the Service.
    #[must_use]
    pub(crate) fn label(mut self, label: &str, value: &str) -> Self {
        self.service["metadata"]["labels"] = json!({ label: value });
        self
    }

    /// The load balancer reports these addresses.
    #[must_use]
    pub(crate) fn at(mut self, addrs: &[IpAddr]) -> Self {
        self.ingress = addrs.iter().map(|addr| json!({ "ip": addr.to_string() })).collect();
        self
    }

    /// The Service with the load balancer's report, as `kubectl apply --subresource=status` wants it.
    pub(crate) fn status(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name, "namespace": NAMESPACE },
            "status": { "loadBalancer": { "ingress": self.ingress } },
        })
    }

    /// Whether clients stay with one pod.
    pub(crate) fn is_sticky(&self) -> bool {
        self.service["spec"]["sessionAffinity"] == "ClientIP"
    }
}

/// Load balancer addresses of this number: one a node and family.
pub(crate) fn vips(number: u8) -> [IpAddr; 4] {
    let v6 = |half: u16| IpAddr::from([0x2001, 0xdb8, 0x113, 0, half, 0, 0, number.into()]);
    [[203, 0, 113, number].into(), [203, 0, 113, number + 128].into(), v6(0), v6(0x8000)]
}

/// One slice for each family.
pub(crate) fn slices(
    network: &Network,
    service: &str,
    suffix: &str,
    ports: &Value,
    endpoints: &[&str],
) -> Vec<Value> {
    let slice = |family: &str, end: &str, index: usize| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{end}{suffix}"), "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": family,
            "ports": ports,
            "endpoints": endpoints.iter().map(|words| endpoint(network, words, index)).collect::<Vec<_>>(),
        })
    };
    vec![slice("IPv4", "v4", 0), slice("IPv6", "v6", 1)]
}

/// An endpoint in words, separated by colons: a pod or a node, then its condition and its hints, as in
/// `a1:terminating:zone-b`.
fn endpoint(network: &Network, words: &str, family: usize) -> Value {
    let mut words = words.split(':');
    let name = words.next().unwrap_or_default();
    let node = network.nodes.iter().find(|node| node.name == name);
    let (addrs, node) = match node {
        Some(node) => ([node.v4, node.v6], node),
        None => ([network.pod(name).v4, network.pod(name).v6], network.node_of(name)),
    };
    let conditions = |ready, serving, terminating| json!({ "ready": ready, "serving": serving, "terminating": terminating });
    let mut endpoint = json!({
        "addresses": [addrs[family]], "nodeName": node.name, "conditions": conditions(true, true, false),
    });
    for word in words {
        match word {
            "unready" => endpoint["conditions"] = conditions(false, false, false),
            "serving" => endpoint["conditions"] = conditions(false, true, false),
            "terminating" => endpoint["conditions"] = conditions(false, true, true),
            "dead" => endpoint["conditions"] = conditions(false, false, true),
            // What publishNotReadyAddresses makes of a terminating pod.
            "published" => endpoint["conditions"] = conditions(true, true, true),
            "nil" => endpoint["conditions"] = json!({}),
            "nowhere" => endpoint["nodeName"] = Value::Null,
            "and-a3" => {
                let more = network.pod("a3");
                let more = [more.v4, more.v6][family];
                endpoint["addresses"] = json!([addrs[family], more]);
            }
            zone if zone.starts_with("zone-") => hint(&mut endpoint, "forZones", zone),
            node if node.starts_with("node-") => hint(&mut endpoint, "forNodes", node),
            other => panic!("{other}: what is that?"),
        }
    }
    endpoint
}

fn hint(endpoint: &mut Value, kind: &str, name: &str) {
    let list = &mut endpoint["hints"][kind];
    match list.as_array_mut() {
        Some(list) => list.push(json!({ "name": name })),
        None => *list = json!([{ "name": name }]),
    }
}
