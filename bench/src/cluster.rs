//! A synthetic cluster, the same for every benchmark and on every machine.
//!
//! What it is:
//! - Every Service has one cluster IP, from all over 10.96.0.0/12, and one TCP port, mostly 80, 8080 or 443, without
//!   topology hints. Of ten Services one has session affinity; one has a policy Local, in turn internalTrafficPolicy, and
//!   externalTrafficPolicy with a load balancer's address and a nodePort.
//! - Every Service has the same number of endpoints, one target port, and EndpointSlices of up to 100 endpoints.
//! - Pods lie on 500 nodes in three zones, about 200 a node at most (more pods: more nodes). Each node has a /24 of
//!   10.128.0.0/9. A Service's pods are on pseudo-random nodes, at pseudo-random addresses, and no two Services share one.
//! - Names are what people and controllers choose: words, numbers and hexadecimal hashes.
//!
//! It is not made to compress well: addresses and placement are pseudo-random, so an endpoint of a checkpoint costs
//! about what its bits of entropy do. Everything follows from an index by a keyed permutation; nothing is kept, so that
//! the generator's memory is not taken for the compiler's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rulecast_bundle::Mode;
use rulecast_bundle::Proto;
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, Options, Pool, Service, ServicePort, Slice, SlicePort,
};

/// The pool that every node is in.
pub const POOL: &str = "default";
/// The most endpoints of a slice, the Kubernetes default.
const SLICE: u32 = 100;
/// The fewest nodes.
const NODES: u32 = 500;
/// Pods of a node, on average, when every Service is there.
const PODS_PER_NODE: u32 = 200;
/// Addresses of a node's /24 that pods get: not the network, the bridge or the broadcast address.
const ADDRESSES_PER_NODE: u32 = 252;
const MAX_SERVICES: u32 = 500_000;
const MAX_PODS: u64 = 5_000_000;

/// Addresses that load balancers give out, and as many nodePorts as there are.
const BALANCER_NET: u32 = 198 << 24 | 18 << 16;
const NODE_PORTS: u32 = 2768;

/// A load balancer with externalTrafficPolicy Local.
fn balanced(service: Service, number: u32) -> Service {
    let mut service =
        Service { external_local: true, load_balancer_ips: vec![v4(BALANCER_NET + number)], ..service };
    let node_port = u16::try_from(number).ok().filter(|n| u32::from(*n) < NODE_PORTS).map(|n| 30_000 + n);
    service.ports.iter_mut().for_each(|port| port.node_port = node_port);
    service
}

const SERVICE_NET: u32 = 10 << 24 | 96 << 16;
/// Addresses of a /12, without the first ten, which clusters keep for DNS and the like, and the last.
const SERVICE_ADDRESSES: u64 = (1 << 20) - 11;
const POD_NET: u32 = 10 << 24 | 128 << 16;
const NODE_NET: u32 = 172 << 24 | 16 << 16;

/// How large a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

/// A cluster; see the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    size: Size,
    nodes: u32,
    mode: Mode,
}

impl Cluster {
    /// A cluster of a size that fits the address ranges.
    pub fn new(size: Size) -> Result<Self> {
        let Size { services, endpoints } = size;
        let pods = u64::from(services) * u64::from(endpoints);
        ensure!(services > 0 && endpoints > 0, "a cluster has at least one Service and one endpoint");
        ensure!(services <= MAX_SERVICES, "at most {MAX_SERVICES} Services fit the range of cluster IPs");
        ensure!(pods <= MAX_PODS, "{services} x {endpoints} is {pods} pods; at most {MAX_PODS} fit");
        let nodes = u32::try_from(pods)?.div_ceil(PODS_PER_NODE).max(NODES);
        Ok(Self { size, nodes, mode: Mode::default() })
    }

    /// The same, with a pool of another mode than nftables.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The pool's mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The pool's configuration: kube-proxy's defaults, with the cluster's ranges.
    #[must_use]
    pub fn pool(&self) -> Pool {
        let options = Options {
            mode: self.mode,
            detect_local: DetectLocal::ClusterCidr(vec![(v4(POD_NET), 9)]),
            service_cidrs: [(v4(SERVICE_NET), 12)].into(),
            ..Options::default()
        };
        Pool { options, ..Pool::default() }
    }

    /// Number of nodes.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// A node's name.
    #[must_use]
    pub fn node_name(&self, node: u32) -> String {
        let hash = permute(b"node", 1 << 32, node.into());
        format!("prod-pool-{}-{hash:08x}", node / 200 + 1)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: u32) -> Node {
        let zone = ["eu-west-1a", "eu-west-1b", "eu-west-1c"][pick(b"zone", node, 3)];
        let labels =
            [("kubernetes.io/hostname", &*self.node_name(node)), ("topology.kubernetes.io/zone", zone)];
        Node {
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            zone: Some(zone.to_owned()),
            addrs: vec![v4(NODE_NET + 10 + node)],
            pod_cidrs: vec![(v4(POD_NET + (node << 8)), 24)],
            draining: false,
        }
    }

