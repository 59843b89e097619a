//! Configurations, for kube-proxy and for a RulePool.

use std::path::Path;

use rulecast_tests::network::POD_CIDRS;
use serde_json::{Value, json};

/// The pool of rulecast's nodes.
pub(crate) const POOL: &str = "default";

/// The default mode of rulecast, and the mode of kube-proxy that it is compared with then.
pub(crate) const NFTABLES: &str = "nftables";
/// The older mode of both.
pub(crate) const IPTABLES: &str = "iptables";
/// The one that has a kernel part of its own.
pub(crate) const IPVS: &str = "ipvs";

/// What is configured; everything else has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What reports call it.
    pub(crate) name: &'static str,
    /// How kube-proxy writes rules.
    pub(crate) peer_mode: &'static str,
    /// How rulecast does.
    pub(crate) mode: &'static str,
    /// The variant of iptables in which rulecast's nodes have kubelet's chains: `legacy` or `nft`; none: they have none.
    pub(crate) hint: Option<&'static str>,
    /// Whether pods are told from others, by the pods' addresses.
    pub(crate) detect_local: bool,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub(crate) masquerade_all: bool,
    /// nodePortAddresses.
    pub(crate) node_port_addresses: &'static [&'static str],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "base",
            peer_mode: NFTABLES,
            mode: NFTABLES,
            hint: None,
            detect_local: true,
            masquerade_all: false,
            node_port_addresses: &[],
        }
    }
}

impl Config {
    /// The same for iptables mode, in both worlds.
    pub(crate) fn iptables() -> Self {
        Self { name: "iptables", peer_mode: IPTABLES, mode: IPTABLES, ..Self::default() }
    }

    /// IPVS mode, beside iptables mode.
    pub(crate) fn ipvs() -> Self {
        Self { name: "ipvs", peer_mode: IPTABLES, mode: IPVS, ..Self::default() }
    }

    fn cluster_cidr(&self) -> &'static str {
        if self.detect_local { POD_CIDRS } else { "" }
    }

    /// As a KubeProxyConfiguration.
    pub(crate) fn kube_proxy(&self, kubeconfig: &Path) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": self.peer_mode,
            // So that it says when it has heard of its zone.
            "logging": { "verbosity": 4 },
            "clientConnection": { "kubeconfig": kubeconfig },
            "clusterCIDR": self.cluster_cidr(),
            "nodePortAddresses": self.node_port_addresses,
            "iptables": { "masqueradeAll": self.masquerade_all, "minSyncPeriod": "100ms" },
            "nftables": { "masqueradeAll": self.masquerade_all, "minSyncPeriod": "100ms" },
            // What belongs to the whole machine cannot be set in a namespace.
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
        })
    }

    /// As a RulePool's spec, of this mode.
    pub(crate) fn pool(&self, mode: &str) -> Value {
        json!({
            "mode": mode,
            "clusterCIDR": self.cluster_cidr(),
            "nodePortAddresses": self.node_port_addresses,
            "masqueradeAll": self.masquerade_all,
            "publishInterval": "100ms",
        })
    }
}
