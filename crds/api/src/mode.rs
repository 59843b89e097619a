//! The proxy modes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the nodes of a pool program the kernel.
///
/// kube-proxy's old `userspace` mode is no member: the API server refuses it and names the modes to use instead.
#[derive(
    Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Map elements in an nftables table.
    #[default]
    Nftables,
    /// kube-proxy's chain structure, through iptables-restore.
    Iptables,
    /// The kernel's load balancer, with ipsets.
    Ipvs,
}

impl Mode {
    /// The mode as it is written in a `RulePool`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
