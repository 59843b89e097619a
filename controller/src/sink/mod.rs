//! Where bundles are published: a narrow interface, with the cluster, a directory and memory behind it.

mod cluster;
mod directory;
mod memory;

use std::future::Future;

use rulecast_bundle::{ChunkId, Head};

pub use cluster::ClusterSink;
pub use directory::DirectorySink;
pub use memory::{Fault, MemorySink};
pub use rulecast_api::{ChunkKind, LastBundle, RuleRevisionSpec};

/// Names the version of a head that was read or written; only its sink knows what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// A revision as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// What was written.
    pub spec: RuleRevisionSpec,
    /// Its last bundle, if another shape has taken its place.
    pub last: Option<LastBundle>,
}

/// Why a sink could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Somebody else wrote the head since it was read.
    #[error("{0}: the head has changed since it was read: another controller writes it as well")]
    Conflict(String),
    /// There is a head, and it cannot be read.
    #[error("{what}: the head cannot be read: {problem}")]
    Damaged {
        /// Which one.
        what: String,
        /// What is wrong.
        problem: String,
        /// Its version, by which it can be replaced.
        version: Version,
    },
    /// A chunk is not there.
    #[error("chunk {0} is missing")]
    Missing(ChunkId),
    /// It did not work; trying again may help.
    #[error("{what}: {problem}")]
    Failed {
        /// What was tried.
        what: String,
        /// What went wrong.
        problem: String,
    },
}

impl SinkError {
    pub(crate) fn failed(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Failed { what: what.into(), problem: problem.to_string() }
    }
}

/// Takes what is published. Writing a head is the act of publication; everything it leads to has been written before.
pub trait Sink: Send + Sync + 'static {
    /// The pool's head and its version; none when nothing was ever published.
    fn read_head(
        &self,
        pool: &str,
    ) -> impl Future<Output = Result<Option<(Head, Version)>, SinkError>> + Send;

    /// A chunk's bytes, of any pool. Whether they are what the name says is for the caller to check.
    fn read_chunk(&self, pool: &str, id: ChunkId) -> impl Future<Output = Result<Vec<u8>, SinkError>> + Send;

    /// Writes a chunk. One that is there already is left as it is.
    fn write_chunk(
        &self,
        pool: &str,
        kind: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Replaces the version `over` of the pool's head, or creates it when that is none.
    fn write_head(
        &self,
        pool: &str,
        head: &Head,
        over: Option<&Version>,
    ) -> impl Future<Output = Result<Version, SinkError>> + Send;

    /// Deletes a pool's head; one that is gone already is fine. Only of a bundle that no node needs any more.
    fn delete_head(&self, pool: &str) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// The pools that have a head, also those that nobody asks for any more.
    fn list_pools(&self) -> impl Future<Output = Result<Vec<String>, SinkError>> + Send;

    /// The chunks that were written for a pool.
    fn list_chunks(&self, pool: &str) -> impl Future<Output = Result<Vec<ChunkId>, SinkError>> + Send;

    /// Deletes a chunk; one that is gone already is fine.
    fn delete_chunk(&self, pool: &str, id: ChunkId) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// A pool's revisions, in no order. What cannot be read as one is left out.
    fn list_revisions(&self, pool: &str) -> impl Future<Output = Result<Vec<Revision>, SinkError>> + Send;

    /// Writes a revision. That its number is taken is a conflict.
    fn write_revision(
        &self,
        revision: &RuleRevisionSpec,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Notes the last bundle of a revision.
    fn write_last_bundle(
        &self,
        pool: &str,
        number: u64,
        last: &LastBundle,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Deletes a revision; one that is gone already is fine.
    fn delete_revision(&self, pool: &str, number: u64) -> impl Future<Output = Result<(), SinkError>> + Send;
}
