//! The custom resources of `rulecast.dev/v1alpha1`.
//!
//! | kind | what it is | who writes it |
//! |---|---|---|
//! | [`RulePool`] | a set of nodes, their proxy mode and options, and how changes are released to them | the operator; status: the controller |
//! | [`RuleRevision`] | one immutable shape of a pool's rules | the controller |
//! | [`RuleBundle`] | the head that a pool's nodes watch | the controller |
//! | [`RuleChunk`] | an immutable, content-addressed piece of a checkpoint, index, delta or revision | the controller |
//! | [`RuleNode`] | one node's report | that node |
//!
//! The doc comments of the fields are what `kubectl explain` prints. The limits in the schemas are the contract's:
//! whatever passes them has a bounded size, and readers still check what they read.
//!
//! The definitions in `crds/yaml` are made from these types, see [`crds`].

#![allow(clippy::duplicated_attributes, reason = "taken for one: print columns of the same type")]

mod bundle;
mod chunk;
mod crd;
mod duration;
mod mode;
mod node;
mod options;
mod pool;
mod pool_status;
mod revision;
mod schema;
#[cfg(any(test, feature = "crdgen"))]
mod yaml;

pub use bundle::{MAX_DELTA_TEXT, RuleBundle, RuleBundleSpec};
pub use chunk::{ChunkKind, MAX_CHUNK_TEXT, RuleChunk, RuleChunkSpec};
pub use crd::{crds, file_name};
pub use duration::{BadDuration, Duration};
pub use mode::Mode;
pub use node::{NodeError, NodeHold, RuleNode, RuleNodeSpec, RuleNodeStatus};
pub use options::{Conntrack, DetectLocal, DetectLocalMode, Iptables, Ipvs, PoolOptions};
pub use pool::{Approval, Approved, ExactReplay, Promotion, RulePool, RulePoolSpec, Waves};
pub use pool_status::{MAX_QUARANTINED, MAX_RELEASES, Pending, QuarantinedService, Release, RulePoolStatus};
pub use revision::{
    LastBundle, MAX_CHUNKS, MAX_LINES, Origin, RuleRevision, RuleRevisionSpec, RuleRevisionStatus,
};
pub use schema::MAX_COUNTER;
#[cfg(any(test, feature = "crdgen"))]
pub use yaml::yaml;

/// The API group of all kinds.
pub const GROUP: &str = "rulecast.dev";

/// The one version that is served and stored.
pub const VERSION: &str = "v1alpha1";
