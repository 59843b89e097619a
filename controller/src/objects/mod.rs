//! The Kubernetes objects that the controller reads: only their fields of interest, and how they become the compiler's
//! input.

mod convert;
mod manifest;
mod node;
mod pool;
mod report;
mod service;
mod service_cidr;
mod slice;
mod text;

use std::fmt;

use rulecast_compiler::model::{Node, Prefix, Service, Slice};

use crate::release::NodeReport;

pub use convert::ConvertError;
pub(crate) use convert::{Convert, key};
pub use manifest::{Extent, ManifestError, parse_manifests};
pub(crate) use manifest::{Form, Place, Problem, parse_part, split};
pub(crate) use node::RawNode;
pub(crate) use pool::RawPool;
pub(crate) use pool::mode;
pub use pool::{DEFAULT_POOL, HOLD_REASON, PoolConfig};
pub(crate) use report::RawReport;
pub(crate) use service::{PROXY_NAME, RawService};
pub(crate) use service_cidr::RawServiceCidr;
pub(crate) use slice::{HEADLESS, RawSlice};

/// The kinds of objects that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `RulePool` of rulecast.dev.
    RulePool,
    /// `ServiceCIDR` of networking.k8s.io.
    ServiceCidr,
    /// `Node`.
    Node,
    /// `Service`.
    Service,
    /// `EndpointSlice` of discovery.k8s.io.
    EndpointSlice,
    /// `RuleNode` of rulecast.dev.
    RuleNode,
    /// A file of manifests that cannot be read as such; its name is its path.
    File,
}

impl Kind {
    /// The kind as Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RulePool => "RulePool",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::RuleNode => "RuleNode",
            Self::File => "file",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// `namespace/name`, or the name alone when it is cluster-scoped.
    pub name: String,
}

impl ObjectId {
    /// Names an object.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object, converted.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which one it is.
    pub id: ObjectId,
    /// What it says.
    pub content: Content,
    /// What of it was left out, and why; each names the field.
    pub warnings: Vec<String>,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Nothing that concerns us, such as a headless Service.
    Ignored,
    /// A pool.
    Pool(Box<PoolConfig>),
    /// Ranges of cluster IPs.
    ServiceCidr(Vec<Prefix>),
    /// A Node.
    Node(Node),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    Slice(Slice),
    /// What a node says of itself.
    Report(NodeReport),
}

#[cfg(test)]
mod tests;
