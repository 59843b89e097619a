//! The API server: heads with versions and preconditions, chunks, and what watches see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rulecast_bundle::{ChunkId, Digest, Head};
use rulecast_controller::sink::{ChunkKind, LastBundle, Revision as Stored, RuleRevisionSpec};

use crate::invariants::Ledger;
use crate::trace::Trace;

/// A version of a head.
pub(crate) struct Revision {
    pub(crate) version: u64,
    /// None: it was deleted.
    pub(crate) head: Option<Head>,
}

/// A chunk.
pub(crate) struct Chunk {
    /// The pool it is labelled with: that for which it was written first.
    pub(crate) pool: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) type Chunks = BTreeMap<ChunkId, Chunk>;

/// Why a head was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 409.
    Conflict,
    /// 422, by the rules of the CRD (`crds/api/src/bundle.rs`).
    Invalid(&'static str),
}

/// What is stored. Every method is one request's effect, all of it or nothing.
pub(crate) struct ApiServer {
    version: u64,
    heads: BTreeMap<String, Vec<Revision>>,
    chunks: Chunks,
    revisions: BTreeMap<(String, u64), Stored>,
    /// Chunks that a person deleted.
    taken: BTreeSet<ChunkId>,
    pub(crate) ledger: Ledger,
    trace: Arc<Trace>,
}

impl ApiServer {
    pub(crate) fn new(ledger: Ledger, trace: Arc<Trace>) -> Self {
        Self {
            version: 0,
            heads: BTreeMap::new(),
            chunks: BTreeMap::new(),
            revisions: BTreeMap::new(),
            taken: BTreeSet::new(),
            ledger,
            trace,
        }
    }

    pub(crate) fn head(&self, pool: &str) -> Option<(Head, u64)> {
        let last = self.heads.get(pool)?.last()?;
        Some((last.head.clone()?, last.version))
    }

    pub(crate) fn put_head(&mut self, pool: &str, head: &Head, over: Option<u64>) -> Result<u64, Refused> {
        let current = self.head(pool);
        if current.as_ref().map(|(_, version)| *version) != over {
            return Err(Refused::Conflict);
        }
        if let Some((old, _)) = &current {
            if head.epoch < old.epoch {
                return Err(Refused::Invalid("epoch must not decrease"));
            }
            if head.epoch == old.epoch && head.sequence < old.sequence {
                return Err(Refused::Invalid("sequence must not decrease within an epoch"));
            }
        }
        self.revise(pool, Some(head.clone()));
        let Head { epoch, sequence, .. } = head;
        self.trace.note(format_args!("head of {pool} is {epoch}/{sequence}, version {}", self.version));
        self.ledger.published(&self.trace, pool, head, &self.chunks);
        Ok(self.version)
    }

    pub(crate) fn delete_head(&mut self, pool: &str) {
        if self.head(pool).is_some() {
            self.trace.note(format_args!("head of {pool} is deleted"));
            self.revise(pool, None);
        }
    }

    fn revise(&mut self, pool: &str, head: Option<Head>) {
        self.version += 1;
        let revision = Revision { version: self.version, head };
        self.heads.entry(pool.to_owned()).or_default().push(revision);
    }

    /// What a person with rights and without a plan may do. Heads are not deleted: how far one was, only chunks could tell
    /// a controller that starts anew, and not its epoch.
    pub(crate) fn tamper(&mut self) {
        let pools = self.pools();
        let Some(pool) = pools.get(fastrand::usize(..pools.len().max(1))) else { return };
        let (mut head, _) = self.head(pool).expect("it is listed");
        let named: Vec<ChunkId> = self.ledger.names(pool).iter().copied().collect();
        let what = fastrand::u32(..5);
        self.trace.note(format_args!("somebody tampers with {pool}: {what}"));
        match what {
            0 => head.epoch += 1,
            1 => head.sequence += 100,
            2 => head.digest = Digest::of(&[b"another"]).to_string(),
            3 => head.checkpoint = ChunkId::of(b"another").to_string(),
            _ => {
                if !named.is_empty() {
                    let id = named[fastrand::usize(..named.len())];
                    self.chunks.remove(&id);
                    self.taken.insert(id);
                    self.ledger.removed(id);
                }
                return;
            }
        }
        self.revise(pool, Some(head));
        self.ledger.tampered(pool);
    }

    /// The head as a watch cache has it, which may lag behind by some versions; and where to watch on from.
    pub(crate) fn list_head(&self, pool: &str, lag: usize) -> (Option<Head>, u64) {
        let revisions = self.heads.get(pool).map_or(&[][..], Vec::as_slice);
        if lag == 0 {
            return (revisions.last().and_then(|r| r.head.clone()), self.version);
        }
        match revisions.len().checked_sub(1 + lag).map(|at| &revisions[at]) {
            Some(revision) => (revision.head.clone(), revision.version),
            None => (None, 0),
        }
    }

