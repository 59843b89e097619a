//! The network of a small cluster: a switch at which the API server listens, two nodes, their pods, and a client that is
//! none of them.
//!
//! Every namespace sends what it does not know to the switch, and there it is unreachable: nothing leaves the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;

use crate::namespace::{self, Namespace};
use crate::serve;

/// The switch's addresses; the API server's, too.
pub const HUB: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 254);
const HUB6: &str = "fd00:50::fe";
/// Addresses that load balancers give out; the switch sends them to the first node.
pub const LOAD_BALANCER: &str = "203.0.113.0/24";
const LOAD_BALANCER6: &str = "2001:db8:113::/64";
/// The addresses of all pods.
pub const POD_CIDRS: &str = "10.244.0.0/16,fd00:244::/56";

/// A pod: a namespace behind its node.
#[derive(Debug)]
pub struct Pod {
    /// Its name, which its servers answer.
    pub name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Where it runs.
    pub namespace: Namespace,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Its pods' addresses.
    pub pod_cidrs: [String; 2],
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Its own namespace, in which the rules are.
    pub namespace: Namespace,
}

/// Everything.
#[derive(Debug)]
pub struct Network {
    /// The nodes, `node-a` and `node-b`.
    pub nodes: Vec<Node>,
    /// A client outside of the cluster, with a route to the load balancers' addresses and to the nodes.
    pub client: Client,
    /// The switch, where control plane and controller run.
    pub hub: Namespace,
}

/// The client outside.
#[derive(Debug)]
pub struct Client {
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Where it runs.
    pub namespace: Namespace,
}

impl Network {
    /// Makes it, with so many pods on each node, in namespaces whose names begin with `prefix`.
    pub fn new(prefix: &str, pods: u8) -> anyhow::Result<Self> {
        namespace::require(&["ip"])?;
        namespace::remove_leftovers(prefix)?;
        let prefix = format!("{prefix}-{}", std::process::id());
        let hub = Namespace::new(&format!("{prefix}-hub")).context(
            "no network namespace can be made here although this is root: in a container, give it CAP_SYS_ADMIN",
        )?;
        hub.ip("link add switch type bridge")?;
        hub.ip(&format!("addr add {HUB}/24 dev switch"))?;
        hub.ip(&format!("addr add {HUB6}/64 dev switch nodad"))?;
        hub.ip("link set switch up")?;
        unreachable_default(&hub)?;

        let client_namespace = Namespace::new(&format!("{prefix}-client"))?;
        let (v4, v6) = attach(&hub, &client_namespace, "client", 100)?;
        let client = Client { v4, v6, namespace: client_namespace };
        let mut nodes = Vec::new();
        for (number, letter) in [(1, "a"), (2, "b")] {
            nodes.push(node(&prefix, &hub, number, letter, pods)?);
        }
        for prefix in [LOAD_BALANCER, LOAD_BALANCER6] {
            let node = &nodes[0];
            let via = if prefix.contains(':') { node.v6 } else { node.v4 };
            client.namespace.ip(&format!("route add {prefix} via {via}"))?;
        }
        Ok(Self { nodes, client, hub })
    }

    /// A pod by name.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.nodes.iter().flat_map(|n| &n.pods).find(|p| p.name == name);
        pod.unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// The node that a pod is on.
    #[must_use]
    pub fn node_of(&self, pod: &str) -> &Node {
        let node = self.nodes.iter().find(|n| n.pods.iter().any(|p| p.name == pod));
        node.unwrap_or_else(|| panic!("there is no pod {pod}"))
    }
}

impl Network {
    /// Joins one more client to the switch, without routes of its own; `host` is the end of its addresses.
    pub fn add_client(&self, prefix: &str, host: u8) -> anyhow::Result<Client> {
        let namespace = Namespace::new(&format!("{prefix}-{}-client-{host}", std::process::id()))?;
        let (v4, v6) = attach(&self.hub, &namespace, &format!("client-{host}"), host)?;
        Ok(Client { v4, v6, namespace })
    }
}

fn unreachable_default(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.ip("-4 route add unreachable default")?;
    namespace.ip("-6 route add unreachable default")
}

/// Joins a namespace to the switch and gives it addresses.
fn attach(hub: &Namespace, namespace: &Namespace, port: &str, host: u8) -> anyhow::Result<(IpAddr, IpAddr)> {
    let v4 = Ipv4Addr::new(192, 168, 50, host);
    let v6 = Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, host.into());
    hub.ip(&format!("link add {port} type veth peer name eth0 netns {}", namespace.name()))?;
    hub.ip(&format!("link set {port} master switch up"))?;
    namespace.ip(&format!("addr add {v4}/24 dev eth0"))?;
    namespace.ip(&format!("addr add {v6}/64 dev eth0 nodad"))?;
    namespace.ip("link set eth0 up")?;
    namespace.ip(&format!("-4 route add default via {HUB}"))?;
    namespace.ip(&format!("-6 route add default via {HUB6}"))?;
    Ok((v4.into(), v6.into()))
}

fn node(prefix: &str, hub: &Namespace, number: u8, letter: &str, pods: u8) -> anyhow::Result<Node> {
    let name = format!("node-{letter}");
    let namespace = Namespace::new(&format!("{prefix}-{name}"))?;
    let (v4, v6) = attach(hub, &namespace, &name, number)?;
    let pod_cidrs = [format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64")];
    for (cidr, via) in pod_cidrs.iter().zip([v4, v6]) {
        hub.ip(&format!("route add {cidr} via {via}"))?;
    }
    let mut made = Vec::new();
    for index in 1..=pods {
        made.push(pod(prefix, &namespace, number, &format!("{letter}{index}"), index)?);
    }
    // What is left of the pods' addresses is nobody's.
    for cidr in &pod_cidrs {
        namespace.ip(&format!("route add unreachable {cidr}"))?;
    }
    Ok(Node { name, v4, v6, pod_cidrs, pods: made, namespace })
}

/// A pod with one address of each family, routed by its node, as most network plugins do it.
fn pod(prefix: &str, node: &Namespace, number: u8, name: &str, index: u8) -> anyhow::Result<Pod> {
    let namespace = Namespace::new(&format!("{prefix}-pod-{name}"))?;
    let host = 10 + index;
    let v4 = Ipv4Addr::new(10, 244, number, host);
    let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, number.into(), 0, 0, 0, host.into());
    let gateway = Ipv4Addr::new(10, 244, number, 254);
    let port = format!("pod-{name}");
    node.ip(&format!("link add {port} type veth peer name eth0 netns {}", namespace.name()))?;
    node.ip(&format!("addr add {gateway}/32 dev {port}"))?;
    node.ip(&format!("addr add fe80::fe/64 dev {port} nodad"))?;
    node.ip(&format!("link set {port} up"))?;
    namespace.ip(&format!("addr add {v4}/32 dev eth0"))?;
    namespace.ip(&format!("addr add {v6}/128 dev eth0 nodad"))?;
    namespace.ip("link set eth0 up")?;
    namespace.ip(&format!("route add {gateway} dev eth0"))?;
    namespace.ip(&format!("-4 route add default via {gateway}"))?;
    namespace.ip("-6 route add default via fe80::fe dev eth0")?;
    node.ip(&format!("route add {v4}/32 dev {port}"))?;
    node.ip(&format!("route add {v6}/128 dev {port}"))?;
    serve::start(&namespace, name)?;
    Ok(Pod { name: name.to_owned(), v4: v4.into(), v6: v6.into(), namespace })
}
