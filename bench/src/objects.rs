//! The cluster of the other benchmarks as Kubernetes objects, with what Services of real clusters have besides.
//!
//! Of ten Services one has session affinity, one is a load balancer with externalTrafficPolicy Local and an endpoint on
//! the measured node, and one is a load balancer with source ranges. EndpointSlices are as the EndpointSlice controller
//! writes them. Everything that a proxy is fed with comes from here, so that two proxies read the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::cluster::{Cluster, POOL};

/// The pod that connects: on the measured node, at an address that the cluster gives to nobody.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 254);
/// The client outside of the cluster.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The ports that pods listen at: the cluster's target ports.
pub(crate) const TARGET_PORTS: [u16; 8] = [8080, 80, 3000, 8000, 8443, 9090, 5432, 6379];
/// NodePorts are given to one Service of ten, of two kinds, from here and from 1,000 higher.
const NODE_PORTS: u32 = 30_000;
const NODE_PORTS_OF_A_KIND: u32 = 1000;
/// Load balancer addresses are from the range for benchmarks.
const LOAD_BALANCERS: u32 = 198 << 24 | 18 << 16;

/// What is special about a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Plain,
    /// Session affinity.
    Affinity,
    /// A load balancer with externalTrafficPolicy Local.
    Local,
    /// A load balancer with source ranges, one of which holds [`OUTSIDE`].
    Ranges,
}

/// The kind of a Service.
pub(crate) fn kind(service: u32) -> Kind {
    match service % 10 {
        3 => Kind::Affinity,
        5 => Kind::Ranges,
        7 => Kind::Local,
        _ => Kind::Plain,
    }
}

/// A Service's cluster IP and port.
pub(crate) fn cluster_ip(cluster: &Cluster, service: u32) -> SocketAddr {
    let service = cluster.service(service);
    SocketAddr::new(service.cluster_ips[0], service.ports[0].port)
}

/// A load balancer's address and port.
pub(crate) fn load_balancer(cluster: &Cluster, service: u32) -> Option<SocketAddr> {
    let half = match kind(service) {
        Kind::Local => 0,
        Kind::Ranges => 1 << 16,
        Kind::Plain | Kind::Affinity => return None,
    };
    let address = Ipv4Addr::from(LOAD_BALANCERS + half + 1 + service / 10);
    Some(SocketAddr::new(address.into(), cluster_ip(cluster, service).port()))
}

/// A load balancer's nodePort, while there are any left.
pub(crate) fn node_port(service: u32) -> Option<u16> {
    let first = match kind(service) {
        Kind::Local => NODE_PORTS,
        Kind::Ranges => NODE_PORTS + NODE_PORTS_OF_A_KIND,
        Kind::Plain | Kind::Affinity => return None,
    };
    (service / 10 < NODE_PORTS_OF_A_KIND).then(|| u16::try_from(first + service / 10).expect("below 32,000"))
}

/// The address of the measured node.
pub(crate) fn node_address(cluster: &Cluster) -> IpAddr {
    cluster.node(0).addrs[0]
}

fn metadata(name: &str, namespace: Option<&str>) -> Value {
    json!({ "name": name, "namespace": namespace })
}

/// An object as an API server would give it, with what such a server adds to every one.
pub(crate) fn served(mut object: Value) -> Value {
    let uid = uid(object["metadata"]["name"].as_str().unwrap_or_default());
    object["metadata"]["uid"] = uid.into();
    object["metadata"]["resourceVersion"] = "1".into();
    object["metadata"]["creationTimestamp"] = TIME.into();
    object
}

/// Some time.
const TIME: &str = "2026-01-01T00:00:00Z";

/// An identifier that nothing depends on.
fn uid(name: &str) -> String {
    let hash =
        name.bytes().fold(0, |hash: u64, byte| (hash.wrapping_mul(31) + u64::from(byte)) & 0xffff_ffff_ffff);
    format!("00000000-0000-4000-8000-{hash:012x}")
}

/// A Service.
pub(crate) fn service(cluster: &Cluster, number: u32) -> Value {
    let name = cluster.service_name(number);
    let (namespace, name) = name.split_once('/').expect("a namespace and a name");
    let at = cluster_ip(cluster, number);
    let target = cluster.slices(number)[0].1.ports[0].port;
    let mut port = json!({ "name": "http", "protocol": "TCP", "port": at.port(), "targetPort": target });
    let mut spec = json!({
        "type": "ClusterIP", "clusterIP": at.ip(), "clusterIPs": [at.ip()], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
    });
    let mut status = json!({ "loadBalancer": {} });
    if let Some(port_number) = node_port(number) {
        port["nodePort"] = port_number.into();
    }
    if let Some(vip) = load_balancer(cluster, number) {
        spec["type"] = "LoadBalancer".into();
        spec["externalTrafficPolicy"] = "Cluster".into();
        status = json!({ "loadBalancer": { "ingress": [{ "ip": vip.ip(), "ipMode": "VIP" }] } });
    }
    match kind(number) {
        Kind::Affinity => {
            spec["sessionAffinity"] = "ClientIP".into();
            spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 10_800 } });
        }
        Kind::Local => spec["externalTrafficPolicy"] = "Local".into(),
        Kind::Ranges => spec["loadBalancerSourceRanges"] = json!(["192.0.2.0/24", "198.51.100.0/24"]),
        Kind::Plain => {}
    }
    spec["ports"] = json!([port]);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name, Some(namespace)), "spec": spec,
        "status": status,
    })
}

