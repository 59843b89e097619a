//! The status of a `RulePool`: what the controller has made of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{DIGEST, MAX_COUNTER, REASON, is_default};

/// The most quarantined Services that are listed; the count goes on.
pub const MAX_QUARANTINED: usize = 100;

/// The most releases that are listed.
pub const MAX_RELEASES: usize = 32;

/// What is published for the pool now.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RulePoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready says whether the pool's nodes are served what its spec asks for; further types say what is held, waits for
    /// approval or was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The sequence of the current RuleBundle; 0 before the first one.
    #[schemars(range(max = MAX_COUNTER))]
    pub sequence: u64,
    /// The epoch of that sequence.
    #[schemars(range(max = MAX_COUNTER))]
    pub epoch: u64,
    /// The digest of the current RuleBundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: Option<String>,
    /// The number of the RuleRevision that is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_COUNTER))]
    pub revision: Option<u64>,
    /// The digest of the shape that is live: that of its RuleRevision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub shape: Option<String>,
    /// The shape that is not live yet, and why. Left out when what is live is what the inputs ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Which shape went live when, newest first; at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_RELEASES))]
    pub releases: Vec<Release>,
    /// How many Services the bundle serves.
    pub services: u32,
    /// How many different endpoints (address and port) the bundle holds.
    pub endpoints: u32,
    /// How many load-balancing targets the bundle holds: one or two for a Service port.
    pub groups: u32,
    /// How many records the bundle holds.
    pub records: u32,
    /// The size of the checkpoint, compressed, in bytes: what a joining node reads.
    #[schemars(range(max = MAX_COUNTER))]
    pub checkpoint_bytes: u64,
    /// Services whose present state could not be compiled. Their previous rules stay. At most 100 are listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_QUARANTINED))]
    pub quarantined: Vec<QuarantinedService>,
    /// How many Services are quarantined, the ones that are not listed included.
    pub quarantined_count: u32,
}

/// A shape that waits.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The number of its RuleRevision. Left out until that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub revision: Option<u64>,
    /// Its digest.
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
    /// What it waits for, in one word, such as Approval, Hold, Rollback, Shrink, Soak or Wave.
    #[schemars(length(min = 1, max = 64), regex(pattern = REASON))]
    pub reason: String,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when this shape has waited.
    pub since: Time,
}

/// A shape that went live.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The number of its RuleRevision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub revision: Option<u64>,
    /// Its digest.
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
    /// The first sequence of the RuleBundle that has it.
    #[schemars(range(max = MAX_COUNTER))]
    pub sequence: u64,
    /// The epoch of that sequence.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = MAX_COUNTER))]
    pub epoch: u64,
    /// When.
    pub at: Time,
    /// Why it went live: Automatic, Approved, Rollback, ExactReplay, Promoted or Resumed.
    #[schemars(length(min = 1, max = 64), regex(pattern = REASON))]
    pub reason: String,
}

/// A Service whose present state could not be compiled.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedService {
    /// The Service, as namespace/name.
    #[schemars(length(max = 127))]
    pub service: String,
    /// The kind of problem in one word.
    #[schemars(length(min = 1, max = 64), regex(pattern = REASON))]
    pub reason: String,
    /// What is wrong with it and how to mend it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}
