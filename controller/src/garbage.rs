//! Deleting chunks that no head leads to any more, long after nobody can be reading them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rulecast_bundle::{ChunkId, next_of};
use tokio::time::Instant;

use crate::publisher::{Found, PublishError, load};
use crate::sink::{Revision, Sink, SinkError, Version};

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

/// What is known of the heads when a collection begins, by pool.
#[derive(Default)]
pub struct Named(pub BTreeMap<String, Known>);

/// A head as far as this process knows.
pub struct Known {
    /// Its version.
    pub version: Version,
    /// What it leads to, or the next one may.
    pub chunks: BTreeSet<ChunkId>,
    /// Of these, one that need not be there yet.
    pub unsaved: Option<ChunkId>,
}

/// What a collection found.
#[derive(Default)]
pub struct Collected {
    /// How many chunks were deleted.
    pub deleted: usize,
    /// Pools whose head is another one than the known one, of this version, or no longer leads anywhere.
    pub strayed: BTreeMap<String, Version>,
}

impl Garbage {
    /// Deletes chunks this long, and up to three quarters longer, after the last head let go of them.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, since: BTreeMap::new(), looked: None }
    }

    /// Deletes what has been without a name for long enough. Checkpoints must not be written meanwhile; see
    /// [`crate::publisher::Gate`].
    pub async fn collect<S: Sink>(&mut self, sink: &S, named: Named) -> Result<Collected, PublishError> {
        let Named(known) = named;
        let mut names: BTreeSet<ChunkId> = known.values().flat_map(|known| &known.chunks).copied().collect();
        let mut found = Collected::default();
        let pools = sink.list_pools().await?;
        let mut strayed: BTreeSet<&String> = known.keys().filter(|pool| !pools.contains(pool)).collect();
        let mut all_known = true;
        for pool in &pools {
            if is_stale_wave(pool, &known) {
                sink.delete_head(pool).await?;
                continue;
            }
            let version = match sink.read_head(pool).await {
                Ok(head) => head.map(|(_, version)| version),
                Err(SinkError::Damaged { version, .. }) => Some(version),
                Err(error) => return Err(error.into()),
            };
            if let Some((name, known)) = known.get_key_value(pool) {
                if Some(&known.version) == version.as_ref() {
                    continue;
                }
                strayed.insert(name);
            }
            // A pool that nobody asks for any more, and whose nodes run on; or another controller publishes.
            match load(sink, pool).await? {
                Found::Sound(published, ..) => names.extend(published.names()),
                // What it leads to is unknown.
                Found::Nothing { .. } | Found::Damaged { .. } => all_known = false,
            }
        }
        let mut there = BTreeSet::new();
        // Of a wave that is over chunks are left, and no head.
        let of_waves: Vec<String> = known.keys().map(|pool| next_of(pool)).collect();
        let labels: BTreeSet<&String> = pools.iter().chain(&of_waves).collect();
        for pool in labels {
            // What revisions name is read anew each time: they are few, and written before anybody knows of them.
            let revisions = sink.list_revisions(pool).await?;
            names.extend(revisions.iter().flat_map(chunks_of));
            let listed = sink.list_chunks(pool).await?;
            there.extend(listed.into_iter().map(|id| (id, pool.clone())));
        }
        let is_there =
            |id: &ChunkId| there.range((*id, String::new())..).next().is_some_and(|(next, _)| next == id);
        for (pool, known) in &known {
            if known.chunks.iter().any(|id| !is_there(id) && known.unsaved != Some(*id)) {
                strayed.insert(pool);
            }
        }
        found.strayed = strayed.into_iter().map(|pool| (pool.clone(), known[pool].version.clone())).collect();
        if all_known {
            let unnamed =
                there.into_iter().filter(|(id, _)| !names.contains(id)).map(|(id, pool)| (pool, id));
            found.deleted = self.delete_old(sink, unnamed.collect()).await?;
        }
        Ok(found)
    }

    async fn delete_old<S: Sink>(
        &mut self,
        sink: &S,
        unnamed: BTreeSet<(String, ChunkId)>,
    ) -> Result<usize, PublishError> {
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

/// The head of a wave that is over, of a pool that is known.
fn is_stale_wave(pool: &str, known: &BTreeMap<String, Known>) -> bool {
    let of = known.keys().find(|name| next_of(name) == pool);
    of.is_some() && !known.contains_key(pool)
}

/// All that a revision leads to.
fn chunks_of(revision: &Revision) -> impl Iterator<Item = ChunkId> {
    let last = revision.last.iter().flat_map(|last| last.chunks.iter().chain([&last.head]));
    revision.spec.chunks.iter().chain(last).filter_map(|name| name.parse().ok())
}
