//! The Services that are compared.

use rulecast_tests::network::Network;
use serde_json::{Value, json};

use crate::fixture::{Fixture, ports, slice_ports, vips};

/// Numbers their nodePorts and addresses.
struct Maker<'a> {
    network: &'a Network,
    number: u8,
    made: Vec<Fixture>,
}

const EVERYBODY: [&str; 4] = ["a1", "a2", "b1", "b2"];
const ALL_ANSWER: &str = "a1 a2 b1 b2";

impl Maker<'_> {
    /// A Service with cluster IPs, a nodePort, and load balancer addresses that lead to both nodes.
    fn lb(&mut self, name: &str, more: &Value, endpoints: &[&str], expected: &'static str) {
        let made = self.bare_lb(name, more).slices(self.network, endpoints);
        self.made.push(made.expect(expected));
    }

    fn bare_lb(&mut self, name: &str, more: &Value) -> Fixture {
        let node_port = self.node_port();
        let mut more = more.clone();
        if more["externalTrafficPolicy"] == "Local" {
            // The API server would take one that is needed below.
            more["healthCheckNodePort"] = (31_000 + u16::from(self.number)).into();
        }
        Fixture::new(name, "LoadBalancer", node_port, &more).at(&vips(self.number))
    }

    fn node_port(&mut self) -> u16 {
        self.number += 1;
        30_200 + u16::from(self.number)
    }

    /// A Service with cluster IPs and a nodePort.
    fn np(&mut self, name: &str, endpoints: &[&str], expected: &'static str) {
        let node_port = self.node_port();
        let made = Fixture::new(name, "NodePort", node_port, &json!({})).slices(self.network, endpoints);
        self.made.push(made.expect(expected));
    }
}

/// A Service with cluster IPs only.
fn plain(name: &str) -> Fixture {
    Fixture::new(name, "ClusterIP", 0, &json!({}))
}

/// All of them.
pub(crate) fn all(network: &Network) -> Vec<Fixture> {
    let mut maker = Maker { network, number: 0, made: Vec::new() };
    policies(&mut maker);
    conditions(&mut maker);
    hints(&mut maker);
    source_ranges(&mut maker);
    addresses(&mut maker);
    affinity(&mut maker);
    slices(&mut maker);
    labels_and_types(&mut maker);
    maker.made
}

fn policies(m: &mut Maker<'_>) {
    let external = json!({ "externalTrafficPolicy": "Local" });
    let internal = json!({ "internalTrafficPolicy": "Local" });
    let both = json!({ "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local" });
    m.lb("default", &json!({}), &EVERYBODY, ALL_ANSWER);
    m.lb("external-local", &external, &["a1", "b1", "b2"], "a1 b1 b2");
    m.lb("external-local-on-a", &external, &["a1", "a2"], "a1 a2");
    m.lb("external-local-on-b", &external, &["b1"], "b1");
    m.lb("external-local-empty", &external, &[], "refused");
    m.lb("internal-local", &internal, &["a1", "a2", "b1"], "a1 a2");
    m.lb("internal-local-on-a", &internal, &["a1"], "a1");
    m.lb("internal-local-on-b", &internal, &["b1", "b2"], "no answer");
    m.lb("internal-local-empty", &internal, &[], "refused");
    m.lb("both-local", &both, &["a1", "b1", "b2"], "a1");
    m.lb("both-local-on-b", &both, &["b1"], "no answer");
    m.lb("host-network", &json!({}), &["node-a", "node-b"], "node-a node-b");
    m.lb("host-network-local", &both, &["node-a", "b1"], "node-a");
}

