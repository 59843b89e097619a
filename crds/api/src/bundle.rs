//! `RuleBundle`: the head that a pool's nodes watch.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Mode;
use crate::schema::{CHUNK_NAME, DIGEST, MAX_COUNTER, is_default};

/// The longest inline delta, in characters of base64: 384 KiB of bytes. What is longer goes through chunks.
pub const MAX_DELTA_TEXT: usize = 524_288;

/// What is published now. It says where the whole bundle is and carries the latest change, so that a node which
/// follows along reads nothing else.
///
/// Every byte here is sent to every node of the pool at every change: that is why defaults are left out of the JSON,
/// and why no field has a default in the schema (the API server would write it in).
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "rulecast.dev",
    version = "v1alpha1",
    kind = "RuleBundle",
    shortname = "rbun",
    category = "rulecast",
    derive = "PartialEq",
    doc = "RuleBundle is the head that the nodes of one pool watch; it has the pool's name. Only the controller \
           writes it, always on top of the version it has read.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "The proxy mode; nftables where it is empty."
    ),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".spec.sequence"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = forward_only()))]
pub struct RuleBundleSpec {
    /// The format of the records in the delta and the checkpoint. A node that does not know it refuses the bundle and
    /// keeps its rules. Left out: 3.
    #[serde(default = "unsaid", skip_serializing_if = "is_unsaid")]
    #[schemars(range(min = 1, max = 65_535))]
    pub format: u32,
    /// The lowest level of applier that can apply this bundle; others refuse it and keep their rules. Left out: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 65_535))]
    pub min_applier: u32,
    /// The proxy mode the bundle is compiled for. Left out: nftables.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Goes up when sequences have to begin anew, such as after a restore of etcd from a backup. Left out: 0.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = MAX_COUNTER))]
    pub epoch: u64,
    /// The number of this publication. Within an epoch it only ever grows, also when rules are rolled back.
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub sequence: u64,
    /// The first 160 bits of a SHA-256 over the whole bundle at this sequence and the other fields here, in base64url without padding. A node
    /// compares it with what it has computed before it touches the kernel.
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
    /// The RuleChunk that lists the pieces of the checkpoint: where a node begins that cannot follow the deltas.
    #[schemars(length(max = 32), regex(pattern = CHUNK_NAME))]
    pub checkpoint: String,
    /// The changes since the sequence before, in base64 (standard alphabet, no padding). Left out when they did not fit;
    /// the nodes then read chunks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_DELTA_TEXT))]
    pub delta: String,
}

/// Defence in depth: the nodes check this too, and the controller writes with a precondition.
fn forward_only() -> serde_json::Value {
    const NEW: &str = "(has(self.epoch) ? self.epoch : 0)";
    const OLD: &str = "(has(oldSelf.epoch) ? oldSelf.epoch : 0)";
    serde_json::json!([
        { "rule": format!("{NEW} >= {OLD}"), "message": "epoch must not decrease" },
        {
            "rule": format!("{NEW} > {OLD} || self.sequence >= oldSelf.sequence"),
            "message": "sequence must not decrease within an epoch; to roll back, publish the older rules under a \
                        higher sequence",
        },
    ])
}

/// The format of a head that names none.
const UNSAID: u32 = 3;

const fn unsaid() -> u32 {
    UNSAID
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_unsaid(value: &u32) -> bool {
    *value == UNSAID
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_one(value: &u32) -> bool {
    *value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_take_no_room() {
        let spec = RuleBundleSpec {
            format: unsaid(),
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence: 7,
            digest: "d".repeat(27),
            checkpoint: "c".repeat(32),
            delta: String::new(),
        };
        let json = serde_json::to_value(&spec).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["checkpoint", "digest", "sequence"]);
        assert_eq!(serde_json::from_value::<RuleBundleSpec>(json).unwrap(), spec);
    }
}
