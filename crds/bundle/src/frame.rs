//! Frames: sorted lists of record changes, front-coded.
//!
//! A delta is a frame of changes; a checkpoint is a frame of additions to nothing. Three streams (how much of the key
//! is shared with the one before, the rest of the key, the value) lie one after the other, so that each compresses
//! with its own statistics. Pods of one node usually share a /24 (or /64): a member's node is left out when it is that
//! of the member seen last with the same prefix.
//!
//! There is one encoding of a list of changes: anything else is refused.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::IpAddr;

use crate::codec::{DecodeError, Reader, Writer};
use crate::record::{Key, Member, Value};

/// A record added or replaced (`Some`), or removed (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record.
    pub key: Key,
    /// Its new content.
    pub value: Option<Value>,
}

/// The longest encoded key, in bytes.
const MAX_KEY: usize = 256;
/// The most records of a bundle, or changes of a delta.
pub const MAX_RECORDS: usize = 8 << 20;

/// Encodes changes, which must be sorted by key without duplicates.
///
/// # Panics
/// When they are not.
#[must_use]
pub fn encode<K: Borrow<Key>, V: Borrow<Value>>(
    changes: impl IntoIterator<Item = (K, Option<V>)>,
) -> Vec<u8> {
    let mut count = 0u64;
    let [mut heads, mut tails, mut values] = [const { Writer(Vec::new()) }; 3];
    let mut nodes = NodeModel::default();
    let mut previous = Vec::new();
    for (key, value) in changes {
        let (key, value) = (key.borrow(), value.as_ref().map(Borrow::borrow));
        let bytes = key.encode();
        assert!(count == 0 || previous < bytes, "changes are sorted by key");
        let shared = previous.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        heads.varint((shared as u64) << 1 | u64::from(value.is_none()));
        heads.len(bytes.len() - shared);
        tails.0.extend_from_slice(&bytes[shared..]);
        match (key, value) {
            (Key::Member { addr, .. }, Some(Value::Member(member))) => {
                nodes.write(&mut values, *addr, *member);
            }
            (_, Some(value)) => value.write(key, &mut values),
            (_, None) => {}
        }
        previous = bytes;
        count += 1;
    }
    let mut out = Writer(Vec::with_capacity(heads.0.len() + tails.0.len() + values.0.len() + 16));
    out.varint(count);
    for stream in [&heads, &tails] {
        out.len(stream.0.len());
        out.0.extend_from_slice(&stream.0);
    }
    out.0.extend_from_slice(&values.0);
    out.0
}

/// Reads a frame, one change at a time.
pub struct Decoder<'a> {
    left: usize,
    heads: Reader<'a>,
    tails: Reader<'a>,
    values: Reader<'a>,
    nodes: NodeModel,
    previous: Vec<u8>,
    first: bool,
}

impl<'a> Decoder<'a> {
    /// Begins to read a frame.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let left = r.len("number of changes", MAX_RECORDS)?;
        let mut stream = || -> Result<Reader<'a>, DecodeError> {
            let n = r.len("stream length", bytes.len())?;
            Ok(Reader(r.take(n)?))
        };
        let (heads, tails) = (stream()?, stream()?);
        Ok(Self {
            left,
            heads,
            tails,
            values: r,
            nodes: NodeModel::default(),
            previous: Vec::new(),
            first: true,
        })
    }

    /// The number of changes not yet read, as the frame claims it; never more than the frame has bytes.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.min(self.heads.0.len())
    }

    /// The next change; none at the end, when every byte of the frame was used.
    pub fn read(&mut self) -> Result<Option<Change>, DecodeError> {
        if self.left == 0 {
            self.heads.end()?;
            self.tails.end()?;
            self.values.end()?;
            return Ok(None);
        }
        self.left -= 1;
        let head = self.heads.varint()?;
        let shared = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        if shared > self.previous.len() {
            return Err(DecodeError::Invalid { what: "shared key length", value: head >> 1 });
        }
        let rest = self.heads.len("key length", MAX_KEY - shared.min(MAX_KEY))?;
        let tail = self.tails.take(rest)?;
        // Sorted, and sharing as much as there is to share: the first byte that differs must be greater.
        if !self.first && tail.first() <= self.previous.get(shared) {
            return Err(DecodeError::NotCanonical("the order of changes"));
        }
        self.first = false;
        self.previous.truncate(shared);
        self.previous.extend_from_slice(tail);
        let key = Key::decode(&self.previous)?;
        let value = match (&key, head & 1) {
            (_, 1) => None,
            (Key::Member { addr, .. }, _) => Some(Value::Member(self.nodes.read(&mut self.values, *addr)?)),
            _ => Some(Value::read(&key, &mut self.values)?),
        };
        Ok(Some(Change { key, value }))
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Change, DecodeError>;

    /// Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().transpose();
        if matches!(item, Some(Err(_))) {
            *self = Self {
                left: 0,
                heads: Reader(&[]),
                tails: Reader(&[]),
                values: Reader(&[]),
                ..std::mem::take(self)
            };
        }
        item
    }
}

impl Default for Decoder<'_> {
    fn default() -> Self {
        Self {
            left: 0,
            heads: Reader(&[]),
            tails: Reader(&[]),
            values: Reader(&[]),
            nodes: NodeModel::default(),
            previous: Vec::new(),
            first: true,
        }
    }
}

const EXPLICIT_NODE: u8 = 1;
const TERMINATING: u8 = 2;

/// Predicts the node of a member from its address.
#[derive(Default)]
struct NodeModel(HashMap<u64, u32>);

impl NodeModel {
    fn guess(&mut self, addr: IpAddr) -> &mut u32 {
        let prefix = match addr {
            IpAddr::V4(a) => u64::from(a.to_bits() >> 8),
            IpAddr::V6(a) => u64::try_from(a.to_bits() >> 64).expect("64 bits"),
        };
        self.0.entry(prefix).or_default()
    }

    fn write(&mut self, w: &mut Writer, addr: IpAddr, member: Member) {
        let guess = self.guess(addr);
        let explicit = *guess != member.node;
        *guess = member.node;
        let terminating = if member.terminating { TERMINATING } else { 0 };
        w.u8(if explicit { EXPLICIT_NODE | terminating } else { terminating });
        if explicit {
            w.u32(member.node);
        }
    }

    fn read(&mut self, r: &mut Reader<'_>, addr: IpAddr) -> Result<Member, DecodeError> {
        let flags = r.u8()?;
        if flags > (EXPLICIT_NODE | TERMINATING) {
            return Err(DecodeError::Invalid { what: "member flags", value: flags.into() });
        }
        let guess = self.guess(addr);
        if flags & EXPLICIT_NODE != 0 {
            let node = r.u32()?;
            if node == *guess {
                return Err(DecodeError::NotCanonical("a member's node"));
            }
            *guess = node;
        }
        Ok(Member { node: *guess, terminating: flags & TERMINATING != 0 })
    }
}