fn conditions(m: &mut Maker<'_>) {
    let external = json!({ "externalTrafficPolicy": "Local" });
    let both = json!({ "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local" });
    m.lb("terminating-beside-ready", &json!({}), &["a1", "a2:terminating", "b1", "b2:terminating"], "a1 b1");
    m.lb("only-terminating", &json!({}), &["a1:terminating", "b1:terminating", "b2:dead"], "a1 b1");
    m.lb("only-terminating-local", &both, &["a1:terminating", "a2:dead", "b1:dead"], "a1");
    m.lb("ready-remote", &external, &["a1:terminating", "b1"], "b1");
    m.lb("ready-remote-both", &both, &["a1:terminating", "b1"], "a1");
    m.lb("terminating-remote", &external, &["b1:terminating"], "b1");
    m.lb("dead-remote", &external, &["a1", "b1:dead"], "a1");
    m.lb("all-dead", &both, &["a1:dead", "b1:dead"], "refused");
    m.lb("all-unready", &json!({}), &["a1:unready", "b1:unready"], "refused");
    m.np("serving-only", &["a1:serving", "b1:unready"], "refused");
    m.np("serving-beside-ready", &["a1:serving", "b1"], "b1");
    m.np("published", &["a1:published", "b1"], "a1 b1");
    m.np("conditions-unknown", &["a1:nil", "b1:nil"], "a1 b1");
    m.lb("nowhere", &both, &["a1:nowhere", "b1"], "no answer");
    m.np("endpoints-empty", &[], "refused");
    let node_port = m.node_port();
    m.made.push(Fixture::new("no-slices", "NodePort", node_port, &json!({})).expect("refused"));
}

fn hints(m: &mut Maker<'_>) {
    m.np("zones", &["a1:zone-a", "a2:zone-a", "b1:zone-b", "b2:zone-b"], "a1 a2");
    m.np("zones-crossed", &["a1:zone-b", "b1:zone-a"], "b1");
    m.np("zones-several", &["a1:zone-a:zone-b", "b1:zone-b"], "a1");
    m.np("zones-one-unhinted", &["a1:zone-a", "b1:zone-b", "b2"], "a1 b1 b2");
    m.np("zones-of-nobody", &["a1:zone-c", "b1:zone-c"], "a1 b1");
    m.np("zones-of-b-only", &["a1:zone-b", "b1:zone-b"], "a1 b1");
    m.np("zones-unready-unhinted", &["a1:zone-a", "b1:zone-b", "b2:unready"], "a1");
    m.np("zones-ready-elsewhere", &["a1:unready:zone-a", "b1:zone-b"], "b1");
    m.np("zones-terminating", &["a1:terminating:zone-a", "b1:terminating:zone-b"], "a1 b1");
    m.np("nodes", &["a1:node-a", "a2:node-a", "b1:node-b"], "a1 a2");
    m.np("nodes-one-unhinted", &["a1:node-a", "b1"], "a1 b1");
    m.np("nodes-of-nobody", &["a1:node-c:zone-a", "b1:node-c:zone-b"], "a1");
    m.np("nodes-of-a-only", &["a1:node-a", "b1:node-a"], "a1 b1");
    m.np("nodes-before-zones", &["a1:node-a:zone-b", "a2:node-b:zone-a", "b1:node-b:zone-b"], "a1");
    m.np("nodes-incomplete-with-zones", &["a1:zone-a", "a2:node-a:zone-a", "b1:node-b:zone-b"], "a1 a2");
    let local = json!({ "externalTrafficPolicy": "Local" });
    m.lb("zones-external-local", &local, &["a1:zone-b", "a2:zone-b", "b1:zone-a"], "b1");
    let local = json!({ "internalTrafficPolicy": "Local" });
    m.lb("zones-internal-local", &local, &["a1:zone-b", "b1:zone-a"], "a1");
}