/// A Service's EndpointSlices.
pub(crate) fn slices(cluster: &Cluster, number: u32) -> Vec<Value> {
    let owner = cluster.service_name(number);
    let (namespace, owner) = owner.split_once('/').expect("a namespace and a name");
    let slices = cluster.slices(number).into_iter().enumerate().map(|(at, (name, slice))| {
        let mut endpoints: Vec<_> =
            slice.endpoints.iter().map(|e| endpoint(cluster, namespace, owner, e.addr)).collect();
        if at == 0 && kind(number) == Kind::Local {
            let host = u8::try_from(number / 10 % 252 + 2).expect("below 254");
            endpoints[0] = endpoint(cluster, namespace, owner, Ipv4Addr::new(10, 128, 0, host).into());
        }
        let mut metadata = metadata(name.rsplit('/').next().unwrap_or(&name), Some(namespace));
        metadata["generateName"] = format!("{owner}-").into();
        metadata["labels"] = json!({
            "kubernetes.io/service-name": owner,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        });
        metadata["annotations"] = json!({ CHANGED: TIME });
        metadata["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Service", "name": owner, "uid": uid(owner), "controller": true,
            "blockOwnerDeletion": true,
        }]);
        let port = slice.ports[0].port;
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "protocol": "TCP", "port": port }],
        })
    });
    slices.collect()
}

/// The annotation of an EndpointSlice that says when a pod of it changed last.
pub(crate) const CHANGED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A ready pod of a Service in an EndpointSlice.
pub(crate) fn endpoint(cluster: &Cluster, namespace: &str, owner: &str, address: IpAddr) -> Value {
    let node = cluster.node_of(address);
    let pod = match address {
        IpAddr::V4(v4) => format!("{owner}-{:08x}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{owner}-{:08x}", v6.to_bits()),
    };
    json!({
        "addresses": [address], "nodeName": cluster.node_name(node), "zone": cluster.node(node).zone,
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "targetRef": { "kind": "Pod", "namespace": namespace, "uid": uid(&pod), "name": pod },
    })
}

/// A node. The measured one of `connect` is number 0.
pub(crate) fn node(cluster: &Cluster, number: u32) -> Value {
    let node = cluster.node(number);
    let (net, len) = node.pod_cidrs[0];
    let mut metadata = metadata(&cluster.node_name(number), None);
    metadata["labels"] = json!(node.labels);
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata,
        "spec": { "podCIDR": format!("{net}/{len}"), "podCIDRs": [format!("{net}/{len}")] },
        "status": { "addresses": [{ "type": "InternalIP", "address": node.addrs[0] }] },
    })
}

/// The range of cluster IPs.
pub(crate) fn service_cidr() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": metadata("kubernetes", None),
        "spec": { "cidrs": [SERVICE_CIDR] },
        "status": { "conditions": [{
            "type": "Ready", "status": "True", "reason": "", "message": "",
            "lastTransitionTime": TIME,
        }] },
    })
}

/// The pool, configured as kube-proxy is.
pub(crate) fn pool() -> Value {
    json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL },
        "spec": { "clusterCIDR": CLUSTER_CIDR },
    })
}

/// The range of cluster IPs.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/12";
/// The addresses of all pods.
pub(crate) const CLUSTER_CIDR: &str = "10.128.0.0/9";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Size;

    #[test]
    fn every_kind_is_as_it_says() {
        let cluster = Cluster::new(Size { services: 100, endpoints: 10 }).unwrap();
        let [plain, affinity, ranges, local] = [10, 3, 25, 37].map(|n| service(&cluster, n));
        assert_eq!(plain["spec"]["type"], "ClusterIP");
        assert_eq!(affinity["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        assert_eq!(ranges["spec"]["loadBalancerSourceRanges"][0], "192.0.2.0/24");
        assert_eq!(ranges["spec"]["ports"][0]["nodePort"], 31_002);
        assert_eq!(local["spec"]["externalTrafficPolicy"], "Local");
        assert_eq!(local["status"]["loadBalancer"]["ingress"][0]["ip"], "198.18.0.4");
        let own = cluster.node_name(0);
        assert_eq!(slices(&cluster, 37)[0]["endpoints"][0]["nodeName"], own.as_str());
        assert_eq!(slices(&cluster, 37)[0]["endpoints"].as_array().unwrap().len(), 10);
        // What an API server says is not said to it.
        assert_eq!(plain["metadata"]["resourceVersion"], Value::Null);
        assert_eq!(served(plain)["metadata"]["resourceVersion"], "1");
    }
}
