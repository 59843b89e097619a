//! From a head to the bundle it stands for: which chunks to read, and in what order.

use crate::Bundle;
use crate::codec::DecodeError;
use crate::frame::Decoder;
use crate::publication::{Checkpoint, ChunkId, Delta, Head, Index};

/// The most deltas to walk back before the checkpoint is the cheaper way.
const MAX_TAIL: usize = 512;

/// Collects what leads from the version that is there to the one a head names. It does no I/O: ask [`CatchUp::need`]
/// which chunk is wanted next and [`CatchUp::supply`] its bytes, until none is.
///
/// A reader that is a few publications behind reads as many deltas less one; one further behind reads a few deltas and a
/// merged one; one that has nothing reads the checkpoint and the same deltas.
pub struct CatchUp {
    /// The version that is there; none: start from a checkpoint.
    have: Option<u64>,
    /// The head's version.
    target: u64,
    checkpoint: ChunkId,
    /// Newest first.
    deltas: Vec<Delta>,
    /// The sequence that `deltas` leads back to.
    reached: u64,
    index: Option<Index>,
    chunks: Vec<Vec<u8>>,
}

/// What a chunk is, from who names it.
enum Piece {
    Index,
    Delta,
    Chunk,
}

/// What [`CatchUp`] collected.
pub enum Way {
    /// Apply these to the version that is there, in order.
    Deltas(Vec<Delta>),
    /// Start anew from this bundle, then apply these.
    Anew(Box<Bundle>, Vec<Delta>),
}

impl CatchUp {
    /// Begins. `have` is the sequence that is there, of the same epoch as the head.
    pub fn new(head: &Head, have: Option<u64>) -> Result<Self, DecodeError> {
        let checkpoint = head.checkpoint.parse().map_err(|_| DecodeError::Text("the checkpoint's name"))?;
        let mut this = Self {
            have,
            target: head.sequence,
            checkpoint,
            deltas: Vec::new(),
            reached: head.sequence,
            index: None,
            chunks: Vec::new(),
        };
        if let Some(bytes) = head.delta_bytes()? {
            this.push(Delta::decode(&bytes)?)?;
        }
        Ok(this)
    }

    fn push(&mut self, delta: Delta) -> Result<(), DecodeError> {
        if delta.to != self.reached {
            return Err(DecodeError::Invalid { what: "sequence of a delta", value: delta.to });
        }
        self.reached = delta.from;
        self.deltas.push(delta);
        Ok(())
    }

    fn wants(&self) -> Option<(Piece, ChunkId)> {
        let checkpoint = (Piece::Index, self.checkpoint);
        let walk = self.deltas.last().and_then(|d| d.previous).map(|id| (Piece::Delta, id));
        match (&self.index, self.have) {
            (None, None) => Some(checkpoint),
            (None, Some(have)) if self.reached <= have => None,
            (None, Some(_)) => Some(walk.filter(|_| self.deltas.len() < MAX_TAIL).unwrap_or(checkpoint)),
            (Some(index), _) if self.reached > index.sequence => walk,
            (Some(index), _) => index.chunks.get(self.chunks.len()).map(|id| (Piece::Chunk, *id)),
        }
    }

    /// The chunk to read next; none when everything is there.
    #[must_use]
    pub fn need(&self) -> Option<ChunkId> {
        self.wants().map(|(_, id)| id)
    }

    /// Takes the bytes of the chunk that [`CatchUp::need`] named.
    pub fn supply(&mut self, bytes: Vec<u8>) -> Result<(), DecodeError> {
        let (piece, id) = self.wants().ok_or(DecodeError::Damaged("a chunk that nothing names"))?;
        if ChunkId::of(&bytes) != id {
            return Err(DecodeError::Damaged("a chunk"));
        }
        match piece {
            Piece::Index => self.index = Some(Index::decode(&bytes)?),
            Piece::Delta => self.push(Delta::decode(&bytes)?)?,
            Piece::Chunk => self.chunks.push(bytes),
        }
        Ok(())
    }

    /// The collected way. Fails when deltas and checkpoint do not meet.
    pub fn finish(mut self) -> Result<Way, DecodeError> {
        self.deltas.reverse();
        let start = self.index.as_ref().map_or(self.have, |index| Some(index.sequence)).unwrap_or_default();
        self.deltas.retain(|d| d.to > start);
        let meets = match self.deltas.first() {
            None => start == self.target,
            Some(delta) => delta.from == start || delta.from < start && delta.is_merged(),
        };
        if !meets {
            return Err(DecodeError::Damaged("the chain of deltas"));
        }
        let Some(index) = self.index else { return Ok(Way::Deltas(self.deltas)) };
        let raw = Checkpoint::frame(&index, &self.chunks)?;
        drop(self.chunks);
        let bundle = Bundle::load(Decoder::new(&raw)?)?;
        Ok(Way::Anew(Box::new(bundle), self.deltas))
    }
}
