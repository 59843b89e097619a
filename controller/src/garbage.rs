//! Deleting chunks that no head leads to any more, long after nobody can be reading them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rulecast_bundle::ChunkId;
use tokio::time::Instant;

use crate::publisher::{Found, PublishError, load};
use crate::sink::{Sink, SinkError};

/// The most chunks that are deleted at a time.
const LOT: usize = 64;

/// How often to collect what is kept for this long.
pub(crate) fn every(grace: Duration) -> Duration {
    (grace / 4).clamp(Duration::from_millis(100), Duration::from_mins(1))
}

/// Remembers since when chunks have been without a name.
pub struct Garbage {
    grace: Duration,
    since: BTreeMap<(String, ChunkId), Instant>,
    /// When it was last looked which chunks have a name.
    looked: Option<Instant>,
}

/// What is known of the heads when a collection begins.
#[derive(Default)]
pub struct Named {
    /// By pool, the sequence and epoch that are published as far as this process knows.
    pub heads: BTreeMap<String, (u64, u64)>,
    /// What these heads lead to.
    pub chunks: BTreeSet<ChunkId>,
}

impl Garbage {
    /// Deletes chunks this long, and up to three quarters longer, after the last head let go of them.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, since: BTreeMap::new(), looked: None }
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
                Found::Sound(published, _) => named.chunks.extend(published.names()),
                Found::Nothing { .. } => {}
                Found::Damaged { .. } => return Ok(0),
            }
        }
        let mut unnamed = BTreeSet::new();
        for pool in &pools {
            let listed = sink.list_chunks(pool).await?;
            unnamed.extend(
                listed.into_iter().filter(|id| !named.chunks.contains(id)).map(|id| (pool.clone(), id)),
            );
        }
        let now = Instant::now();
        // Unseen, a chunk may have got a name and lost it again: a delta's whose head was just being written, or any while
        // collecting failed or another controller led. So it is looked often, and one time between two looks is added.
        let gap = every(self.grace) * 2;
        if self.looked.replace(now).is_none_or(|looked| now - looked > gap) {
            self.since.clear();
        }
        self.since.retain(|chunk, _| unnamed.contains(chunk));
        for chunk in unnamed {
            self.since.entry(chunk).or_insert(now);
        }
        let old = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= self.grace + gap);
        let lot: Vec<_> = old.map(|(chunk, _)| chunk.clone()).take(LOT).collect();
        for chunk in &lot {
            sink.delete_chunk(&chunk.0, chunk.1).await?;
            self.since.remove(chunk);
        }
        Ok(lot.len())
    }
}
