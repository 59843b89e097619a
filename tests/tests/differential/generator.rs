//! Random Services, and random changes of them.

use std::fmt;

use rulecast_tests::network::Network;
use serde_json::{Value, json};

use crate::fixture::{Fixture, ports, slice_ports, vips};
use crate::random::Random;

/// Where the Services live: addresses and nodePorts of no fixture.
const FIRST: u8 = 120;

/// A Service in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each stands for a field of a Service")]
pub(crate) struct Model {
    number: u8,
    exists: bool,
    kind: &'static str,
    external_local: bool,
    internal_local: bool,
    sticky: bool,
    external_ip: bool,
    ranges: &'static [&'static str],
    ip_mode: &'static str,
    other_proxy: bool,
    target_port: u16,
    slices: Vec<Slice>,
}

/// One slice a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    endpoints: Vec<String>,
    headless: bool,
    /// Its port has a name that the Service does not know.
    stray: bool,
}

const RANGES: [&[&str]; 6] = [
    &[],
    &[],
    &["192.168.50.100/32", "fd00:50::64/128"],
    &["192.168.50.1/32", "10.244.2.0/24", "fd00:50::1/128"],
    &["fd00:50::64/128"],
    &["192.168.50.0/24", "192.168.50.100/32", "fd00::/16"],
];

impl Model {
    /// One that does not exist yet.
    pub(crate) fn new(number: u8) -> Self {
        Self {
            number,
            exists: false,
            kind: "ClusterIP",
            external_local: false,
            internal_local: false,
            sticky: false,
            external_ip: false,
            ranges: &[],
            ip_mode: "VIP",
            other_proxy: false,
            target_port: 8080,
            slices: Vec::new(),
        }
    }

    /// Changes something.
    pub(crate) fn change(&mut self, random: &mut Random) {
        if !self.exists {
            self.exists = true;
            self.slices = vec![slice(random, &[])];
            for _ in 0..4 {
                self.change_spec(random);
            }
            return;
        }
        match random.below(8) {
            0 if random.once_in(2) => self.exists = false,
            0..=2 => self.change_spec(random),
            3 => self.target_port = 8080 + 9090 - self.target_port,
            4 => match self.slices.len() {
                0 | 1 => self.slices.push(slice(random, &self.slices)),
                _ => drop(self.slices.pop()),
            },
            _ if self.slices.is_empty() => self.slices.push(slice(random, &[])),
            _ => {
                let index = random.below(self.slices.len());
                self.slices.remove(index);
                self.slices.push(slice(random, &self.slices));
            }
        }
    }

