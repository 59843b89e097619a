//! Configurations, for kube-proxy and for a RulePool.

use std::path::Path;

use rulecast_tests::network::POD_CIDRS;
use serde_json::{Value, json};

/// The pool of rulecast's nodes.
pub(crate) const POOL: &str = "default";

/// The mode of kube-proxy that rulecast is compared with.
pub(crate) const NFTABLES: &str = "nftables";
/// Its older mode.
pub(crate) const IPTABLES: &str = "iptables";

/// What is configured; everything else has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What reports call it.
    pub(crate) name: &'static str,
    /// How kube-proxy writes rules; rulecast always does it with nftables.
    pub(crate) peer_mode: &'static str,
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
            detect_local: true,
            masquerade_all: false,
            node_port_addresses: &[],
        }
    }
}

impl Config {
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

    /// As a RulePool's spec.
    pub(crate) fn pool(&self) -> Value {
        json!({
            "clusterCIDR": self.cluster_cidr(),
            "nodePortAddresses": self.node_port_addresses,
            "masqueradeAll": self.masquerade_all,
            "publishInterval": "100ms",
        })
    }
}
