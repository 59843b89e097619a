//! What the compiler knows of a cluster: the fields it reads, checked, and nothing else.
//!
//! These types have no Kubernetes client in them; the edges (a watch, a directory of manifests) build them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::{IpvsOptions, Mode, Proto, Settings};

/// An address prefix: address with the host bits zero, and length.
pub type Prefix = (IpAddr, u8);

/// A Service that has a cluster IP. Headless and `ExternalName` Services never become one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// At most one per family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<Prefix>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`, with its timeout in seconds, 1 to 86,400.
    pub affinity: Option<u32>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when the Service has a single, unnamed port.
    pub name: String,
    /// Its protocol.
    pub proto: Proto,
    /// The port at the Service's addresses.
    pub port: u16,
    /// The port at the nodes' addresses.
    pub node_port: Option<u16>,
}

/// An EndpointSlice of address type IPv4 or IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// The Service it belongs to, as namespace/name.
    pub service: String,
    /// Its ports. One without a port number, or of an unknown protocol, is left out.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: String,
    /// Its protocol.
    pub proto: Proto,
    /// The port at the endpoints.
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its first address.
    pub addr: IpAddr,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// `conditions.ready`; unknown counts as ready.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `hints.forZones`.
    pub zones: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub nodes: Vec<Arc<str>>,
}

impl Endpoint {
    /// A ready endpoint without node or hints.
    #[must_use]
    pub fn ready(addr: IpAddr) -> Self {
        let (zones, nodes) = (Vec::new(), Vec::new());
        Self { addr, node: None, ready: true, serving: true, terminating: false, zones, nodes }
    }
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its labels, by which pools select it.
    pub labels: BTreeMap<String, String>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Its primary address of each family: the first InternalIP, else the first ExternalIP.
    pub addrs: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<Prefix>,
    /// It has a deletion timestamp or the cluster autoscaler's taint.
    pub draining: bool,
}

/// How a pool's nodes tell pods of their own from everything else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DetectLocal {
    /// No way: cluster IP traffic is never masqueraded, and pods get no short cut to Local Services.
    #[default]
    None,
    /// Source in one of these, the cluster's pod CIDRs.
    ClusterCidr(Vec<Prefix>),
    /// Source in one of the pod CIDRs of the node's own Node object.
    NodeCidr,
    /// Coming in through this interface, the bridge that the pods are at.
    BridgeInterface(String),
    /// Coming in through an interface whose name begins like this.
    InterfaceNamePrefix(String),
}

/// Which node addresses answer nodePorts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// What kube-proxy does in the pool's mode: the node's primary addresses with nftables, all of them otherwise.
    Default,
    /// Every local address but loopback.
    All,
    /// The listed ones.
    Only {
        /// The node's primary address of each family.
        primary: bool,
        /// Every node address inside these.
        prefixes: Vec<Prefix>,
    },
}

/// A pool's options, as RulePool names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The proxy mode.
    pub mode: Mode,
    /// How pods of the node's own are told.
    pub detect_local: DetectLocal,
    /// `masqueradeAll`.
    pub masquerade_all: bool,
    /// `masqueradeBit`, 0 to 31.
    pub masquerade_bit: u8,
    /// `nodePortAddresses`.
    pub node_port_addresses: NodePortAddresses,
    /// The ranges of cluster IPs; an address in them that no Service has is dropped.
    pub service_cidrs: BTreeSet<Prefix>,
    /// Whether `externalIPs` are served.
    pub allow_external_ips: bool,
    /// What is set on the nodes beside rules. Numbers are none or more than 0.
    pub settings: Settings,
    /// `iptables.localhostNodePorts`.
    pub localhost_node_ports: bool,
    /// The options of IPVS mode, with the prefixes of both families.
    pub ipvs: IpvsOptions,
}

impl Default for Options {
    /// kube-proxy's defaults in nftables mode.
    fn default() -> Self {
        Self {
            mode: Mode::Nftables,
            detect_local: DetectLocal::None,
            masquerade_all: false,
            masquerade_bit: 14,
            node_port_addresses: NodePortAddresses::Default,
            service_cidrs: BTreeSet::new(),
            allow_external_ips: true,
            settings: Settings::default(),
            localhost_node_ports: true,
            ipvs: default_ipvs(),
        }
    }
}

/// kube-proxy's defaults in IPVS mode.
#[must_use]
pub fn default_ipvs() -> IpvsOptions {
    IpvsOptions {
        scheduler: "rr".to_owned(),
        strict_arp: false,
        exclude: Vec::new(),
        tcp_timeout: 0,
        tcp_fin_timeout: 0,
        udp_timeout: 0,
    }
}

/// A pool: a set of nodes that run the same bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// Labels that its nodes have; none: every node.
    pub node_selector: BTreeMap<String, String>,
    /// Its options.
    pub options: Options,
}
