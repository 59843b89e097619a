//! Deleting chunks that no head leads to any more, long after nobody can be reading them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rulecast_bundle::ChunkId;
use tokio::time::Instant;

use crate::publisher::{Found, PublishError, load};
use crate::sink::{Sink, SinkError};

/// The most chunks that are deleted at a time.
const LOT: usize = 64;

/// Remembers since when chunks have been without a name.
pub struct Garbage {
    grace: Duration,
    since: HashMap<(String, ChunkId), Instant>,
}

/// What is known of the heads when a collection begins.
#[derive(Default)]
pub struct Named {
    /// By pool, the sequence and epoch that are published as far as this process knows.
    pub heads: HashMap<String, (u64, u64)>,
    /// What these heads lead to.
    pub chunks: HashSet<ChunkId>,
}

impl Garbage {
    /// Deletes chunks this long after the last head let go of them.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, since: HashMap::new() }
    }

    /// Deletes what has been without a name for long enough, and says how much. Checkpoints must not be written
    /// meanwhile; see [`crate::publisher::Gate`].
    pub async fn collect<S: Sink>(&mut self, sink: &S, mut named: Named) -> Result<usize, PublishError> {
        let pools = sink.list_pools().await?;
        for pool in &pools {
            let current = match sink.read_head(pool).await {
                Ok(Some((head, _))) => Some((head.epoch, head.sequence)),
                // What an unreadable head leads to is unknown.
                Ok(None) | Err(SinkError::Damaged { .. }) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            if named.heads.get(pool).copied() == current {
                continue;
            }
            // A pool that nobody asks for any more, and whose nodes run on; or another controller publishes.
            match load(sink, pool).await? {
                Found::Sound(published, ..) => named.chunks.extend(published.names()),
                Found::Nothing { .. } => {}
                Found::Damaged { .. } => return Ok(0),
            }
        }
        let mut unnamed = HashSet::new();
        for pool in &pools {
            let listed = sink.list_chunks(pool).await?;
            unnamed.extend(
                listed.into_iter().filter(|id| !named.chunks.contains(id)).map(|id| (pool.clone(), id)),
            );
        }
        let now = Instant::now();
        self.since.retain(|chunk, _| unnamed.contains(chunk));
        for chunk in unnamed {
            self.since.entry(chunk).or_insert(now);
        }
        let old = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= self.grace);
        let lot: Vec<_> = old.map(|(chunk, _)| chunk.clone()).take(LOT).collect();
        for chunk in &lot {
            sink.delete_chunk(&chunk.0, chunk.1).await?;
            self.since.remove(chunk);
        }
        Ok(lot.len())
    }
}
