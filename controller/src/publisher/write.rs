//! Carrying a plan out: chunks first, the head last.

use rulecast_bundle::frame::Change;
use rulecast_bundle::{ChunkId, Delta};

use super::checkpoint::{Rotated, off_the_loop};
use super::plan::{EncodedDelta, Plan, Start};
use super::published::{CheckpointRef, DeltaRef, Published};
use super::{Outcome, PublishError};
use crate::sink::{ChunkKind, Sink, SinkError, Version};

/// A publication that went well.
pub struct Written {
    pub(super) published: Box<Published>,
    pub(super) outcome: Outcome,
    /// What was new in it, if it is a delta.
    pub(super) changes: Option<Vec<Change>>,
    /// Keeps its checkpoint from being deleted until its publisher knows of it.
    pub(super) checkpoint: Option<Rotated>,
}

/// One that did not.
#[derive(Debug)]
pub struct WriteError {
    /// Why.
    pub error: PublishError,
    /// Whether the head is surely what it was before.
    pub head_untouched: bool,
}

impl From<PublishError> for WriteError {
    fn from(error: PublishError) -> Self {
        Self { error, head_untouched: true }
    }
}

impl From<SinkError> for WriteError {
    fn from(error: SinkError) -> Self {
        PublishError::from(error).into()
    }
}

impl Plan {
    /// Writes it.
    pub async fn write<S: Sink>(mut self, sink: &S) -> Result<Written, WriteError> {
        if let Some(bytes) = &self.first {
            sink.write_chunk(&self.pool, ChunkKind::Delta, ChunkId::of(bytes), bytes).await?;
        }
        let checkpoint = match std::mem::replace(&mut self.start, Start::Newest) {
            Start::Whole(rotation) => Some(rotation.write(sink).await?),
            Start::Newest => None,
        };
        if let Some(whole) = &checkpoint {
            self.head.checkpoint = whole.checkpoint.index.to_string();
        }
        let version = sink.write_head(&self.pool, &self.head, self.over.as_ref()).await;
        let version = version.map_err(|error| WriteError { error: error.into(), head_untouched: false })?;

        // From here on it is published. The rest is for the next head, which does without what fails here.
        let (pool, delta, merged) = (self.pool.clone(), self.delta.take(), self.merged.take());
        let merged = encode(merged, self.limits.merged).await;
        let (mut published, outcome) =
            self.published(version, checkpoint.as_ref().map(|whole| &whole.checkpoint), delta.as_ref());
        let kept = match merged {
            Some((to, bytes)) => {
                let kept = DeltaRef { id: ChunkId::of(&bytes), to, bytes: bytes.len() };
                published.tail = vec![kept];
                Some(bytes)
            }
            None => delta.as_ref().map(|delta| delta.bytes.clone()),
        };
        if let (Some(bytes), Some(last)) = (kept, published.tail.last()) {
            let saved = sink.write_chunk(&pool, ChunkKind::Delta, last.id, &bytes).await;
            published.unsaved = saved.is_err().then_some(bytes);
        }
        let changes = delta.map(|delta| delta.changes);
        Ok(Written { published: Box::new(published), outcome, changes, checkpoint })
    }

    /// What is published once the head is written.
    fn published(
        self,
        version: Version,
        whole: Option<&CheckpointRef>,
        delta: Option<&EncodedDelta>,
    ) -> (Published, Outcome) {
        let Self { head, before, services, .. } = self;
        let started = whole.or(before.as_ref().and_then(|before| before.next.as_ref()));
        let outcome = Outcome::Published {
            sequence: head.sequence,
            changes: delta.map(|delta| delta.changes.len()),
            delta_bytes: delta.map_or(0, |delta| delta.bytes.len()),
            checkpoint_bytes: started.map(|checkpoint| checkpoint.bytes),
        };
        let (checkpoint, mut tail) = match (whole, before) {
            (Some(checkpoint), _) => (checkpoint.clone(), Vec::new()),
            (None, Some(before)) => (before.newest_checkpoint().clone(), before.newest_tail().to_vec()),
            (None, None) => unreachable!("without anything before there is a new checkpoint"),
        };
        tail.extend(delta.map(|d| DeltaRef { id: d.id, to: head.sequence, bytes: d.bytes.len() }));
        (Published { head, version, checkpoint, tail, unsaved: None, next: None, services }, outcome)
    }
}

/// A merged delta and the version it leads to, unless it is too large: then there will be a new checkpoint soon.
async fn encode(merged: Option<Delta>, largest: usize) -> Option<(u64, Vec<u8>)> {
    let merged = merged?;
    let (to, changes) = (merged.to, merged.changes.len());
    let bytes = off_the_loop(changes, move || merged.encode()).await?;
    (bytes.len() <= largest).then_some((to, bytes))
}
