//! Carrying a plan out: chunks first, the head last.

use rulecast_bundle::ChunkId;

use super::checkpoint::{Rotated, Rotation};
use super::plan::{Plan, Start};
use super::published::{CheckpointRef, Published};
use super::{Outcome, PublishError};
use crate::sink::{ChunkKind, Sink, SinkError, Version};

/// A publication that went well.
pub struct Written {
    pub(super) published: Box<Published>,
    pub(super) outcome: Outcome,
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
        let pool = self.pool.clone();
        if let Some(bytes) = &self.first {
            sink.write_chunk(&pool, ChunkKind::Delta, ChunkId::of(bytes), bytes).await?;
        }
        let whole = match std::mem::replace(&mut self.start, Start::Same) {
            Start::Whole(rotation) => Some(rotation.write(sink).await?),
            other => {
                self.start = other;
                None
            }
        };
        if let Some(whole) = &whole {
            self.head.checkpoint = whole.checkpoint.index.to_string();
        }
        let version = sink.write_head(&pool, &self.head, self.over.as_ref()).await;
        let version = version.map_err(|error| WriteError { error: error.into(), head_untouched: false })?;

        // From here on it is published. The rest is for the next head, which does without what fails here.
        let overdue = self.overdue.take();
        let (mut published, outcome) = self.published(version, whole.as_ref().map(|w| &w.checkpoint));
        if let (Some(bytes), Some(id)) = (published.unsaved.take(), published.tail.last()) {
            let saved = sink.write_chunk(&pool, ChunkKind::Delta, *id, &bytes).await;
            published.unsaved = saved.is_err().then_some(bytes);
        }
        let checkpoint = match overdue {
            Some(rotation) => rotate(rotation, sink, &mut published).await,
            None => whole,
        };
        Ok(Written { published: Box::new(published), outcome, checkpoint })
    }

    /// What is published once the head is written.
    fn published(self, version: Version, whole: Option<&CheckpointRef>) -> (Published, Outcome) {
        let Self { head, delta, before, services, start, .. } = self;
        let started = match (whole, &start, &before) {
            (Some(checkpoint), ..) => Some(checkpoint.clone()),
            (None, Start::Next, Some(before)) => before.next.clone(),
            _ => None,
        };
        let outcome = Outcome::Published {
            sequence: head.sequence,
            changes: delta.as_ref().map(|delta| delta.changes),
            delta_bytes: delta.as_ref().map_or(0, |delta| delta.bytes.len()),
            checkpoint_bytes: started.as_ref().map(|checkpoint| checkpoint.bytes),
        };
        let (checkpoint, mut tail, mut tail_bytes) = match (started, before) {
            (Some(checkpoint), _) => (checkpoint, Vec::new(), 0),
            (None, Some(before)) => (before.checkpoint, before.tail, before.tail_bytes),
            (None, None) => unreachable!("without anything before there is a new checkpoint"),
        };
        let unsaved = delta.map(|delta| {
            tail.push(delta.id);
            tail_bytes += delta.bytes.len();
            delta.bytes
        });
        (Published { head, version, checkpoint, tail, tail_bytes, unsaved, next: None, services }, outcome)
    }
}

async fn rotate<S: Sink>(rotation: Rotation, sink: &S, published: &mut Published) -> Option<Rotated> {
    match rotation.write(sink).await {
        Ok(rotated) => {
            published.next = Some(rotated.checkpoint.clone());
            Some(rotated)
        }
        Err(error) => {
            tracing::warn!(%error, "a new checkpoint could not be written; it is tried again");
            None
        }
    }
}