    /// The node whose range holds a pod's address.
    #[must_use]
    pub fn node_of(&self, pod: IpAddr) -> u32 {
        match pod {
            IpAddr::V4(v4) => v4.to_bits().saturating_sub(POD_NET) >> 8,
            IpAddr::V6(_) => 0,
        }
    }

    /// A Service's name, namespace first.
    #[must_use]
    pub fn service_name(&self, service: u32) -> String {
        const TEAMS: [&str; 10] = [
            "payments",
            "search",
            "identity",
            "catalog",
            "shipping",
            "ml-serving",
            "ads",
            "observability",
            "web",
            "data-platform",
        ];
        const NOUNS: [&str; 12] = [
            "orders",
            "cart",
            "session",
            "invoice",
            "profile",
            "ranking",
            "inventory",
            "mailer",
            "gateway",
            "ledger",
            "feature-store",
            "audit",
        ];
        const ROLES: [&str; 6] = ["api", "worker", "db", "cache", "frontend", "internal"];
        let namespace = pick(b"namespace", service, self.size.services / 25 + 1);
        let number = u32::try_from(namespace).expect("fewer namespaces than Services");
        let team = TEAMS[pick(b"team", number, 10)];
        let (noun, role) = (NOUNS[pick(b"noun", service, 12)], ROLES[pick(b"role", service, 6)]);
        format!("{team}-{namespace}/{noun}-{role}-{service}")
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, service: u32) -> Service {
        let address = permute(b"cluster ip", SERVICE_ADDRESSES, service.into()) + 10;
        let address = u32::try_from(address).expect("an address of a /12");
        let port =
            ServicePort { name: "http".into(), proto: Proto::Tcp, port: port(service), node_port: None };
        let plain =
            Service { cluster_ips: vec![v4(SERVICE_NET + address)], ports: vec![port], ..Service::default() };
        match service % 20 {
            3 | 13 => Service { affinity: Some(10_800), ..plain },
            7 => Service { internal_local: true, ..plain },
            17 => balanced(plain, service / 20),
            _ => plain,
        }
    }

    /// A Service's EndpointSlices, by name.
    #[must_use]
    pub fn slices(&self, service: u32) -> Vec<(String, Slice)> {
        let owner = self.service_name(service);
        let first = service * self.size.endpoints;
        let pods: Vec<_> = (first..first + self.size.endpoints).collect();
        let ports = vec![SlicePort { name: "http".into(), proto: Proto::Tcp, port: target_port(service) }];
        let slices = pods.chunks(SLICE as usize).map(|pods| {
            let name = format!("{owner}-{:05x}", permute(b"slice", 1 << 20, (pods[0] % (1 << 20)).into()));
            let endpoints = pods.iter().map(|pod| self.pod(*pod)).collect();
            (name, Slice { service: owner.clone(), ports: ports.clone(), endpoints })
        });
        slices.collect()
    }

    /// A Service to change: another one each time, until all had their turn.
    #[must_use]
    pub fn scattered_service(&self, number: u32) -> u32 {
        let services = self.size.services;
        let service = permute(b"change", services.into(), (number % services).into());
        u32::try_from(service).expect("fewer than 32 bits of Services")
    }

    /// How many pods no Service has yet: at least a fifth of the others.
    #[must_use]
    pub fn spares(&self) -> u32 {
        self.nodes * ADDRESSES_PER_NODE - self.size.services * self.size.endpoints
    }

    /// A pod that no Service has yet, by a number below [`Self::spares`].
    #[must_use]
    pub fn spare(&self, number: u32) -> Endpoint {
        self.pod(self.size.services * self.size.endpoints + number)
    }

    fn pod(&self, pod: u32) -> Endpoint {
        let slots = u64::from(self.nodes) * u64::from(ADDRESSES_PER_NODE);
        let slot = u32::try_from(permute(b"pod", slots, pod.into())).expect("an address of a /9");
        let (node, host) = (slot / ADDRESSES_PER_NODE, slot % ADDRESSES_PER_NODE + 2);
        let node_name: Arc<str> = self.node_name(node).into();
        Endpoint { node: Some(node_name), ..Endpoint::ready(v4(POD_NET + (node << 8) + host)) }
    }

    /// Gives everything to a compiler, and returns the time that the compiler took of it.
    pub fn feed(&self, compiler: &mut Compiler) -> Duration {
        let mut took = Duration::ZERO;
        let mut timed = |step: &mut dyn FnMut()| {
            let start = Instant::now();
            step();
            took += start.elapsed();
        };
        let mut pool = Some(self.pool());
        timed(&mut || compiler.set_pool(POOL, pool.take()));
        for node in 0..self.nodes {
            let (name, mut node) = (self.node_name(node), Some(self.node(node)));
            timed(&mut || compiler.set_node(&name, node.take()));
        }
        for service in 0..self.size.services {
            let (name, mut value) = (self.service_name(service), Some(self.service(service)));
            timed(&mut || compiler.set_service(&name, value.take()));
            for (name, slice) in self.slices(service) {
                let mut slice = Some(slice);
                timed(&mut || compiler.set_slice(&name, slice.take()));
            }
        }
        took
    }
}

