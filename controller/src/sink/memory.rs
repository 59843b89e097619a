//! A sink in memory that can be told to fail: for tests, and for programs that hold both halves in one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rulecast_bundle::{ChunkId, Head};

use super::{ChunkKind, LastBundle, Revision, RuleRevisionSpec, Sink, SinkError, Version};

/// What the next operations shall fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Reading heads and chunks.
    Read,
    /// Writing chunks.
    WriteChunk,
    /// Writing revisions.
    WriteRevision,
    /// Writing heads, which are not written.
    WriteHead,
    /// The answer to writing a head, which is written.
    LoseAnswer,
}

/// Holds heads and chunks in memory.
#[derive(Default)]
pub struct MemorySink(Mutex<State>);

#[derive(Default)]
struct State {
    heads: BTreeMap<String, (Head, u64)>,
    history: Vec<(String, Head)>,
    chunks: BTreeMap<(String, ChunkId), Vec<u8>>,
    revisions: BTreeMap<(String, u64), Revision>,
    faults: Vec<Fault>,
}

impl MemorySink {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single insertion or removal, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets each of these operations fail once, in any order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// How many of the injected faults have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// Every head of a pool that was ever written, oldest first.
    #[must_use]
    pub fn history(&self, pool: &str) -> Vec<Head> {
        self.state().history.iter().filter(|(p, _)| p == pool).map(|(_, head)| head.clone()).collect()
    }

    /// Changes a chunk's bytes, or removes it.
    pub fn tamper(&self, pool: &str, id: ChunkId, bytes: Option<Vec<u8>>) {
        let mut state = self.state();
        match bytes {
            Some(bytes) => drop(state.chunks.insert((pool.to_owned(), id), bytes)),
            None => drop(state.chunks.remove(&(pool.to_owned(), id))),
        }
    }

    /// The names of all chunks of a pool.
    #[must_use]
    pub fn chunk_ids(&self, pool: &str) -> Vec<ChunkId> {
        self.state().chunks.keys().filter(|(p, _)| p == pool).map(|(_, id)| *id).collect()
    }
}

impl State {
    fn fail(&mut self, fault: Fault) -> Result<(), SinkError> {
        match self.faults.iter().position(|f| *f == fault) {
            Some(at) => {
                self.faults.remove(at);
                Err(SinkError::failed("memory", format!("injected: {fault:?}")))
            }
            None => Ok(()),
        }
    }
}

impl Sink for MemorySink {
    async fn read_head(&self, pool: &str) -> Result<Option<(Head, Version)>, SinkError> {
        let mut state = self.state();
        state.fail(Fault::Read)?;
        Ok(state.heads.get(pool).map(|(head, version)| (head.clone(), Version(version.to_string()))))
    }

    async fn read_chunk(&self, pool: &str, id: ChunkId) -> Result<Vec<u8>, SinkError> {
        let mut state = self.state();
        state.fail(Fault::Read)?;
        state.chunks.get(&(pool.to_owned(), id)).cloned().ok_or(SinkError::Missing(id))
    }

    async fn write_chunk(
        &self,
        pool: &str,
        _: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        let mut state = self.state();
        state.fail(Fault::WriteChunk)?;
        state.chunks.entry((pool.to_owned(), id)).or_insert_with(|| bytes.to_vec());
        Ok(())
    }

    async fn write_head(
        &self,
        pool: &str,
        head: &Head,
        over: Option<&Version>,
    ) -> Result<Version, SinkError> {
        let mut state = self.state();
        state.fail(Fault::WriteHead)?;
        let known = state.heads.get(pool).map_or(0, |(_, version)| *version);
        if over.map_or("0", |version| version.0.as_str()) != known.to_string() {
            return Err(SinkError::Conflict(pool.to_owned()));
        }
        state.heads.insert(pool.to_owned(), (head.clone(), known + 1));
        state.history.push((pool.to_owned(), head.clone()));
        state.fail(Fault::LoseAnswer)?;
        Ok(Version((known + 1).to_string()))
    }

    async fn delete_head(&self, pool: &str) -> Result<(), SinkError> {
        self.state().heads.remove(pool);
        Ok(())
    }

    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        Ok(self.state().heads.keys().cloned().collect())
    }

    async fn list_chunks(&self, pool: &str) -> Result<Vec<ChunkId>, SinkError> {
        Ok(self.chunk_ids(pool))
    }

    async fn delete_chunk(&self, pool: &str, id: ChunkId) -> Result<(), SinkError> {
        self.state().chunks.remove(&(pool.to_owned(), id));
        Ok(())
    }

    async fn list_revisions(&self, pool: &str) -> Result<Vec<Revision>, SinkError> {
        let mut state = self.state();
        state.fail(Fault::Read)?;
        Ok(state.revisions.values().filter(|revision| revision.spec.pool == pool).cloned().collect())
    }

    async fn write_revision(&self, revision: &RuleRevisionSpec) -> Result<(), SinkError> {
        let mut state = self.state();
        state.fail(Fault::WriteRevision)?;
        let key = (revision.pool.clone(), revision.number);
        if state.revisions.contains_key(&key) {
            return Err(SinkError::Conflict(format!("revision {}", revision.number)));
        }
        state.revisions.insert(key, Revision { spec: revision.clone(), last: None });
        Ok(())
    }

    async fn write_last_bundle(&self, pool: &str, number: u64, last: &LastBundle) -> Result<(), SinkError> {
        let mut state = self.state();
        state.fail(Fault::WriteRevision)?;
        if let Some(revision) = state.revisions.get_mut(&(pool.to_owned(), number)) {
            revision.last = Some(last.clone());
        }
        Ok(())
    }

    async fn delete_revision(&self, pool: &str, number: u64) -> Result<(), SinkError> {
        self.state().revisions.remove(&(pool.to_owned(), number));
        Ok(())
    }
}