    /// The next version of a head after this one.
    pub(crate) fn head_after(&self, pool: &str, version: u64) -> Option<&Revision> {
        let revisions = self.heads.get(pool)?;
        revisions.get(revisions.partition_point(|r| r.version <= version))
    }

    pub(crate) fn pools(&self) -> Vec<String> {
        self.heads.keys().filter(|pool| self.head(pool).is_some()).cloned().collect()
    }

    pub(crate) fn chunk(&self, id: ChunkId) -> Option<Vec<u8>> {
        self.chunks.get(&id).map(|chunk| chunk.bytes.clone())
    }

    /// One that is there stays as it is, label and all.
    pub(crate) fn create_chunk(&mut self, pool: &str, kind: ChunkKind, id: ChunkId, bytes: Vec<u8>) {
        let trace = &self.trace;
        self.chunks.entry(id).or_insert_with(|| {
            trace.note(format_args!("chunk {id} of {pool}: {kind:?}, {} bytes", bytes.len()));
            Chunk { pool: pool.to_owned(), bytes }
        });
    }

    pub(crate) fn chunks_of(&self, pool: &str) -> Vec<ChunkId> {
        self.chunks.iter().filter(|(_, chunk)| chunk.pool == pool).map(|(id, _)| *id).collect()
    }

    pub(crate) fn delete_chunk(&mut self, id: ChunkId) {
        if self.chunks.remove(&id).is_some() {
            self.trace.note(format_args!("chunk {id} is deleted"));
            self.ledger.deleted(&self.trace, id);
        }
    }

    pub(crate) fn revisions_of(&self, pool: &str) -> Vec<Stored> {
        self.revisions.values().filter(|revision| revision.spec.pool == pool).cloned().collect()
    }

    /// The digests of a pool's revisions that can be read, by number.
    pub(crate) fn digests_of(&self, pool: &str) -> BTreeMap<u64, String> {
        let whole = |revision: &&Stored| {
            let mut chunks = revision.spec.chunks.iter().map(|name| name.parse().expect("a chunk's name"));
            chunks.all(|id| self.chunks.contains_key(&id))
        };
        let of_pool = self.revisions.values().filter(|revision| revision.spec.pool == pool).filter(whole);
        of_pool.map(|revision| (revision.spec.number, revision.spec.digest.clone())).collect()
    }

    /// Whether the number was free.
    pub(crate) fn create_revision(&mut self, spec: RuleRevisionSpec) -> bool {
        let key = (spec.pool.clone(), spec.number);
        let free = !self.revisions.contains_key(&key);
        if free {
            self.trace.note(format_args!("revision {} of {}: {}", spec.number, spec.pool, spec.digest));
            self.revisions.insert(key, Stored { spec, last: None });
        }
        free
    }

    pub(crate) fn note_last_bundle(&mut self, pool: &str, number: u64, last: LastBundle) {
        if let Some(revision) = self.revisions.get_mut(&(pool.to_owned(), number)) {
            revision.last = Some(last);
        }
    }

    pub(crate) fn delete_revision(&mut self, pool: &str, number: u64) {
        if self.revisions.remove(&(pool.to_owned(), number)).is_some() {
            self.trace.note(format_args!("revision {number} of {pool} is deleted"));
        }
    }

    /// The chunks that revisions lead to.
    fn of_revisions(&self) -> BTreeSet<ChunkId> {
        let names = self.revisions.values().flat_map(|revision| {
            let last = revision.last.iter().flat_map(|last| last.chunks.iter().chain([&last.head]));
            revision.spec.chunks.iter().chain(last)
        });
        names.map(|name| name.parse().expect("a chunk's name")).collect()
    }

    /// Chunks that a revision leads to and that are not there.
    pub(crate) fn lost_by_revisions(&self) -> Vec<ChunkId> {
        let gone = |id: &ChunkId| !self.chunks.contains_key(id) && !self.taken.contains(id);
        self.of_revisions().into_iter().filter(gone).collect()
    }

    /// Whether a pool's head is what its controllers published, and leads to its content.
    pub(crate) fn is_sound(&self, pool: &str) -> bool {
        self.ledger.is_sound(pool, self.head(pool).map(|(head, _)| head).as_ref(), &self.chunks)
    }

    /// Chunks that nothing leads to.
    pub(crate) fn unnamed(&self) -> Vec<ChunkId> {
        let named = self.of_revisions();
        self.ledger.unnamed(&self.chunks).into_iter().filter(|id| !named.contains(id)).collect()
    }
}
