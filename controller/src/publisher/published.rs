//! What is known of a published version.

use rulecast_bundle::{ChunkId, Head};

use super::plan::Limits;
use crate::sink::Version;

/// A checkpoint that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckpointRef {
    pub(super) sequence: u64,
    pub(super) index: ChunkId,
    pub(super) chunks: Vec<ChunkId>,
    pub(super) bytes: usize,
    /// Before compression.
    pub(super) raw: usize,
}

impl CheckpointRef {
    fn names(&self) -> impl Iterator<Item = ChunkId> + '_ {
        std::iter::once(self.index).chain(self.chunks.iter().copied())
    }
}

/// A delta's chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeltaRef {
    pub(super) id: ChunkId,
    /// The version that it leads to.
    pub(super) to: u64,
    pub(super) bytes: usize,
}

/// A published version, and all that the next one is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The head.
    pub head: Head,
    /// Its version in the sink.
    pub(super) version: Version,
    pub(super) checkpoint: CheckpointRef,
    /// The deltas by which a reader gets from the checkpoint to here, oldest first: perhaps a merged one, then single ones.
    pub(super) tail: Vec<DeltaRef>,
    /// The last one of `tail`, while it is not known to be written. The next head will name it.
    pub(super) unsaved: Option<Vec<u8>>,
    /// A later checkpoint that is written already: the next head will name it.
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

    /// The same before compression.
    #[must_use]
    pub fn checkpoint_raw_bytes(&self) -> usize {
        self.checkpoint.raw
    }

    /// How many Services it serves.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services
    }

    /// Every chunk that the head leads to.
    pub fn names(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let checkpoints = std::iter::once(&self.checkpoint).chain(&self.next);
        checkpoints.flat_map(CheckpointRef::names).chain(self.tail.iter().map(|delta| delta.id))
    }

    /// The checkpoint that the next head names.
    pub(super) fn newest_checkpoint(&self) -> &CheckpointRef {
        self.next.as_ref().unwrap_or(&self.checkpoint)
    }

    /// The deltas from there on.
    pub(super) fn newest_tail(&self) -> &[DeltaRef] {
        let from = self.newest_checkpoint().sequence;
        let covered = self.tail.iter().take_while(|delta| delta.to <= from).count();
        &self.tail[covered..]
    }

    /// Whether the deltas have grown to `times` what the limits allow before a new checkpoint.
    pub(super) fn is_due(&self, limits: &Limits, times: usize) -> bool {
        let since = self.head.sequence - self.newest_checkpoint().sequence;
        let bytes: usize = self.newest_tail().iter().map(|delta| delta.bytes).sum();
        let most = limits.bytes.max(self.newest_checkpoint().bytes / 100 * limits.percent).min(limits.merged);
        since >= limits.deltas.saturating_mul(times as u64) || bytes > most * times
    }
}
