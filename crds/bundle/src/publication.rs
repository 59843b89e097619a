//! What travels: the head that nodes watch, deltas, checkpoints and the chunks that hold them.

use std::fmt;
use std::io::Read as _;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ruzstd::decoding::StreamingDecoder;
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, Writer};
use crate::digest::Digest;
use crate::frame::{Change, Decoder};
#[cfg(feature = "encode")]
use crate::{Bundle, frame};

/// The version of the format that this crate reads and writes. 2: lanes, session affinity per Service port, health checks.
/// 3: merged deltas, shorter digests.
pub const FORMAT: u32 = 4;
/// What a head that names no format has.
const UNSAID: u32 = 3;
/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 512 << 10;
/// The largest checkpoint before compression, in bytes: room for 4,000,000 endpoints.
pub const MAX_CHECKPOINT: usize = 128 << 20;
/// The most chunks of a checkpoint.
const MAX_CHUNKS: usize = 256;
/// The largest delta before compression, in bytes.
pub const MAX_DELTA: usize = 4 << 20;
/// The most changes of a delta: read into memory all at once, unlike a checkpoint's.
const MAX_CHANGES: usize = 200_000;
/// The longest inline delta of a head, in characters of base64; the custom resource has the same limit.
const MAX_INLINE: usize = 512 << 10;
/// The largest window that compressed data may ask for, in bytes: what bounds the node's memory.
const MAX_WINDOW: u64 = 128 << 10;
/// Deltas below this size are not compressed, in bytes.
#[cfg(feature = "encode")]
const COMPRESS_FROM: usize = 256;

/// The name of a chunk: 160 bits of the hash of its bytes, as 32 characters of base32hex in lower case, so that it can
/// name a Kubernetes object and a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkId(pub [u8; 20]);

/// Text that is not a [`ChunkId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a chunk's name: 32 characters of 0-9 and a-v are wanted")]
pub struct BadChunkId;

impl ChunkId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let Digest(hash) = Digest::of(&[b"rulecast chunk", bytes]);
        Self(hash)
    }
}

const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for five in self.0.chunks_exact(5) {
            let bits = five.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            for shift in (0..40).step_by(5).rev() {
                let digit = usize::try_from(bits >> shift & 31).expect("5 bits");
                write!(f, "{}", char::from(BASE32[digit]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

impl FromStr for ChunkId {
    type Err = BadChunkId;

    fn from_str(text: &str) -> Result<Self, BadChunkId> {
        if text.len() != 32 {
            return Err(BadChunkId);
        }
        let mut id = [0u8; 20];
        for (five, chars) in id.chunks_exact_mut(5).zip(text.as_bytes().chunks_exact(8)) {
            let mut bits = 0u64;
            for c in chars {
                let digit = BASE32.iter().position(|d| d == c).ok_or(BadChunkId)?;
                bits = bits << 5 | digit as u64;
            }
            five.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Ok(Self(id))
    }
}

/// A pool's proxy mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Maps and fixed chains of nf_tables.
    #[default]
    Nftables,
    /// Chains through `iptables-restore`.
    Iptables,
    /// Virtual servers of IPVS.
    Ipvs,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        })
    }
}

/// What a node watches: the current version of its pool's bundle. Every byte of it is sent to every node, so what has
/// its usual value is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The format of everything that this head leads to.
    #[serde(default = "unsaid", skip_serializing_if = "is_unsaid")]
    pub format: u32,
    /// The lowest applier version (of this contract, not of the release) that may apply it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub min_applier: u32,
    /// The pool's mode.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Raised by an operator who restored the cluster from a backup, to make nodes accept lower sequences once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub epoch: u64,
    /// Counts the publications of this pool; never goes back within an epoch.
    pub sequence: u64,
    /// See [`Head::expected_digest`].
    pub digest: String,
    /// The chunk that lists the chunks of the latest checkpoint.
    pub checkpoint: String,
    /// The latest delta, in base64; empty when it did not fit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delta: String,
}