fn v4(address: u32) -> IpAddr {
    Ipv4Addr::from(address).into()
}

fn port(service: u32) -> u16 {
    match pick(b"port", service, 100) {
        0..40 => 80,
        40..65 => 8080,
        65..80 => 443,
        80..88 => 9090,
        88..94 => 5432,
        _ => 6379,
    }
}

fn target_port(service: u32) -> u16 {
    match port(service) {
        80 | 8080 => [8080, 8080, 80, 3000, 8000][pick(b"target", service, 5)],
        443 => 8443,
        other => other,
    }
}

/// A pseudo-random number below `bound`, fixed for what it is for and an index.
fn pick(what: &[u8], index: u32, bound: u32) -> usize {
    let random = mix(seed(what) ^ u64::from(index)) % u64::from(bound);
    usize::try_from(random).expect("below 32 bits")
}

/// A pseudo-random permutation of `0..size`, fixed for what it is for: a Feistel network, walked until it is in range.
fn permute(what: &[u8], size: u64, index: u64) -> u64 {
    assert!(index < size, "index {index} of {size}");
    let half = (u64::BITS - (size - 1).leading_zeros()).div_ceil(2).max(1);
    let (seed, mask) = (seed(what), (1 << half) - 1);
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (mix(seed ^ round << 56 ^ right) & mask));
        }
        at = left << half | right;
        if at < size {
            return at;
        }
    }
}

fn seed(what: &[u8]) -> u64 {
    what.iter().fold(0, |seed, byte| mix(seed ^ u64::from(*byte)))
}

/// The mixing step of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn cluster(services: u32, endpoints: u32) -> Cluster {
        Cluster::new(Size { services, endpoints }).unwrap()
    }

    #[test]
    fn it_is_the_same_every_time() {
        let (a, b) = (cluster(50, 7), cluster(50, 7));
        for n in 0..50 {
            assert_eq!(a.service_name(n), b.service_name(n));
            assert_eq!(a.service(n), b.service(n));
            assert_eq!(a.slices(n), b.slices(n));
        }
        assert_eq!((a.node(3), a.node_name(3)), (b.node(3), b.node_name(3)));
        // Figures of different days are comparable only while this stays as it is.
        assert_eq!(a.service(0).cluster_ips, [GOLDEN.0.parse::<IpAddr>().unwrap()]);
        assert_eq!(a.slices(0)[0].1.endpoints[0].addr, GOLDEN.1.parse::<IpAddr>().unwrap());
    }

    const GOLDEN: (&str, &str) = ("10.103.234.44", "10.129.34.174");

    #[test]
    fn every_pod_and_every_cluster_ip_is_used_once() {
        let cluster = cluster(2000, 60);
        let (mut pods, mut addresses, mut names) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut per_node: HashMap<_, u32> = HashMap::new();
        for n in 0..2000 {
            assert!(addresses.insert(cluster.service(n).cluster_ips[0]));
            assert!(names.insert(cluster.service_name(n)));
            for endpoint in cluster.slices(n).into_iter().flat_map(|(_, slice)| slice.endpoints) {
                assert!(pods.insert(endpoint.addr), "{} twice", endpoint.addr);
                *per_node.entry(endpoint.node.unwrap()).or_default() += 1;
            }
        }
        assert_eq!(pods.len(), 120_000);
        assert!(per_node.values().all(|pods| (150..=250).contains(pods)), "{per_node:?}");
        assert!((0..100).all(|n| pods.insert(cluster.spare(n).addr)));
    }

    #[test]
    fn pods_are_in_the_range_of_their_node() {
        let cluster = cluster(10, 10);
        let nodes: HashMap<_, _> =
            (0..cluster.nodes()).map(|n| (cluster.node_name(n), cluster.node(n).pod_cidrs[0].0)).collect();
        assert_eq!(nodes.len(), 500);
        for endpoint in (0..10).flat_map(|n| cluster.slices(n)).flat_map(|(_, slice)| slice.endpoints) {
            assert_eq!(cluster.node_name(cluster.node_of(endpoint.addr)), *endpoint.node.clone().unwrap());
            let (IpAddr::V4(pod), IpAddr::V4(net)) = (endpoint.addr, nodes[&*endpoint.node.unwrap()]) else {
                panic!("IPv4 only")
            };
            assert_eq!(pod.octets()[..3], net.octets()[..3]);
        }
    }

    #[test]
    fn slices_and_clusters_have_the_right_sizes() {
        let sizes: Vec<_> = cluster(3, 250).slices(2).iter().map(|(_, s)| s.endpoints.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        assert_eq!(cluster(10_000, 10).nodes(), 500);
        assert_eq!(cluster(44_000, 23).nodes(), 5060);
        for (services, endpoints) in [(0, 1), (1, 0), (500_001, 1), (500_000, 11)] {
            assert!(Cluster::new(Size { services, endpoints }).is_err());
        }
    }

    #[test]
    fn permutations_are_permutations() {
        for size in [1, 2, 3, 10, 100, 1000] {
            let mut seen: Vec<_> = (0..size).map(|n| permute(b"test", size, n)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..size).collect::<Vec<_>>());
        }
    }
}