fn source_ranges(m: &mut Maker<'_>) {
    let ranges = |list: &[&str]| json!({ "loadBalancerSourceRanges": list });
    let client = ["192.168.50.100/32", "fd00:50::64/128"];
    m.lb("ranges", &ranges(&client), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-empty", &ranges(&client), &[], "refused");
    m.lb("ranges-node-a", &ranges(&["192.168.50.1/32", "fd00:50::1/128"]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-nodes", &ranges(&["192.168.50.0/27", "fd00:50::/123"]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-vip", &ranges(&["203.0.113.0/24", "2001:db8:113::/64"]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-pods", &ranges(&["10.244.1.0/24", "fd00:244:0:1::/64"]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-v4", &ranges(&client[..1]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-v6", &ranges(&client[1..]), &EVERYBODY, ALL_ANSWER);
    m.lb("ranges-v6-empty", &ranges(&client[1..]), &[], "refused");
    m.lb("ranges-everybody", &ranges(&["0.0.0.0/0", "::/0"]), &EVERYBODY, ALL_ANSWER);
    m.lb(
        "ranges-overlapping",
        &ranges(&["192.168.50.100/32", "192.168.50.96/28", "fd00:50::60/124"]),
        &EVERYBODY,
        ALL_ANSWER,
    );
    let mut local = ranges(&client);
    local["externalTrafficPolicy"] = "Local".into();
    m.lb("ranges-external-local", &local, &["a1"], "a1");
    let mut both = ranges(&client);
    // The same address as load balancer address and as externalIP.
    both["externalIPs"] = json!([vips(m.number + 1)[0], vips(m.number + 1)[2]]);
    m.lb("ranges-and-external-ip", &both, &EVERYBODY, ALL_ANSWER);
}

fn addresses(m: &mut Maker<'_>) {
    let external = |number: u8| json!({ "externalIPs": vips(number) });
    let made = Fixture::new("external-ip", "ClusterIP", 0, &external(100));
    m.made.push(made.slices(m.network, &EVERYBODY).expect(ALL_ANSWER));
    let mut local = external(101);
    local["externalTrafficPolicy"] = "Local".into();
    let made = Fixture::new("external-ip-local", "ClusterIP", 0, &local);
    m.made.push(made.slices(m.network, &["a1", "b1"]).expect("a1 b1"));
    let made = Fixture::new("external-ip-empty", "ClusterIP", 0, &external(102));
    m.made.push(made.slices(m.network, &[]).expect("refused"));
    // Another Service's load balancer address, at another port.
    m.lb("vip-shared", &json!({}), &["a1"], "a1");
    let mut other = external(m.number);
    other["ports"] = json!([{ "name": "tcp", "protocol": "TCP", "port": 88, "targetPort": 8080 }]);
    let made = Fixture::new("vip-shared-as-external-ip", "ClusterIP", 0, &other);
    m.made.push(made.slices(m.network, &["b1"]).expect("b1"));

    let mut made = m.bare_lb("ip-mode-proxy", &json!({})).slices(m.network, &EVERYBODY).expect(ALL_ANSWER);
    for ingress in &mut made.ingress {
        ingress["ipMode"] = "Proxy".into();
    }
    m.made.push(made);
    let mut made = m.bare_lb("host-name", &json!({})).slices(m.network, &["a1"]).expect("a1");
    made.ingress.truncate(2);
    made.ingress[0] = json!({ "hostname": "lb.example.org" });
    m.made.push(made);
    let more = json!({ "allocateLoadBalancerNodePorts": false });
    let made = Fixture::new("no-node-ports", "LoadBalancer", 0, &more).at(&vips(103));
    m.made.push(made.slices(m.network, &EVERYBODY).expect(ALL_ANSWER));
    let made = Fixture::new("only-v4", "NodePort", m.node_port(), &single("IPv4"));
    m.made.push(made.slices(m.network, &EVERYBODY).expect(ALL_ANSWER));
    let made = Fixture::new("only-v6", "LoadBalancer", m.node_port(), &single("IPv6")).at(&vips(104));
    m.made.push(made.slices(m.network, &EVERYBODY).expect(ALL_ANSWER));
}

fn single(family: &str) -> Value {
    json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": [family] })
}

fn affinity(m: &mut Maker<'_>) {
    // All on one node: answers from elsewhere than the connection went through do not arrive, and who is chosen is chance.
    let sticky = json!({ "sessionAffinity": "ClientIP" });
    m.lb("affinity", &sticky, &["a1", "a2"], "one pod");
    let mut local = sticky.clone();
    local["externalTrafficPolicy"] = "Local".into();
    m.lb("affinity-external-local", &local, &["b1", "b2"], "one pod");
    let mut local = sticky.clone();
    local["internalTrafficPolicy"] = "Local".into();
    m.lb("affinity-internal-local", &local, &["a2", "b1", "b2"], "a2");
    m.lb("affinity-empty", &sticky, &[], "refused");
}

fn slices(m: &mut Maker<'_>) {
    let more = |m: &mut Maker<'_>, name: &str| Fixture::new(name, "NodePort", m.node_port(), &json!({}));
    let made = more(m, "several-slices").slices_with(m.network, "-1", &slice_ports(8080), &["a1", "b1"]);
    let made = made.slices_with(m.network, "-2", &slice_ports(8080), &["b1", "b2"]);
    m.made.push(made.slices_with(m.network, "-3", &slice_ports(9090), &["a2"]).expect("a1 a2 b1 b2"));
    let made =
        more(m, "slices-that-disagree").slices_with(m.network, "-1", &slice_ports(8080), &["a1", "b1"]);
    m.made.push(made.slices_with(m.network, "-2", &slice_ports(9090), &["b1"]).expect("a1 b1"));
    let made = more(m, "ports-null").slices_with(m.network, "", &Value::Null, &["a1"]);
    m.made.push(made.expect("refused"));
    let made = more(m, "ports-empty").slices_with(m.network, "", &json!([]), &["a1"]);
    m.made.push(made.expect("refused"));
    let other = json!([{ "name": "http", "protocol": "TCP", "port": 8080 }]);
    let made = more(m, "port-of-another-name").slices_with(m.network, "", &other, &["a1"]);
    m.made.push(made.expect("refused"));
    let other = json!([{ "name": "tcp", "protocol": "UDP", "port": 8080 }]);
    let made = more(m, "port-of-another-protocol").slices_with(m.network, "", &other, &["a1"]);
    m.made.push(made.expect("refused"));
    m.np("several-addresses", &["a1:and-a3", "b1"], "a1 b1");
    let number = m.node_port();
    let several = json!({ "ports": [
        { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": number },
        { "name": "udp", "protocol": "UDP", "port": 80, "targetPort": 9090, "nodePort": number },
        { "name": "sctp", "protocol": "SCTP", "port": 80, "targetPort": 8080, "nodePort": number },
        { "name": "more", "protocol": "TCP", "port": 81, "targetPort": 9090, "nodePort": 30_190 },
    ]});
    let of_slice = json!([
        { "name": "tcp", "protocol": "TCP", "port": 8080 }, { "name": "udp", "protocol": "UDP", "port": 9090 },
        { "name": "sctp", "protocol": "SCTP", "port": 8080 }, { "name": "more", "protocol": "TCP", "port": 9090 },
    ]);
    let made = Fixture::new("several-ports", "LoadBalancer", 0, &several).at(&vips(m.number));
    m.made.push(made.slices_with(m.network, "", &of_slice, &["a1", "b1"]).expect("a1 b1"));
}

fn labels_and_types(m: &mut Maker<'_>) {
    const NAME: &str = "service.kubernetes.io/service-proxy-name";
    const HEADLESS: &str = "service.kubernetes.io/headless";
    let made = plain("another-proxy").slices(m.network, &["a1"]).label(NAME, "other");
    m.made.push(made.expect("no answer"));
    let made = plain("another-proxy-slice").slices(m.network, &["a1"]).slice_label(NAME, "other");
    m.made.push(made.expect("a1"));
    let made = plain("headless-label").slices(m.network, &["a1"]).label(HEADLESS, "");
    m.made.push(made.expect("a1"));
    let made = plain("headless-slice").slices(m.network, &["a1"]).slice_label(HEADLESS, "");
    m.made.push(made.expect("refused"));
    let headless = Fixture::new("headless", "ClusterIP", 0, &json!({ "clusterIP": "None" }));
    m.made.push(headless.slices(m.network, &["a1"]));
    let mut external = plain("external-name").slices(m.network, &["a1"]);
    external.service["spec"] =
        json!({ "type": "ExternalName", "externalName": "example.org", "ports": ports(0) });
    m.made.push(external);
}
