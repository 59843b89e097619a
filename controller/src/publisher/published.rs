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

impl DeltaRef {
    pub(super) fn of(bytes: &[u8], to: u64) -> Self {
        Self { id: ChunkId::of(bytes), to, bytes: bytes.len() }
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
    /// The deltas by which a reader gets from the checkpoint to here, oldest first: perhaps a merged one, then single ones.
    pub(super) tail: Vec<DeltaRef>,
    /// All of `tail` in one, for the next head: this one leads through `tail`.
    pub(super) merged: Option<DeltaRef>,
    /// What the next head's delta follows ([`Published::last_delta`]), while it is not known to be written.
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

    /// Every chunk that the head leads to, and what the next one will lead to of what is written.
    pub fn names(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let checkpoints = std::iter::once(&self.checkpoint).chain(&self.next);
        // This head's own delta is within it.
        let before = self.tail.iter().filter(|delta| delta.to < self.head.sequence).map(|delta| delta.id);
        checkpoints.flat_map(CheckpointRef::names).chain(before).chain(self.last_delta())
    }

    /// The checkpoint that the next head names.
    pub(super) fn newest_checkpoint(&self) -> &CheckpointRef {
        self.next.as_ref().unwrap_or(&self.checkpoint)
    }

    /// The deltas from there on, for the next head.
    pub(super) fn newest_tail(&self) -> &[DeltaRef] {
        let from = self.newest_checkpoint().sequence;
        let tail = self.merged.as_ref().map_or(self.tail.as_slice(), std::slice::from_ref);
        let covered = tail.iter().take_while(|delta| delta.to <= from).count();
        &tail[covered..]
    }

    /// What the next head's delta follows.
    pub(super) fn last_delta(&self) -> Option<ChunkId> {
        self.merged.as_ref().or(self.tail.last()).map(|delta| delta.id)
    }

    /// The head's version.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// What a garbage collector must know.
    pub(crate) fn known(&self) -> Known {
        let unsaved = self.last_delta().filter(|_| self.unsaved.is_some());
        Known { version: self.version.clone(), chunks: self.names().collect(), unsaved }
    }

    /// Whether the deltas have grown to `times` what the limits allow before a new checkpoint.
    pub(super) fn is_due(&self, limits: &Limits, times: usize) -> bool {
        let since = self.head.sequence - self.newest_checkpoint().sequence;
        let bytes: usize = self.newest_tail().iter().map(|delta| delta.bytes).sum();
        let most = limits.bytes.max(self.newest_checkpoint().bytes / 100 * limits.percent).min(limits.merged);
        since >= limits.deltas.saturating_mul(times as u64) || bytes > most * times
    }
}