fn unsaid() -> u32 {
    UNSAID
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unsaid(v: &u32) -> bool {
    *v == UNSAID
}
fn one() -> u32 {
    1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(v: &u32) -> bool {
    *v == 1
}
fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

impl Head {
    /// The digest of a bundle as published: of its content and of everything in the head that a node acts on. A head
    /// in which any of that was altered, or that belongs to another pool, has another digest.
    #[must_use]
    pub fn expected_digest(&self, pool: &str, root: Digest) -> Digest {
        let numbers =
            [self.format.into(), self.min_applier.into(), self.epoch, self.sequence].map(u64::to_be_bytes);
        Digest::of(&[
            b"rulecast bundle",
            pool.as_bytes(),
            self.mode.to_string().as_bytes(),
            &numbers.concat(),
            &root.0,
        ])
    }

    /// The inline delta's bytes; none when there is none.
    pub fn delta_bytes(&self) -> Result<Option<Vec<u8>>, DecodeError> {
        if self.delta.is_empty() {
            return Ok(None);
        }
        if self.delta.len() > MAX_INLINE {
            let value = self.delta.len() as u64;
            return Err(DecodeError::TooLarge { what: "inline delta", value, limit: MAX_INLINE as u64 });
        }
        STANDARD_NO_PAD.decode(&self.delta).map(Some).map_err(|_| DecodeError::Text("the inline delta"))
    }

    /// Puts a delta inline.
    pub fn set_delta(&mut self, bytes: &[u8]) {
        self.delta = STANDARD_NO_PAD.encode(bytes);
    }
}

/// The changes from one sequence to the next, and where the delta before it is. Or those of several sequences merged into
/// one, so that a reader far behind has few chunks to read; see [`Delta::is_merged`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The sequence it starts from.
    pub from: u64,
    /// The sequence it leads to.
    pub to: u64,
    /// The chunk that holds a delta leading to `from`; none when `from` is a checkpoint's.
    pub previous: Option<ChunkId>,
    /// The changes, sorted by key.
    pub changes: Vec<Change>,
}

/// A compressed delta ends with this many bytes of its own hash: compressed data has bits that decoders ignore, and no
/// flipped bit is to pass.
const SEAL: usize = 8;
const DELTA_PLAIN: u8 = 0x10;
const DELTA_ZSTD: u8 = 0x11;

impl Delta {
    /// Whether it holds the changes of more than one sequence: every record that was touched, with what became of it in
    /// the end. That leads to `to` from any sequence between, so a change may turn out to be none.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.to - self.from > 1
    }

    /// Encodes it, compressed when that is shorter.
    #[cfg(feature = "encode")]
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = frame::encode(self.changes.iter().map(|c| (&c.key, c.value.as_ref())));
        let packed = if body.len() < COMPRESS_FROM { None } else { Some(compress(&body)) };
        let packed = packed.filter(|p| p.len() < body.len());
        let mut w = Writer(Vec::new());
        w.u8(if packed.is_some() { DELTA_ZSTD } else { DELTA_PLAIN });
        w.varint(self.to);
        w.varint(self.to - self.from);
        w.u8(self.previous.is_some().into());
        if let Some(previous) = self.previous {
            w.0.extend_from_slice(&previous.0);
        }
        if packed.is_some() {
            w.len(body.len());
        }
        w.0.extend_from_slice(packed.as_ref().unwrap_or(&body));
        if packed.is_some() {
            let seal = seal(&w.0);
            w.0.extend_from_slice(&seal);
        }
        w.0
    }

    /// Reads a delta; its changes are sorted and canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes = if bytes.first() == Some(&DELTA_ZSTD) { unseal(bytes)? } else { bytes };
        let mut r = Reader(bytes);
        let kind = r.u8()?;
        let to = r.varint()?;
        let step = r.varint()?;
        let from = to.checked_sub(step).filter(|_| step > 0);
        let from = from.ok_or(DecodeError::Invalid { what: "delta step", value: step })?;
        let previous = if r.bool("previous delta flag")? { Some(ChunkId(r.bytes()?)) } else { None };
        let unpacked;
        let body = match kind {
            DELTA_PLAIN => r.0,
            DELTA_ZSTD => {
                let size = r.len("delta size", MAX_DELTA)?;
                unpacked = decompress(r.0, size)?;
                &unpacked
            }
            v => return Err(DecodeError::Invalid { what: "delta format", value: v.into() }),
        };
        let decoder = Decoder::new(body)?;
        if decoder.remaining() > MAX_CHANGES {
            let (value, limit) = (decoder.remaining() as u64, MAX_CHANGES as u64);
            return Err(DecodeError::TooLarge { what: "number of changes", value, limit });
        }
        let changes = decoder.collect::<Result<_, _>>()?;
        Ok(Self { from, to, previous, changes })
    }
}

fn unseal(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let sealed = bytes.len().checked_sub(SEAL).ok_or(DecodeError::Truncated)?;
    let (bytes, end) = bytes.split_at(sealed);
    if end == seal(bytes) { Ok(bytes) } else { Err(DecodeError::Damaged("the delta")) }
}

