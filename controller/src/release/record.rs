//! Writing a shape down as a RuleRevision.
//!
//! A revision is an index, the pieces that it lists, and deltas, as a bundle is: most of its chunks are those of the revision
//! before. What is written costs the change, and now and then a new base.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rulecast_api::{LastBundle, MAX_LINES, Origin, RuleRevisionSpec};
use rulecast_bundle::{ChunkId, Delta, Digest, Head, Mode, Shape};

use crate::publisher::{Closed, Gate, PublishError, Rotation, off_the_loop};
use crate::sink::{ChunkKind, Sink, SinkError};

/// The most deltas after a base.
const DELTAS: usize = 32;
/// The longest line of a summary, in bytes.
const LINE: usize = 512;
/// Below this size of a base, in bytes, deltas may outgrow it.
const SMALL: usize = 4096;

/// A shape that is to be written down.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) shape: Arc<Shape>,
    pub(crate) services: usize,
    pub(crate) origin: Option<Origin>,
    pub(crate) created: Timestamp,
}

/// The last bundle that a shape was published with: its head, and the chunks that this leads to.
#[derive(Clone)]
pub(crate) struct Last {
    pub(crate) digest: Digest,
    pub(crate) head: Head,
    pub(crate) chunks: Vec<ChunkId>,
}

/// What the next revision is written on top of.
#[derive(Clone)]
pub(crate) struct Parent {
    pub(crate) number: Option<u64>,
    pub(crate) shape: Arc<Shape>,
    pub(crate) chain: Option<Chain>,
}

/// The chunks of a revision that was written here.
#[derive(Clone)]
pub(crate) struct Chain {
    chunks: Vec<ChunkId>,
    base_bytes: usize,
    deltas: usize,
    delta_bytes: usize,
}

/// One that is being written.
pub(crate) struct Recording {
    pub(crate) pool: String,
    pub(crate) number: u64,
    pub(crate) wish: Wish,
    pub(crate) parent: Parent,
    pub(crate) gate: Gate,
}

/// One that was. No chunk is deleted until that is known.
pub struct Recorded {
    pub(crate) spec: RuleRevisionSpec,
    pub(crate) shape: Arc<Shape>,
    pub(crate) chain: Chain,
    _closed: Closed,
}

impl Recording {
    pub(crate) async fn write<S: Sink>(self, sink: &S) -> Result<Recorded, PublishError> {
        let (told, delta) = self.compare().await;
        let Self { pool, number, wish, parent, gate } = self;
        let (chain, closed) = if let Some((bytes, chain)) = delta {
            // A chunk of the same content may be there already, unnamed.
            let closed = gate.close().await;
            let id = ChunkId::of(&bytes);
            sink.write_chunk(&pool, ChunkKind::Revision, id, &bytes).await?;
            (chain.and(id, bytes.len()), closed)
        } else {
            let rotation = Rotation::new(&pool, number, wish.shape.records(), gate);
            let (chunks, bytes, closed) = rotation.write(sink).await?.into_parts();
            (Chain { chunks, base_bytes: bytes, deltas: 0, delta_bytes: 0 }, closed)
        };
        let spec = RuleRevisionSpec {
            pool,
            number,
            digest: wish.shape.digest().to_string(),
            mode: api_mode(wish.shape.mode()),
            services: u32::try_from(wish.services).unwrap_or(u32::MAX),
            parent: parent.number,
            created: Time(wish.created),
            cause: told.cause,
            summary: told.summary,
            origin: wish.origin,
            chunks: chain.chunks.iter().map(ChunkId::to_string).collect(),
            size_bytes: (chain.base_bytes + chain.delta_bytes) as u64,
        };
        sink.write_revision(&spec).await?;
        Ok(Recorded { spec, shape: wish.shape, chain, _closed: closed })
    }

    /// Takes milliseconds with thousands of Services: then it is done on a thread of its own.
    async fn compare(&self) -> (Told, Option<(Vec<u8>, Chain)>) {
        let (parent, wish, number) = (self.parent.clone(), self.wish.clone(), self.number);
        let records = parent.shape.records().len() + wish.shape.records().len();
        let work = move || (Told::of(&parent, &wish), delta(&parent, &wish.shape, number));
        off_the_loop(records, work).await.unwrap_or_default()
    }
}

/// The change alone, where that is the better way.
fn delta(parent: &Parent, shape: &Shape, number: u64) -> Option<(Vec<u8>, Chain)> {
    let (chain, from) = (parent.chain.as_ref()?, parent.number?);
    if parent.shape.mode() != shape.mode() || chain.deltas >= DELTAS {
        return None;
    }
    let changes = parent.shape.diff(shape);
    let bytes = Delta { from, to: number, previous: None, changes }.encode();
    let small = (chain.delta_bytes + bytes.len()) * 2 < chain.base_bytes.max(SMALL);
    (small && Delta::decode(&bytes).is_ok()).then(|| (bytes, chain.clone()))
}

/// What people read of a revision.
#[derive(Default)]
struct Told {
    cause: Vec<String>,
    summary: Vec<String>,
}

impl Told {
    fn of(parent: &Parent, wish: &Wish) -> Self {
        if parent.number.is_none() {
            let summary = vec![format!("{} Services", wish.services)];
            return Self { cause: vec!["the first revision".to_owned()], summary };
        }
        let difference = rulecast_review::diff(&parent.shape, &wish.shape);
        let mut cause = difference.causes();
        if let Some(Origin { pool, revision }) = &wish.origin {
            let revision = revision.map(|number| format!(", revision {number}")).unwrap_or_default();
            cause.insert(0, format!("promoted from RulePool {pool}{revision}"));
        }
        Self { cause: bounded(cause), summary: bounded(difference.summary()) }
    }
}

/// As many lines as a revision may have; the last one says how many there were.
fn bounded(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > MAX_LINES {
        let more = lines.len() - (MAX_LINES - 1);
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("… and {more} more"));
    }
    for line in &mut lines {
        line.truncate(line.floor_char_boundary(LINE));
    }
    lines
}

impl Chain {
    fn and(mut self, id: ChunkId, bytes: usize) -> Self {
        self.chunks.push(id);
        self.deltas += 1;
        self.delta_bytes += bytes;
        self
    }
}

impl Last {
    /// Notes it at its revision.
    pub(crate) async fn write<S: Sink>(
        self,
        sink: &S,
        pool: &str,
        number: u64,
        gate: Gate,
    ) -> Result<LastBundle, SinkError> {
        let _closed = gate.close().await;
        let bytes = serde_json::to_vec(&self.head).expect("a head is JSON");
        let id = ChunkId::of(&bytes);
        sink.write_chunk(pool, ChunkKind::Revision, id, &bytes).await?;
        let last = LastBundle {
            sequence: self.head.sequence,
            head: id.to_string(),
            chunks: self.chunks.iter().map(ChunkId::to_string).collect(),
        };
        sink.write_last_bundle(pool, number, &last).await?;
        Ok(last)
    }
}

fn api_mode(mode: Mode) -> rulecast_api::Mode {
    match mode {
        Mode::Nftables => rulecast_api::Mode::Nftables,
        Mode::Iptables => rulecast_api::Mode::Iptables,
        Mode::Ipvs => rulecast_api::Mode::Ipvs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_lines_than_fit_are_counted() {
        let lines: Vec<String> = (0..300).map(|n| format!("{n}: {}", "ü".repeat(400))).collect();
        let bounded = bounded(lines);
        assert_eq!(bounded.len(), MAX_LINES);
        assert!(bounded.iter().all(|line| line.len() <= LINE));
        assert_eq!(bounded[255], "… and 45 more");
    }
}
