//! The options of a pool, named as `KubeProxyConfiguration` names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::schema::{is_default, rule};

/// What the rules do, for every Service of the pool.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolOptions {
    /// The addresses of the cluster's pods: one CIDR a family, separated by a comma, as in "10.244.0.0/16,fd00::/48".
    /// With detectLocalMode ClusterCIDR, traffic from elsewhere is masqueraded; when empty, no traffic is taken for
    /// foreign.
    #[serde(rename = "clusterCIDR", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 87), extend("x-kubernetes-validations" = one_cidr_per_family()))]
    pub cluster_cidr: String,
    /// How a node tells traffic of its own pods: ClusterCIDR (by clusterCIDR), NodeCIDR (by the node's own pod CIDRs),
    /// BridgeInterface or InterfaceNamePrefix (by the interface it comes from, see detectLocal).
    pub detect_local_mode: DetectLocalMode,
    /// The interface names for the detectLocalModes BridgeInterface and InterfaceNamePrefix.
    #[serde(skip_serializing_if = "is_default")]
    pub detect_local: DetectLocal,
    /// The node's addresses that answer on NodePorts: "primary" for the node's own one or two, or CIDRs. Empty: primary
    /// with nftables, all addresses with iptables and ipvs, as in kube-proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 43)), extend("x-kubernetes-validations" = primary_or_cidrs()))]
    pub node_port_addresses: Vec<String>,
    /// Masquerades all traffic to cluster IPs, not only what comes from outside.
    pub masquerade_all: bool,
    /// The bit of the packet mark that says that traffic is to be masqueraded, from 0 to 31. It must not be one that
    /// something else on the node uses.
    #[schemars(range(max = 31))]
    pub masquerade_bit: u8,
    /// Options of the mode iptables.
    #[serde(skip_serializing_if = "is_default")]
    pub iptables: Iptables,
    /// Options of the mode ipvs.
    #[serde(skip_serializing_if = "is_default")]
    pub ipvs: Ipvs,
    /// Settings of the kernel's connection tracking. What is left out stays as the node has it: unlike kube-proxy,
    /// rulecast changes nothing that is not asked for here.
    #[serde(skip_serializing_if = "is_default")]
    pub conntrack: Conntrack,
    /// The address ranges of cluster IPs. Needed only where the API server has no ServiceCIDR objects (before
    /// Kubernetes 1.33); they are read from there otherwise. Rulecast's own, not one of kube-proxy's.
    #[serde(rename = "serviceCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 43)), extend("x-kubernetes-validations" = cidrs()))]
    pub service_cidrs: Vec<String>,
    /// Whether the externalIPs of Services are served. They let whoever may write a Service take over any address
    /// (CVE-2020-8554): set it to false where no Service needs them. The feature gate AllowServiceExternalIPs in
    /// kube-proxy.
    #[serde(rename = "allowServiceExternalIPs")]
    pub allow_service_external_ips: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            cluster_cidr: String::new(),
            detect_local_mode: DetectLocalMode::default(),
            detect_local: DetectLocal::default(),
            node_port_addresses: Vec::new(),
            masquerade_all: false,
            masquerade_bit: 14,
            iptables: Iptables::default(),
            ipvs: Ipvs::default(),
            conntrack: Conntrack::default(),
            service_cidrs: Vec::new(),
            allow_service_external_ips: true,
        }
    }
}

/// How a node tells traffic of its own pods.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DetectLocalMode {
    /// By `clusterCIDR`.
    #[default]
    ClusterCIDR,
    /// By the pod CIDRs of the Node object.
    NodeCIDR,
    /// By one bridge.
    BridgeInterface,
    /// By how the interfaces' names begin.
    InterfaceNamePrefix,
}

/// The interface names that [`DetectLocalMode`] needs.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocal {
    /// For detectLocalMode BridgeInterface: the bridge that the pods' interfaces are ports of.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 15), regex(pattern = INTERFACE))]
    pub bridge_interface: String,
    /// For detectLocalMode InterfaceNamePrefix: how the names of the pods' interfaces begin.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 15), regex(pattern = INTERFACE))]
    pub interface_name_prefix: String,
}

/// Options of the mode `iptables`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    /// Whether NodePorts answer at 127.0.0.1 on the node itself, too. It lets packets of the loopback net be routed
    /// (sysctl route_localnet), with a rule that keeps foreign ones out. IPv4 only, and only where
    /// nodePortAddresses has that address in it, as it has when it is empty.
    pub localhost_node_ports: bool,
}

impl Default for Iptables {
    fn default() -> Self {
        Self { localhost_node_ports: true }
    }
}

/// Options of the mode `ipvs`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipvs {
    /// The kernel's name of the scheduler, such as rr, wrr, lc, sh or mh. Empty: rr.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 15), regex(pattern = "^[a-z]*$"))]
    pub scheduler: String,
    /// Virtual servers in these ranges are left alone, because somebody else manages them.
    #[serde(rename = "excludeCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 43)), extend("x-kubernetes-validations" = cidrs()))]
    pub exclude_cidrs: Vec<String>,
    /// Sets arp_ignore and arp_announce, so that nodes do not answer ARP for Service addresses. Load balancers that work
    /// by ARP need it.
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    /// How long an idle TCP connection is remembered. Left out or 0: as the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_timeout: Option<Duration>,
    /// How long a TCP connection is remembered after a FIN. Left out or 0: as the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_fin_timeout: Option<Duration>,
    /// How long an idle UDP flow is remembered. Left out or 0: as the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<Duration>,
}

/// Settings of the kernel's connection tracking. What is left out stays as the node has it: unlike kube-proxy, rulecast
/// changes nothing that is not asked for here.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// The most connections tracked, for each CPU core; 0: leave it. kube-proxy's own default is 32768.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i32::MAX))]
    pub max_per_core: Option<u32>,
    /// The least that maxPerCore comes to, whatever the number of cores. kube-proxy's own default is 131072.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i32::MAX))]
    pub min: Option<u32>,
    /// How long an idle TCP connection is remembered; 0: leave it. kube-proxy's own default is 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_established_timeout: Option<Duration>,
    /// How long a TCP connection in CLOSE_WAIT is remembered; 0: leave it. kube-proxy's own default is 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Lets packets outside the TCP window pass instead of marking them invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_be_liberal: Option<bool>,
    /// How long a UDP flow with packets one way only is remembered; 0: leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<Duration>,
    /// How long a UDP flow with packets both ways is remembered; 0: leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_stream_timeout: Option<Duration>,
}

/// What the kernel takes as an interface name, less what would need quoting somewhere.
const INTERFACE: &str = "^[A-Za-z0-9_.@-]*$";

fn cidrs() -> serde_json::Value {
    rule("self.all(c, isCIDR(c))", "each entry must be a CIDR, such as 10.96.0.0/16 or fd00::/108")
}

fn primary_or_cidrs() -> serde_json::Value {
    rule(
        "self == ['primary'] || self.all(c, isCIDR(c))",
        "must be \"primary\" alone, or CIDRs such as 192.0.2.0/24",
    )
}

fn one_cidr_per_family() -> serde_json::Value {
    rule(
        "self == '' || self.split(',').all(c, isCIDR(c)) && (!self.contains(',') || self.split(',').size() == 2 && \
         cidr(self.split(',')[0]).ip().family() != cidr(self.split(',')[1]).ip().family())",
        "must be one CIDR, or an IPv4 and an IPv6 one separated by a comma",
    )
}
