//! Reading what is published, after a start, a conflict or a failure with unknown outcome.

use std::collections::BTreeSet;

use rulecast_bundle::{
    Bundle, CatchUp, ChunkId, DecodeError, Delta, Head, Index, Key, Refusal, Replica, Value, Way,
};

use super::PublishError;
use super::published::{CheckpointRef, DeltaRef, Published};
use super::recent::Recent;
use crate::sink::{Sink, SinkError, Version};

/// What was found.
pub enum Found {
    /// No head. Chunks of an earlier one may still tell how far it was; else the sequence is 0.
    Nothing {
        /// The highest sequence that nodes can have taken.
        sequence: u64,
    },
    /// A bundle that is what its head says.
    Sound(Box<Published>, Box<Replica>, Recent),
    /// A head that does not lead to a bundle.
    Damaged {
        /// The highest sequence that nodes can have taken.
        sequence: u64,
        /// Its epoch.
        epoch: u64,
        /// The head's version, to replace it.
        version: Version,
        /// What is wrong.
        problem: String,
    },
}

/// How reading can fail: for now, or for good.
pub(super) enum Damage {
    Passing(PublishError),
    Damaged(String),
}

impl From<SinkError> for Damage {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Missing(_) => Self::Damaged(error.to_string()),
            other => Self::Passing(other.into()),
        }
    }
}

impl From<DecodeError> for Damage {
    fn from(error: DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Reads what is published for a pool.
pub async fn load<S: Sink>(sink: &S, pool: &str) -> Result<Found, PublishError> {
    let (head, version) = match sink.read_head(pool).await {
        Ok(None) => return Ok(Found::Nothing { sequence: highest_sequence(sink, pool).await? }),
        Ok(Some(found)) => found,
        Err(SinkError::Damaged { version, problem, .. }) => {
            let sequence = highest_sequence(sink, pool).await?;
            return Ok(Found::Damaged { sequence, epoch: 0, version, problem });
        }
        Err(error) => return Err(error.into()),
    };
    let (sequence, epoch) = (head.sequence, head.epoch);
    match follow(sink, pool, head, version.clone()).await {
        Ok((published, replica, recent)) => Ok(Found::Sound(Box::new(published), Box::new(replica), recent)),
        Err(Damage::Passing(error)) => Err(error),
        Err(Damage::Damaged(problem)) => {
            // The damage may be a head that somebody wrote by hand, with a sequence that nodes have long passed.
            let told = highest_sequence(sink, pool).await?;
            let sequence = if told > sequence + MARGIN { told } else { sequence };
            Ok(Found::Damaged { sequence, epoch, version, problem })
        }
    }
}

/// Reads the bundle that a head leads to.
pub async fn read_bundle<S: Sink>(sink: &S, pool: &str, head: Head) -> Result<Replica, PublishError> {
    let version = Version(String::new());
    match follow(sink, pool, head, version).await {
        Ok((_, replica, _)) => Ok(replica),
        Err(Damage::Passing(error)) => Err(error),
        Err(Damage::Damaged(problem)) => {
            Err(SinkError::failed(format!("the bundle of {pool}"), problem).into())
        }
    }
}

async fn follow<S: Sink>(
    sink: &S,
    pool: &str,
    head: Head,
    version: Version,
) -> Result<(Published, Replica, Recent), Damage> {
    let mut replica = Replica::new(pool);
    replica.admit(&head).map_err(|refusal| match refusal {
        Refusal::Version { .. } => {
            let problem = format!("format {}, for appliers from version {}", head.format, head.min_applier);
            Damage::Passing(PublishError::Newer { pool: pool.to_owned(), problem })
        }
        other => Damage::Damaged(other.to_string()),
    })?;
    let mut catch_up = CatchUp::new(&head, None)?;
    let mut read: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    while let Some(id) = catch_up.need() {
        let bytes = sink.read_chunk(pool, id).await?;
        catch_up.supply(bytes.clone())?;
        read.push((id, bytes));
    }
    let way = catch_up.finish()?;
    let recent = match &way {
        Way::Anew(_, deltas) => Recent::of(deltas),
        Way::Deltas(_) => unreachable!("without a version of its own a reader begins anew"),
    };
    let inline = head.delta_bytes()?;
    replica.advance(head.clone(), way).map_err(|refusal| Damage::Damaged(refusal.to_string()))?;

    let (index_id, index_bytes) = read.first().expect("without a version of its own the index is read first");
    let index = Index::decode(index_bytes)?;
    let of_checkpoint = |id: &ChunkId| id == index_id || index.chunks.contains(id);
    let bytes = read.iter().filter(|(id, _)| of_checkpoint(id)).map(|(_, bytes)| bytes.len()).sum();
    // The deltas were read newest first.
    let mut tail = Vec::new();
    for (_, bytes) in read.iter().rev().filter(|(id, _)| !of_checkpoint(id)) {
        tail.push(DeltaRef::of(bytes, Delta::decode(bytes)?.to));
    }
    let unsaved = inline.filter(|_| head.sequence > index.sequence);
    // Its chunk may have been written or not; writing it again does no harm.
    tail.extend(unsaved.iter().map(|delta| DeltaRef::of(delta, head.sequence)));
    let checkpoint = CheckpointRef {
        sequence: index.sequence,
        index: *index_id,
        raw: index.raw_size,
        chunks: index.chunks,
        bytes,
    };
    let services = count_services(replica.bundle());
    Ok((
        Published { head, version, checkpoint, tail, merged: None, unsaved, next: None, services },
        replica,
        recent,
    ))
}

fn count_services(bundle: &Bundle) -> usize {
    let owners: BTreeSet<String> = bundle
        .records()
        .into_iter()
        .filter_map(|(key, value)| match (key, value) {
            (Key::Group(_), Value::Group(group)) => Some(group.owner),
            _ => None,
        })
        .collect();
    owners.len()
}

/// How far behind the last head its pool's chunks may be.
const MARGIN: u64 = 16;

/// The highest sequence that a pool's chunks speak of, and some more: the last head's delta need not be among them. 0 when
/// there are none.
async fn highest_sequence<S: Sink>(sink: &S, pool: &str) -> Result<u64, PublishError> {
    let mut highest = 0;
    for id in sink.list_chunks(pool).await? {
        let bytes = match sink.read_chunk(pool, id).await {
            Ok(bytes) => bytes,
            Err(SinkError::Missing(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let index = Index::decode(&bytes).map(|index| index.sequence);
        let sequence = index.or_else(|_| Delta::decode(&bytes).map(|delta| delta.to));
        highest = highest.max(sequence.unwrap_or(0));
    }
    Ok(if highest == 0 { 0 } else { highest + MARGIN })
}