fn seal(bytes: &[u8]) -> [u8; SEAL] {
    let ChunkId(hash) = ChunkId::of(bytes);
    *hash.first_chunk().expect("20 bytes")
}

/// A checkpoint's table of contents, itself a chunk: the head names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The sequence that the checkpoint holds.
    pub sequence: u64,
    /// The size of the frame before compression, in bytes.
    pub raw_size: usize,
    /// The chunks whose concatenation is the compressed frame.
    pub chunks: Vec<ChunkId>,
}

const INDEX: u8 = 0x20;

impl Index {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(vec![INDEX]);
        w.varint(self.sequence);
        w.len(self.raw_size);
        w.list(&self.chunks, |w, id| w.0.extend_from_slice(&id.0));
        w.0
    }

    /// Reads an index.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let kind = r.u8()?;
        if kind != INDEX {
            return Err(DecodeError::Invalid { what: "index format", value: kind.into() });
        }
        let index = Self {
            sequence: r.varint()?,
            raw_size: r.len("checkpoint size", MAX_CHECKPOINT)?,
            chunks: r.list("checkpoint chunks", MAX_CHUNKS, |r| Ok(ChunkId(r.bytes()?)))?,
        };
        r.end()?;
        Ok(index)
    }
}

/// A whole bundle, as an index and chunks.
pub struct Checkpoint {
    /// The index.
    pub index: Index,
    /// The chunks' bytes, as the index names them.
    pub chunks: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// Encodes a bundle.
    #[cfg(feature = "encode")]
    #[must_use]
    pub fn encode(sequence: u64, bundle: &Bundle) -> Self {
        Self::of_frame(sequence, &bundle.frame())
    }

    /// Encodes a bundle's frame ([`Bundle::frame`]); for callers that compress on another thread than the bundle's.
    #[cfg(feature = "encode")]
    #[must_use]
    pub fn of_frame(sequence: u64, raw: &[u8]) -> Self {
        let chunks: Vec<Vec<u8>> = compress(raw).chunks(MAX_CHUNK).map(<[u8]>::to_vec).collect();
        let ids = chunks.iter().map(|c| ChunkId::of(c)).collect();
        Self { index: Index { sequence, raw_size: raw.len(), chunks: ids }, chunks }
    }

    /// The frame of a checkpoint, from all of its chunks. Refuses a chunk that is not what the index names.
    pub fn frame(index: &Index, chunks: &[Vec<u8>]) -> Result<Vec<u8>, DecodeError> {
        let whole = index.chunks.len() == chunks.len()
            && index.chunks.iter().zip(chunks).all(|(id, bytes)| *id == ChunkId::of(bytes));
        if !whole {
            return Err(DecodeError::Damaged("a chunk of the checkpoint"));
        }
        decompress(&chunks.concat(), index.raw_size)
    }

    /// The checkpoint's size on the wire, in bytes, index included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.index.encode().len() + self.chunks.iter().map(Vec::len).sum::<usize>()
    }
}

#[cfg(feature = "encode")]
fn compress(bytes: &[u8]) -> Vec<u8> {
    use zstd::bulk::Compressor;
    use zstd::zstd_safe::CParameter;
    let mut encoder = Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).expect("zstd has memory");
    for parameter in [
        CParameter::CompressionLevel(18),
        CParameter::WindowLog(MAX_WINDOW.ilog2()),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
    ] {
        encoder.set_parameter(parameter).expect("a valid zstd parameter");
    }
    encoder.compress(bytes).expect("zstd compresses into its own bound")
}

/// Unpacks exactly `size` bytes, the caller having bounded `size`.
fn decompress(bytes: &[u8], size: usize) -> Result<Vec<u8>, DecodeError> {
    let damaged = |e: &dyn fmt::Display| DecodeError::Compression(e.to_string());
    let mut rest = bytes;
    let mut decoder =
        StreamingDecoder::new_with_max_window_size(&mut rest, MAX_WINDOW).map_err(|e| damaged(&e))?;
    let mut out = Vec::with_capacity(size.min(bytes.len().saturating_mul(64)));
    decoder.by_ref().take(size as u64 + 1).read_to_end(&mut out).map_err(|e| damaged(&e))?;
    drop(decoder);
    if out.len() != size {
        return Err(DecodeError::Compression(format!("it unpacks to another size than {size}")));
    }
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    Ok(out)
}
