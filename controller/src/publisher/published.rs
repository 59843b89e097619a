//! What is known of a published version.

use rulecast_bundle::{ChunkId, Head};

use super::plan::Limits;
use crate::garbage::Known;
use crate::sink::Version;

/// A checkpoint that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckpointRef {
    pub(super) sequence: u64,
    pub(super) index: ChunkId,
    pub(super) chunks: Vec<ChunkId>,
    pub(super) bytes: usize,
}

impl CheckpointRef {
    fn names(&self) -> impl Iterator<Item = ChunkId> + '_ {
        std::iter::once(self.index).chain(self.chunks.iter().copied())
    }
}

/// A published version, and all that the next one is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The head.
    pub head: Head,
    /// Its version in the sink.
    pub(super) version: Version,
    pub(super) checkpoint: CheckpointRef,
    /// The deltas since the checkpoint, oldest first; the last one is in the head.
    pub(super) tail: Vec<ChunkId>,
    /// Their size together.
    pub(super) tail_bytes: usize,
    /// The last one of `tail`, while it is not known to be a chunk as well. The next head will name that.
    pub(super) unsaved: Option<Vec<u8>>,
    /// A checkpoint of this very version that is written already: the next head will name it.
    pub(super) next: Option<CheckpointRef>,
    /// How many Services it serves.
    pub(super) services: usize,
}

impl Published {
    /// Epoch and sequence: what nodes compare.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.head.epoch, self.head.sequence)
    }

    /// The size of the checkpoint, in bytes: what a joining node reads first.
    #[must_use]
    pub fn checkpoint_bytes(&self) -> usize {
        self.checkpoint.bytes
    }

    /// How many Services it serves.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services
    }

    /// Every chunk that the head leads to.
    pub fn names(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let checkpoints = std::iter::once(&self.checkpoint).chain(&self.next);
        checkpoints.flat_map(CheckpointRef::names).chain(self.tail.iter().copied())
    }

    /// The head's version.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// What a garbage collector must know.
    pub(crate) fn known(&self) -> Known {
        let unsaved = self.tail.last().copied().filter(|_| self.unsaved.is_some());
        Known { version: self.version.clone(), chunks: self.names().collect(), unsaved }
    }

    /// Whether the deltas have grown to `times` what the limits allow before a new checkpoint.
    pub(super) fn is_due(&self, limits: &Limits, times: usize) -> bool {
        let bytes = limits.bytes.max(self.checkpoint.bytes / 100 * limits.percent);
        self.tail.len() >= limits.deltas * times || self.tail_bytes > bytes * times
    }
}
