//! `RuleChunk`: where the bytes are.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{BUNDLE_NAME, immutable};

/// The longest text of a chunk: 512 KiB in base64 without padding, well below what etcd takes.
pub const MAX_CHUNK_TEXT: usize = (512 * 1024 * 4_usize).div_ceil(3);

/// One piece of data. Its name is the hash of its bytes, so it is written once, before anything names it, and never
/// changes.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "rulecast.dev",
    version = "v1alpha1",
    kind = "RuleChunk",
    shortname = "rchunk",
    category = "rulecast",
    derive = "PartialEq",
    doc = "RuleChunk is an immutable piece of a checkpoint, an index, a delta or a revision. It is named after the \
           hash of its content. Only the controller writes it; nodes read the ones their RuleBundle names.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.pool",
    validation = kube::core::Rule::new("self.metadata.name.matches('^[0-9a-v]{32}$')")
        .message("the name must be the hash of the content: 32 characters of 0-9 and a-v")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = immutable()))]
pub struct RuleChunkSpec {
    /// What the bytes are a piece of: checkpoint, index, delta or revision.
    pub kind: ChunkKind,
    /// The pool it was written for first. Another pool with the same content may name it as well.
    #[schemars(length(max = 68), regex(pattern = BUNDLE_NAME))]
    pub pool: String,
    /// The bytes, in base64 (standard alphabet, no padding); at most 512 KiB of them.
    #[schemars(length(min = 1, max = MAX_CHUNK_TEXT))]
    pub data: String,
}

/// What a chunk is a piece of.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub enum ChunkKind {
    /// A whole bundle.
    Checkpoint,
    /// The list of the chunks of a checkpoint, with their sizes.
    Index,
    /// The changes of one publication that did not fit into its head, or of an earlier one.
    Delta,
    /// The shape of a `RuleRevision`.
    Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_mebibyte_fits_exactly() {
        assert_eq!(MAX_CHUNK_TEXT, 699_051);
    }
}
