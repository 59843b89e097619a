//! `RuleNode`: what one node runs, and why not something newer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Mode;
use crate::schema::{DIGEST, MAX_COUNTER, POOL_NAME, REASON, is_default};

/// Nothing is asked of a node here: what it shall run is in its pool's bundle.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[kube(
    group = "rulecast.dev",
    version = "v1alpha1",
    kind = "RuleNode",
    shortname = "rnode",
    category = "rulecast",
    derive = "PartialEq",
    no_spec,
    status = "RuleNodeStatus",
    doc = "RuleNode is one node's report and has the node's name. Only that node writes it, when something has changed \
           and rarely otherwise.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".status.pool"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.sequence"),
    printcolumn(
        name = "Error",
        type_ = "string",
        json_path = ".status.error.reason",
        description = "Why the node does not run the newest bundle; empty when it does."
    ),
    printcolumn(name = "Hold", type_ = "string", json_path = ".status.hold.reason", priority = "1"),
    printcolumn(name = "Applied", type_ = "date", json_path = ".status.appliedAt"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode", priority = "1"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RuleNodeSpec {}

/// What the node runs now.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleNodeStatus {
    /// The pool whose bundle the node follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63), regex(pattern = POOL_NAME))]
    pub pool: String,
    /// The proxy mode that is in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Mode")] // an Option of an enum would lose the text above
    pub mode: Option<Mode>,
    /// The sequence of the bundle that is in the kernel. Left out: none yet.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(range(max = MAX_COUNTER))]
    pub sequence: u64,
    /// The epoch of that sequence. Left out: 0.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(range(max = MAX_COUNTER))]
    pub epoch: u64,
    /// The digest of that bundle.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
    /// When the kernel took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<MicroTime>,
    /// The version of the applier.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub version: String,
    /// Why the node does not run a newer bundle that it has seen. Left out when nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
    /// True while the rules come from the last good bundle on the node's disk, and the API server has not confirmed
    /// yet that there is no newer one.
    #[serde(skip_serializing_if = "is_default")]
    pub restored: bool,
    /// True while the node is in a wave: sequence and digest are those of the pool's next shape then.
    #[serde(skip_serializing_if = "is_default")]
    pub next: bool,
    /// What somebody asked of the applier on the node itself, beside its pool. Left out when nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<NodeHold>,
    /// Details for machines; the type is the key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What somebody asked of one node's applier, by `rulecast-node hold` or `rulecast-node use-previous`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeHold {
    /// Hold: the node keeps the shape it had. UsePrevious: it has gone back to the shape before.
    #[schemars(length(min = 1, max = 64), regex(pattern = REASON))]
    pub reason: String,
    /// What is different from the pool's bundle, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when.
    pub since: Time,
}

/// A bundle that was not applied. The node keeps the rules it had.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeError {
    /// The kind of error in one word, such as DigestMismatch, UnknownFormat or KernelRefused.
    #[schemars(length(min = 1, max = 64), regex(pattern = REASON))]
    pub reason: String,
    /// What happened and what to look at, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Since when the node has had this error.
    pub since: Time,
    /// The sequence of the bundle that was not applied. Left out when the error is not about one bundle.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = MAX_COUNTER))]
    pub sequence: u64,
}
