//! What comes of a publication.

use crate::release::Shrink;
use crate::sink::SinkError;

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The sink did not take it, or did not say what is there.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// What is there was written by a later version of this program.
    #[error("pool {pool}: {problem}: a newer controller has published; upgrade this one")]
    Newer {
        /// The pool.
        pool: String,
        /// Which version.
        problem: String,
    },
    /// The bundle is too large for the format.
    #[error("pool {pool}: the bundle is too large: {problem}")]
    TooLarge {
        /// The pool.
        pool: String,
        /// By how much.
        problem: String,
    },
    /// It would lose too many Services.
    #[error(transparent)]
    Shrink(#[from] Shrink),
}

impl PublishError {
    /// Whether somebody else has published.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Sink(SinkError::Conflict(_)))
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What is published is what is compiled.
    Unchanged,
    /// A new head.
    Published {
        /// Its sequence.
        sequence: u64,
        /// The number of records that changed; none: the whole bundle was written.
        changes: Option<usize>,
        /// The size of its delta, in bytes.
        delta_bytes: usize,
        /// The size of its checkpoint, in bytes, if it begins a new one.
        checkpoint_bytes: Option<usize>,
    },
}
