//! Where published versions come from: the API server, or a directory.

pub mod cluster;
pub mod directory;
mod spread;

use std::future::Future;

use rulecast_bundle::{CatchUp, ChunkId, DecodeError, Head, Way};

/// Why a source could not give something right now. It is asked again.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The API server answered with an error, or not at all.
    #[error("{what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The watch broke.
    #[error("the watch of the RuleBundle broke and is made anew: {0}")]
    Watch(String),
    /// No answer in time.
    #[error("{0}: no answer in time")]
    Timeout(String),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// What was read makes no sense.
    #[error("{what} cannot be read: {why}")]
    Malformed {
        /// Which object or file.
        what: String,
        /// Why not.
        why: String,
    },
    /// Bytes that do not fit together.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl SourceError {
    /// A CamelCase word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } | Self::Watch(_) | Self::Timeout(_) | Self::Io { .. } => "SourceUnavailable",
            Self::Malformed { .. } => "Malformed",
            Self::Decode(_) => "Damaged",
        }
    }
}

/// What there is to say of the bundle that is followed.
#[derive(Debug)]
pub enum News {
    /// A version of it.
    Head(Head),
    /// There is no such bundle.
    Gone {
        /// It was there and was deleted. Otherwise it may only not have come yet, or an API server is behind.
        deleted: bool,
    },
}

/// Brings the heads of one bundle, and chunks by name.
pub trait Source {
    /// Follows the bundle `name` from now on, and no longer the one before.
    fn follow(&mut self, name: &str);

    /// Waits for news of the bundle that is followed. An error is worth telling; ask again. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<News, SourceError>>;

    /// Reads a chunk.
    fn chunk(&self, id: ChunkId) -> impl Future<Output = Result<Vec<u8>, SourceError>>;
}

/// Reads what leads from the version that is there to `head`.
pub async fn catch_up(source: &impl Source, head: &Head, have: Option<u64>) -> Result<Way, SourceError> {
    let mut catch_up = CatchUp::new(head, have)?;
    while let Some(id) = catch_up.need() {
        catch_up.supply(source.chunk(id).await?)?;
    }
    Ok(catch_up.finish()?)
}
