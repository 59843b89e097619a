//! Reading what revisions lead to.

use std::sync::Arc;

use rulecast_api::{LastBundle, RuleRevisionSpec};
use rulecast_bundle::{Bundle, Change, ChunkId, Digest, Head, Key, Mode, NodeFact, Shape, Value};

use super::catalog::Catalog;
use crate::objects::mode;
use crate::publisher::read_bundle;
use crate::sink::{Sink, SinkError};

/// Why a revision cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// The sink did not say what is there.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// What is there is not what the revision says.
    #[error("revision {number}: {problem}")]
    Damaged {
        /// Its number.
        number: u64,
        /// What is wrong.
        problem: String,
    },
}

/// A pool's revisions, as they are read when this process begins to lead.
pub struct Revisions {
    pub(crate) catalog: Catalog,
    /// The newest one's shape, unless it is the live one or cannot be read.
    pub(crate) newest: Option<Arc<Shape>>,
}

/// Reads a pool's revisions. `live` is the shape that needs no reading.
pub(crate) async fn read_revisions<S: Sink>(
    sink: &S,
    pool: &str,
    live: Option<Digest>,
) -> Result<Revisions, RevisionError> {
    let catalog = Catalog::new(sink.list_revisions(pool).await?);
    let newest = match catalog.newest() {
        Some(spec) if live.map(|digest| digest.to_string()).as_ref() != Some(&spec.digest) => {
            match read_shape(sink, spec).await {
                Ok(shape) => Some(Arc::new(shape)),
                Err(RevisionError::Sink(error)) if !matches!(error, SinkError::Missing(_)) => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::warn!(pool, %error, "the newest revision cannot be read; the next one stands alone");
                    None
                }
            }
        }
        _ => None,
    };
    Ok(Revisions { catalog, newest })
}

/// Reads a revision's shape.
pub async fn read_shape<S: Sink>(sink: &S, spec: &RuleRevisionSpec) -> Result<Shape, RevisionError> {
    let damaged = |problem: String| RevisionError::Damaged { number: spec.number, problem };
    let mut chunks = Vec::with_capacity(spec.chunks.len());
    for name in &spec.chunks {
        let id: ChunkId = name.parse().map_err(|e| damaged(format!("chunk {name:?}: {e}")))?;
        let bytes = sink.read_chunk(&spec.pool, id).await?;
        if ChunkId::of(&bytes) != id {
            return Err(damaged(format!("chunk {id} was altered")));
        }
        chunks.push(bytes);
    }
    let shape = Shape::from_chunks(mode(spec.mode), &chunks).map_err(|e| damaged(e.to_string()))?;
    if shape.digest().to_string() != spec.digest {
        return Err(damaged(format!("it has the digest {}, not {}", shape.digest(), spec.digest)));
    }
    Ok(shape)
}

/// Reads the last bundle of a revision.
pub(crate) async fn read_exact<S: Sink>(
    sink: &S,
    pool: &str,
    number: u64,
    last: &LastBundle,
) -> Result<(Mode, Arc<Bundle>), RevisionError> {
    let damaged = |problem: String| RevisionError::Damaged { number, problem };
    let id: ChunkId = last.head.parse().map_err(|e| damaged(format!("chunk {:?}: {e}", last.head)))?;
    let bytes = sink.read_chunk(pool, id).await?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|e| damaged(format!("its last head: {e}")))?;
    let mode = head.mode;
    let replica = read_bundle(sink, pool, head).await.map_err(|problem| damaged(problem.to_string()))?;
    let mut bundle = replica.bundle().clone();
    // A wave of that time is over: nobody is sent to a bundle that is not there.
    let called_back = |(key, value): (Key, Value)| match value {
        Value::Node(fact) if fact.next => {
            Some(Change { key, value: Some(Value::Node(NodeFact { next: false, ..fact })) })
        }
        _ => None,
    };
    let changes: Vec<Change> = bundle.iter().filter_map(called_back).collect();
    let _final = bundle.apply(&changes).map_err(|problem| damaged(problem.to_string()))?;
    Ok((mode, Arc::new(bundle)))
}
