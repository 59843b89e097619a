//! Traffic from outside of the cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use rulecast_tests::cluster::Cluster;
use rulecast_tests::network::Node;
use rulecast_tests::objects::{ready, service};
use rulecast_tests::probe::{self, Answer};
use serde_json::json;

use crate::traffic::{PROTOS, answered_by, ends_in, inside};

/// Both protocols on the same nodePort, which the default allocation would not give.
fn ports(node_port: u16) -> serde_json::Value {
    json!([
        { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": node_port },
        { "name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080, "nodePort": node_port },
    ])
}

fn at(node: &Node, port: u16) -> [SocketAddr; 2] {
    [node.v4, node.v6].map(|ip| SocketAddr::new(ip, port))
}

pub(crate) fn node_ports_answer_on_every_node(c: &mut Cluster) -> anyhow::Result<()> {
    let port = 30_100;
    c.set_service(&service("np", "NodePort", &json!({ "ports": ports(port) })))?;
    c.set_endpoints("np", 8080, &[ready("a1"), ready("b1")])?;
    let outside = &c.network.client;
    for node in &c.network.nodes {
        answered_by(&[&outside.namespace, &c.network.pod("b3").namespace], &at(node, port), &["a1", "b1"])?;
    }
    // The answer has to come back through the node that was asked, so that the node puts its own address.
    for (proto, to) in PROTOS.iter().flat_map(|proto| at(&c.network.nodes[0], port).map(|to| (*proto, to))) {
        let peer = probe::connect(&outside.namespace, proto, to)?.peer()?;
        ensure!(peer != outside.v4 && peer != outside.v6, "{proto:?} {to}: the pod sees {peer}");
    }
    c.set_endpoints("np", 8080, &[])?;
    ends_in(&[&outside.namespace], &at(&c.network.nodes[1], port), &Answer::Refused)?;
    // The node's own servers are reached again when the nodePort is nobody's.
    c.delete_service("np")?;
    ends_in(&[&outside.namespace], &at(&c.network.nodes[1], port), &Answer::Refused)
}

pub(crate) fn load_balancer_addresses_come_and_go(c: &mut Cluster) -> anyhow::Result<()> {
    let made = c.set_service(&service("lb", "LoadBalancer", &json!({})))?;
    c.set_endpoints("lb", 8080, &[ready("a1"), ready("b1")])?;
    let outside = &c.network.client.namespace;
    let vips: [IpAddr; 2] = ["203.0.113.10".parse()?, "2001:db8:113::10".parse()?];
    let to = vips.map(|ip| SocketAddr::new(ip, 80));
    ends_in(&[outside], &to, &Answer::Unreachable)?;
    c.set_ingress("lb", &vips)?;
    answered_by(&[outside], &to, &["a1", "b1"])?;
    answered_by(&inside(c), &to, &["a1", "b1"])?;
    answered_by(&inside(c), &made.cluster, &["a1", "b1"])?;

    // Only for some clients.
    let range = |cidrs: &[&str]| {
        let patch = json!({ "spec": { "loadBalancerSourceRanges": cidrs } }).to_string();
        c.kubectl(&["patch", "service", "lb", "--type=merge", "-p", &patch]).map(drop)
    };
    range(&["198.51.100.0/24", "2001:db8:51::/64"])?;
    ends_in(&[outside], &to, &Answer::Silence)?;
    answered_by(&inside(c), &made.cluster, &["a1", "b1"])?;
    range(&["198.51.100.0/24", "2001:db8:51::/64", "192.168.50.100/32", "fd00:50::64/128"])?;
    answered_by(&[outside], &to, &["a1", "b1"])?;

    c.set_ingress("lb", &vips[..1])?;
    ends_in(&[outside], &to[1..], &Answer::Unreachable)?;
    answered_by(&[outside], &to[..1], &["a1", "b1"])?;
    c.delete_service("lb")?;
    ends_in(&[outside], &to, &Answer::Unreachable)
}

pub(crate) fn policy_local_keeps_the_client_address(c: &mut Cluster) -> anyhow::Result<()> {
    let port = 30_101;
    let more = json!({ "ports": ports(port), "externalTrafficPolicy": "Local" });
    c.set_service(&service("local", "LoadBalancer", &more))?;
    c.set_endpoints("local", 8080, &[ready("a1")])?;
    let vips: [IpAddr; 2] = ["203.0.113.11".parse()?, "2001:db8:113::11".parse()?];
    c.set_ingress("local", &vips)?;
    let outside = &c.network.client;
    let (on_a, on_b) = (at(&c.network.nodes[0], port), at(&c.network.nodes[1], port));
    let lb = vips.map(|ip| SocketAddr::new(ip, 80));
    answered_by(&[&outside.namespace], &on_a, &["a1"])?;
    answered_by(&[&outside.namespace], &lb, &["a1"])?;
    for (proto, to) in PROTOS.iter().flat_map(|proto| [on_a, lb].concat().into_iter().map(|to| (*proto, to)))
    {
        let peer = probe::connect(&outside.namespace, proto, to)?.peer()?;
        ensure!(peer == outside.v4 || peer == outside.v6, "{proto:?} {to}: the pod sees {peer}");
    }
    // A node without an endpoint drops what comes from outside, and serves its own pods.
    ends_in(&[&outside.namespace], &on_b, &Answer::Silence)?;
    answered_by(&[&c.network.pod("b3").namespace], &[on_b, lb].concat(), &["a1"])?;
    // The endpoint moves.
    c.set_endpoints("local", 8080, &[ready("b1"), ready("b2")])?;
    answered_by(&[&outside.namespace], &on_b, &["b1", "b2"])?;
    ends_in(&[&outside.namespace], &[on_a, lb].concat(), &Answer::Silence)?;
    c.delete_service("local")
}
