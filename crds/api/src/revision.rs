//! `RuleRevision`: one shape of a pool's rules, to look at and to go back to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Mode;
use crate::schema::{CHUNK_NAME, DIGEST, MAX_COUNTER, POOL_NAME, immutable};

/// The most lines of cause, and of summary, in one revision.
pub const MAX_LINES: usize = 256;

/// The most chunks in one revision: 128 MiB of compressed shape.
pub const MAX_CHUNKS: usize = 256;

/// One shape: which VIPs, ports, policies and options exist and how they compile. Endpoints are not part of it: going
/// back to an older revision never brings back an endpoint that is gone.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[kube(
    group = "rulecast.dev",
    version = "v1alpha1",
    kind = "RuleRevision",
    shortname = "rrev",
    category = "rulecast",
    derive = "PartialEq",
    status = "RuleRevisionStatus",
    doc = "RuleRevision is one immutable shape of a pool's rules. Only the controller writes and deletes it; one that \
           is live, pinned or some node's last good one is never deleted.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Number", type_ = "integer", json_path = ".spec.number"),
    printcolumn(name = "Created", type_ = "date", json_path = ".spec.created"),
    printcolumn(name = "Parent", type_ = "integer", json_path = ".spec.parent", priority = "1"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest", priority = "1"),
    selectable = ".spec.pool"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = immutable()))]
pub struct RuleRevisionSpec {
    /// The RulePool whose rules these are.
    #[schemars(length(max = 63), regex(pattern = POOL_NAME))]
    pub pool: String,
    /// The revision's number in its pool, counted from 1 and never used twice.
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub number: u64,
    /// SHA-256 of the shape, in base64url without padding. Two revisions with the same digest have the same rules.
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
    /// The proxy mode of the rules.
    #[serde(default)]
    pub mode: Mode,
    /// How many Services there are in it.
    #[serde(default)]
    pub services: u32,
    /// The number of the revision before it, which the summary compares it with. Left out for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub parent: Option<u64>,
    /// When it was made.
    pub created: Time,
    /// The objects whose change led to it, one a line, such as "Service prod/web" or "RulePool default"; at most 256.
    /// When there were more, the last line says how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LINES), inner(length(max = 512)))]
    pub cause: Vec<String>,
    /// What is different from the parent, one line a Service; at most 256. When there were more, the last line says
    /// how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LINES), inner(length(max = 512)))]
    pub summary: Vec<String>,
    /// The pool and revision it was promoted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The RuleChunks that hold the shape, in order: an index, the chunks it lists, and the changes since.
    #[schemars(length(min = 1, max = MAX_CHUNKS), inner(length(max = 32), regex(pattern = CHUNK_NAME)))]
    pub chunks: Vec<String>,
    /// The size of the shape in the chunks, in bytes.
    #[schemars(range(max = MAX_COUNTER))]
    pub size_bytes: u64,
}

/// Where a shape was live before.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The pool.
    #[schemars(length(max = 63), regex(pattern = POOL_NAME))]
    pub pool: String,
    /// The number of the RuleRevision there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub revision: Option<u64>,
}

/// What became of a revision.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleRevisionStatus {
    /// The last bundle that was published with this shape, endpoints included: what an exact replay brings back. Left out as
    /// long as another shape has not taken its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_bundle: Option<LastBundle>,
}

/// A bundle as it was published, endpoints included.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LastBundle {
    /// The bundle's sequence.
    #[schemars(range(max = MAX_COUNTER))]
    pub sequence: u64,
    /// The RuleChunk that holds its head.
    #[schemars(length(max = 32), regex(pattern = CHUNK_NAME))]
    pub head: String,
    /// The RuleChunks that the head leads to.
    #[schemars(length(max = MAX_CHUNKS), inner(length(max = 32), regex(pattern = CHUNK_NAME)))]
    pub chunks: Vec<String>,
}
