//! A world: two nodes, their pods and two clients outside; the same addresses in each world.

use std::net::IpAddr;

use rulecast_tests::namespace::Namespace;
use rulecast_tests::network::{Client, Network};
use rulecast_tests::process::Process;
use rulecast_tests::serve;

/// The end of the addresses of the client that no source range lets in.
const SECOND_CLIENT: u8 = 101;

/// A world.
pub(crate) struct World {
    /// Who serves Services in it.
    pub(crate) proxy: &'static str,
    /// In the order of the nodes.
    pub(crate) proxies: Vec<Process>,
    /// The client that no source range lets in.
    pub(crate) blocked: Client,
    /// Its namespaces.
    pub(crate) network: Network,
}

impl World {
    /// Makes it.
    pub(crate) fn new(prefix: &str, proxy: &'static str) -> anyhow::Result<Self> {
        let network = Network::new(prefix, 3)?;
        let blocked = network.add_client(prefix, SECOND_CLIENT)?;
        void(&network.hub)?;
        for (node, number) in network.nodes.iter().zip(1..) {
            for (addr, size) in secondary(number).into_iter().zip([24, 64]) {
                let nodad = if addr.is_ipv6() { "nodad" } else { "" };
                node.namespace.ip(&format!("addr add {addr}/{size} dev eth0 {nodad}"))?;
            }
            // Pods in the node's own network.
            serve::start(&node.namespace, &node.name)?;
        }
        // Half of the load balancers' addresses lead to the second node; the first node takes what is sent to cluster
        // IPs from outside.
        for client in [&network.client, &blocked] {
            for (prefix, node) in [
                ("203.0.113.0/25", 0),
                ("203.0.113.128/25", 1),
                ("10.96.0.0/16", 0),
                ("2001:db8:113::/65", 0),
                ("2001:db8:113:0:8000::/65", 1),
                ("fd00:96::/112", 0),
            ] {
                let node = &network.nodes[node];
                let via = if prefix.contains("::") { node.v6 } else { node.v4 };
                client.namespace.ip(&format!("route add {prefix} via {via}"))?;
            }
        }
        Ok(Self { proxy, proxies: Vec::new(), blocked, network })
    }

    /// Joins the nodes to the API server's switch, with the addresses after `first`, by an interface that carries nothing else.
    pub(crate) fn join(&self, hub: &Namespace, first: u8) -> anyhow::Result<()> {
        for (node, number) in self.network.nodes.iter().zip(1..) {
            let host = first + number;
            let port = format!("node-{host}");
            hub.ip(&format!("link add {port} type veth peer name mgmt netns {}", node.namespace.name()))?;
            hub.ip(&format!("link set {port} master switch up"))?;
            node.namespace.ip(&format!("addr add 192.168.77.{host}/24 dev mgmt"))?;
            node.namespace.ip("link set mgmt up")?;
        }
        Ok(())
    }

    /// What an address is, in the words of a report.
    pub(crate) fn describe(&self, addr: IpAddr) -> String {
        for (node, number) in self.network.nodes.iter().zip(1..) {
            if addr == node.v4 || addr == node.v6 {
                return node.name.clone();
            }
            if secondary(number).contains(&addr) {
                return format!("{}'s second address", node.name);
            }
            if addr == IpAddr::from([10, 244, number, 254]) {
                return format!("{}'s gateway", node.name);
            }
            if let Some(pod) = node.pods.iter().find(|pod| addr == pod.v4 || addr == pod.v6) {
                return pod.name.clone();
            }
        }
        addr.to_string()
    }
}

/// What is addressed to nobody is refused by the switch: a route would say so, too, but only now and then.
fn void(hub: &Namespace) -> anyhow::Result<()> {
    hub.ip("link add void type veth peer name void-end")?;
    hub.ip("link set void up")?;
    for family in ["-4", "-6"] {
        hub.ip(&format!("{family} route del unreachable default"))?;
        hub.ip(&format!("{family} route add default dev void"))?;
    }
    for (tool, answer) in
        [("iptables-legacy", "icmp-host-unreachable"), ("ip6tables-legacy", "icmp6-addr-unreachable")]
    {
        let rule = ["-A", "FORWARD", "-o", "void", "-j", "REJECT", "--reject-with", answer];
        hub.output(tool, &rule)?;
    }
    Ok(())
}

/// The second addresses of a node, both families.
pub(crate) fn secondary(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::from([192, 168, 50, 10 + number]),
        IpAddr::from([0xfd00, 0x50, 0, 0, 0, 0, 0, 0x10 + u16::from(number)]),
    ]
}
