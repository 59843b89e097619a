//! Writing checkpoints, beside the publications that change something.
//!
//! Encoding one takes longer than everything else, so it is done beside the publications: of a version that is published, while
//! the next ones go out. The first head after it names it; the deltas since lead on from there.

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
/// What is up to this size, in bytes or changes, is encoded where it is: that takes well below a millisecond. It also keeps a
/// simulated history the same on every run: a thread's end falls anywhere.
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

    pub(crate) async fn close(&self) -> Closed {
        Arc::clone(&self.0).lock_owned().await
    }
}

/// A checkpoint to be written.
pub struct Rotation {
    pool: String,
    sequence: u64,
    frame: Vec<u8>,
    gate: Gate,
    reading: u64,
}

/// One that is written. Nothing is deleted until its publisher knows of it.
pub struct Rotated {
    pub(super) checkpoint: CheckpointRef,
    /// See [`Rotation::of_reading`].
    pub(super) reading: u64,
    closed: Closed,
}

impl Rotated {
    /// Its chunks, the index first, and their size in bytes; with what keeps them.
    pub(crate) fn into_parts(self) -> (Vec<ChunkId>, usize, Closed) {
        let CheckpointRef { index, chunks, bytes, .. } = self.checkpoint;
        (std::iter::once(index).chain(chunks).collect(), bytes, self.closed)
    }
}

impl Rotation {
    pub(crate) fn new(pool: &str, sequence: u64, bundle: &Bundle, gate: Gate) -> Self {
        Self { pool: pool.to_owned(), sequence, frame: bundle.frame(), gate, reading: 0 }
    }

    /// Remembers of which reading of what is published its version is.
    pub(super) fn of_reading(self, reading: u64) -> Self {
        Self { reading, ..self }
    }

    /// Writes it: its chunks, then its index.
    pub async fn write<S: Sink>(self, sink: &S) -> Result<Rotated, PublishError> {
        let Self { pool, sequence, frame, gate, reading } = self;
        let closed = gate.close().await;
        let raw = frame.len();
        let encoded = off_the_loop(raw, move || Checkpoint::of_frame(sequence, &frame)).await;
        let failed = |e: &dyn Display| PublishError::TooLarge {
            pool: pool.clone(),
            problem: format!("{raw} bytes: {e}"),
        };
        let checkpoint = encoded.ok_or_else(|| failed(&"it could not be encoded"))?;
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
        let checkpoint = CheckpointRef { sequence, index: id, chunks: index.chunks, bytes, raw };
        Ok(Rotated { checkpoint, reading, closed })
    }
}

/// Does work that may take long on a thread of its own; none when it panics.
pub(crate) async fn off_the_loop<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if size <= SMALL { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}