    fn change_spec(&mut self, random: &mut Random) {
        match random.below(8) {
            0 | 1 => self.kind = random.choose(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"]),
            2 => self.external_local = !self.external_local,
            3 => self.internal_local = !self.internal_local,
            4 => self.sticky = !self.sticky,
            5 => self.external_ip = !self.external_ip,
            6 => self.ranges = random.choose(&RANGES),
            _ => match random.below(3) {
                0 => self.other_proxy = !self.other_proxy,
                _ => self.ip_mode = random.choose(&["VIP", "Proxy"]),
            },
        }
    }

    /// The Service's name.
    pub(crate) fn name(&self) -> String {
        format!("random-{}", self.number)
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Its objects.
    pub(crate) fn fixture(&self, network: &Network) -> Fixture {
        let host = FIRST + self.number;
        let node_port = if self.kind == "ClusterIP" { 0 } else { 30_020 + u16::from(self.number) };
        let ips = [format!("10.96.0.{host}"), format!("fd00:96::{host}")];
        let mut more = json!({
            "clusterIP": ips[0], "clusterIPs": ips, "ports": ports(node_port),
            "internalTrafficPolicy": if self.internal_local { "Local" } else { "Cluster" },
            "sessionAffinity": if self.sticky { "ClientIP" } else { "None" },
        });
        if self.external_ip {
            // Addresses of its own: of two Services with one address kube-proxy serves either.
            more["externalIPs"] = json!([vips(host - 90)[1], vips(host - 90)[2]]);
        }
        if self.kind != "ClusterIP" || self.external_ip {
            // Answers that come from elsewhere do not arrive, and affinity chooses which: not both.
            let local = self.external_local && !self.sticky;
            more["externalTrafficPolicy"] = if local { "Local" } else { "Cluster" }.into();
            if local && self.kind == "LoadBalancer" {
                more["healthCheckNodePort"] = (31_200 + u16::from(self.number)).into();
            }
        }
        if self.kind == "LoadBalancer" && !self.ranges.is_empty() {
            more["loadBalancerSourceRanges"] = self.ranges.into();
        }
        let mut fixture = Fixture::new(&self.name(), self.kind, node_port, &more).at(&vips(host - 50));
        for ingress in &mut fixture.ingress {
            ingress["ipMode"] = self.ip_mode.into();
        }
        if self.other_proxy {
            fixture = fixture.label("service.kubernetes.io/service-proxy-name", "other");
        }
        for (index, slice) in self.slices.iter().enumerate() {
            slice.add_to(&mut fixture, network, index, self.target_port);
        }
        fixture
    }
}

impl Slice {
    fn add_to(&self, fixture: &mut Fixture, network: &Network, index: usize, port: u16) {
        let words: Vec<&str> = self.endpoints.iter().map(String::as_str).collect();
        let mut ports = slice_ports(port);
        if self.stray {
            ports[0]["name"] = "stray".into();
        }
        let made = crate::fixture::slices(network, &fixture.name, &format!("-{index}"), &ports, &words);
        for mut slice in made {
            if self.headless {
                slice["metadata"]["labels"]["service.kubernetes.io/headless"] = Value::from("");
            }
            fixture.slices.push(slice);
        }
    }
}

fn slice(random: &mut Random, others: &[Slice]) -> Slice {
    // Hints count only when all endpoints have them, so that most slices have all or none.
    let hints = random.below(4);
    let mut endpoints: Vec<String> = Vec::new();
    for pod in ["a1", "a2", "b1", "b2"] {
        if random.once_in(3) {
            continue;
        }
        // Of an endpoint in two slices kube-proxy takes either: they have to say the same.
        let other = others.iter().flat_map(|o| &o.endpoints).find(|words| words.starts_with(pod));
        if let Some(words) = other {
            endpoints.push(words.clone());
            continue;
        }
        let mut words = pod.to_owned();
        words += random.choose(&[
            "",
            "",
            "",
            "",
            ":unready",
            ":terminating",
            ":terminating",
            ":dead",
            ":published",
        ]);
        match hints {
            0 => words += random.choose(&[":zone-a", ":zone-b", ":zone-c", ":zone-a:zone-b"]),
            1 => words += random.choose(&[":node-a", ":node-b", ":node-c", ":node-a:zone-b"]),
            2 if random.once_in(6) => words += ":zone-a",
            _ => {}
        }
        endpoints.push(words);
    }
    Slice { endpoints, headless: random.once_in(15), stray: random.once_in(10) }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exists {
            return write!(f, "{}: deleted", self.name());
        }
        write!(f, "{}: {}", self.name(), self.kind)?;
        for (is, word) in [
            (self.external_local, "externalTrafficPolicy Local"),
            (self.internal_local, "internalTrafficPolicy Local"),
            (self.sticky, "ClientIP"),
            (self.external_ip, "externalIPs"),
            (self.other_proxy, "service-proxy-name"),
        ] {
            if is {
                write!(f, ", {word}")?;
            }
        }
        write!(f, ", ranges {:?}, {}, port {}", self.ranges, self.ip_mode, self.target_port)?;
        for slice in &self.slices {
            let more = if slice.headless { " headless" } else { "" };
            let stray = if slice.stray { " stray" } else { "" };
            write!(f, "; slice{more}{stray} {}", slice.endpoints.join(" "))?;
        }
        Ok(())
    }
}
