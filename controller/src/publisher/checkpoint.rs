//! Writing checkpoints, beside the publications that change something.
//!
//! Encoding one takes longer than everything else, so it is done after a head, when things are quiet: a checkpoint of the
//! version that is published. The next head names it, and its delta is the first one after it.

use std::fmt::Display;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use rulecast_bundle::{Bundle, Checkpoint, ChunkId, Index, MAX_CHECKPOINT, MAX_CHUNK};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::PublishError;
use super::published::CheckpointRef;
use crate::sink::{ChunkKind, Sink};

/// How many chunks are written at a time.
const PARALLEL: usize = 4;
/// A frame up to this size, in bytes, is encoded where it is: that takes well below a millisecond.
const SMALL: usize = 8 << 10;

/// Keeps the writing of checkpoints and the deletion of chunks apart.
///
/// A checkpoint's chunks are named by their content alone, so a new one may consist of chunks that are there already and
/// that nothing names. Deltas and indexes hold their sequence: they never come again.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<()>>);

/// As long as it is held, no chunk is deleted, or no checkpoint written.
pub(crate) type Closed = OwnedMutexGuard<()>;

impl Gate {
    pub(crate) fn try_close(&self) -> Option<Closed> {
        Arc::clone(&self.0).try_lock_owned().ok()
    }

    async fn close(&self) -> Closed {
        Arc::clone(&self.0).lock_owned().await
    }
}

/// A checkpoint to be written.
pub struct Rotation {
    pool: String,
    sequence: u64,
    frame: Vec<u8>,
    gate: Gate,
}

/// One that is written. Nothing is deleted until its publisher knows of it.
pub struct Rotated {
    pub(super) checkpoint: CheckpointRef,
    _closed: Closed,
}

impl Rotation {
    pub(super) fn new(pool: &str, sequence: u64, bundle: &Bundle, gate: Gate) -> Self {
        Self { pool: pool.to_owned(), sequence, frame: bundle.frame(), gate }
    }

    /// Writes it: its chunks, then its index.
    pub async fn write<S: Sink>(self, sink: &S) -> Result<Rotated, PublishError> {
        let Self { pool, sequence, frame, gate } = self;
        let closed = gate.close().await;
        let raw = frame.len();
        let encoded = if raw <= SMALL {
            Ok(Checkpoint::of_frame(sequence, &frame))
        } else {
            tokio::task::spawn_blocking(move || Checkpoint::of_frame(sequence, &frame)).await
        };
        let failed = |e: &dyn Display| PublishError::TooLarge {
            pool: pool.clone(),
            problem: format!("{raw} bytes: {e}"),
        };
        let checkpoint = encoded.map_err(|e| failed(&e))?;
        let bytes = checkpoint.size();
        let Checkpoint { index, chunks } = checkpoint;
        let encoded = index.encode();
        if index.raw_size > MAX_CHECKPOINT || Index::decode(&encoded).is_err() {
            let most = format!(
                "{} chunks of {MAX_CHUNK}; at most {MAX_CHECKPOINT} bytes are possible",
                chunks.len()
            );
            return Err(failed(&most));
        }
        let pieces = index.chunks.iter().zip(&chunks);
        let writes: Vec<_> =
            pieces.map(|(id, bytes)| sink.write_chunk(&pool, ChunkKind::Checkpoint, *id, bytes)).collect();
        stream::iter(writes).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        let id = ChunkId::of(&encoded);
        sink.write_chunk(&pool, ChunkKind::Index, id, &encoded).await?;
        let checkpoint = CheckpointRef { sequence, index: id, chunks: index.chunks, bytes };
        Ok(Rotated { checkpoint, _closed: closed })
    }
}
