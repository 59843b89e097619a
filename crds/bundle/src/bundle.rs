//! A bundle: the set of records, with the digest of its content.

use std::cmp::Ordering;

use sha2::{Digest as _, Sha256};

use crate::codec::{DecodeError, Reader, Writer};
use crate::digest::{BUCKETS, Digest, Tree};
use crate::frame::{self, Change};
use crate::publication::Delta;
use crate::record::{Key, Value};

/// All records of one pool.
///
/// They lie encoded in 4,096 buckets by the hash of their key: a record costs its own bytes, and a change costs the
/// digest of one bucket, whatever the number of records.
#[derive(Clone)]
pub struct Bundle {
    /// Each: `key length, key, value length, value`, sorted by key.
    buckets: Vec<Vec<u8>>,
    tree: Tree,
    len: usize,
}

/// So many changes are few, whatever they are compared with.
const SMALL: usize = 1000;

/// A change that does not fit the bundle it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MisfitError {
    /// Removes a record that is not there.
    #[error("it removes a record that is not there: {0:?}")]
    Absent(Key),
    /// Sets a record to the value that it has.
    #[error("it sets a record to the value that it already has: {0:?}")]
    Unchanged(Key),
}

/// The changes that lead back to the bundle before [`Bundle::apply`].
#[must_use = "dropping it makes the change final"]
pub struct Undo(Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// What became of a record.
enum Put {
    /// It has the value already.
    Unchanged,
    /// It had this one before.
    Changed(Option<Vec<u8>>),
}

impl Undo {
    /// The records it puts back, encoded, in the order of the changes; none where there was none.
    pub fn before(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS], tree: Tree::new(), len: 0 }
    }
}

impl Bundle {
    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of the content, the same whatever the order in which it came to be.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// A record's value.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Value> {
        let bytes = key.encode();
        let value = self.get_encoded(&bytes)?;
        Some(Value::decode(key, value).expect("what is stored was encoded here"))
    }

    /// A record's value by encoded key, encoded.
    #[must_use]
    pub fn get_encoded(&self, key: &[u8]) -> Option<&[u8]> {
        let bucket = &self.buckets[bucket_of(key)];
        match find(bucket, key) {
            (at, Some(end)) => Some(split(&bucket[at..end]).1),
            (_, None) => None,
        }
    }

    /// Applies changes, all or none.
    ///
    /// `Undo` holds what [`Bundle::revert`] needs, for a caller that finds a wrong digest afterwards.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Undo, MisfitError> {
        self.apply_to(changes, false)
    }

    /// Applies a delta, all of it or nothing. Of a merged one, what has happened already is passed over.
    pub fn follow(&mut self, delta: &Delta) -> Result<Undo, MisfitError> {
        self.apply_to(&delta.changes, delta.is_merged())
    }

    fn apply_to(&mut self, changes: &[Change], merged: bool) -> Result<Undo, MisfitError> {
        let mut undo = Undo(Vec::with_capacity(changes.len()));
        for change in changes {
            let key = change.key.encode();
            let value = change.value.as_ref().map(|v| v.encode(&change.key));
            match self.put(&key, value.as_deref()) {
                Put::Changed(before) => undo.0.push((key, before)),
                Put::Unchanged if merged => {}
                Put::Unchanged => {
                    self.rollback(&mut undo);
                    let key = change.key.clone();
                    return Err(if value.is_none() {
                        MisfitError::Absent(key)
                    } else {
                        MisfitError::Unchanged(key)
                    });
                }
            }
        }
        self.rehash(undo.0.iter().map(|(key, _)| bucket_of(key)).collect());
        Ok(undo)
    }

    /// Takes [`Bundle::apply`] back.
    pub fn revert(&mut self, mut undo: Undo) {
        let dirty = undo.0.iter().map(|(key, _)| bucket_of(key)).collect();
        self.rollback(&mut undo);
        self.rehash(dirty);
    }

    fn rollback(&mut self, undo: &mut Undo) {
        while let Some((key, value)) = undo.0.pop() {
            self.put(&key, value.as_deref());
        }
    }

    /// Fills an empty bundle from changes that only add, such as a checkpoint's. Costs less memory than
    /// [`Bundle::apply`], as nothing is remembered.
    pub fn load(changes: impl IntoIterator<Item = Result<Change, DecodeError>>) -> Result<Self, DecodeError> {
        let mut bundle = Self::default();
        for change in changes {
            let Change { key, value } = change?;
            let value = value.ok_or(DecodeError::NotCanonical("a checkpoint, which removes a record,"))?;
            bundle.put(&key.encode(), Some(&value.encode(&key)));
        }
        for bucket in &mut bundle.buckets {
            bucket.shrink_to_fit();
        }
        bundle.rehash((0..BUCKETS).filter(|bucket| !bundle.buckets[*bucket].is_empty()).collect());
        Ok(bundle)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Put {
        let bucket = &mut self.buckets[bucket_of(key)];
        let (at, end) = find(bucket, key);
        let before = end.map(|end| split(&bucket[at..end]).1);
        if before == value {
            return Put::Unchanged;
        }
        let before = before.map(<[u8]>::to_vec);
        let record = value.map(|value| {
            let mut w = Writer(Vec::with_capacity(key.len() + value.len() + 6));
            w.len(key.len());
            w.0.extend_from_slice(key);
            w.len(value.len());
            w.0.extend_from_slice(value);
            w.0
        });
        self.len += usize::from(record.is_some());
        self.len -= usize::from(end.is_some());
        bucket.splice(at..end.unwrap_or(at), record.unwrap_or_default());
        Put::Changed(before)
    }

    fn rehash(&mut self, dirty: Vec<usize>) {
        let buckets = &self.buckets;
        self.tree.update(dirty, |bucket| {
            if buckets[bucket].is_empty() {
                return Digest::default();
            }
            Digest::cut(Sha256::new_with_prefix(&buckets[bucket]))
        });
    }

    /// All records, sorted by key, each decoded as it is reached.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Value)> + '_ {
        let mut encoded: Vec<(&[u8], &[u8])> =
            self.buckets.iter().flat_map(|bucket| Records(bucket)).map(split).collect();
        encoded.sort_unstable();
        encoded.into_iter().map(|(key, value)| {
            let key = Key::decode(key).expect("what is stored was encoded here");
            let value = Value::decode(&key, value).expect("what is stored was encoded here");
            (key, value)
        })
    }

    /// All records, sorted by key.
    #[must_use]
    pub fn records(&self) -> Vec<(Key, Value)> {
        self.iter().collect()
    }

    /// The whole content as a frame that adds every record.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame::encode(self.iter().map(|(key, value)| (key, Some(value))))
    }

    /// The changes that lead from `self` to `target`, sorted by key.
    #[must_use]
    pub fn diff(&self, target: &Self) -> Vec<Change> {
        self.differing(target, usize::MAX).map(decode).unwrap_or_default()
    }

    /// The same; none when so many records differ that beginning anew is the better way: more than a quarter of them.
    pub(crate) fn small_diff(&self, target: &Self) -> Option<Vec<Change>> {
        self.differing(target, (self.len / 4).max(SMALL)).map(decode)
    }

    /// The encoded keys of the records that differ, sorted.
    pub(crate) fn differing_from<'a>(&'a self, target: &'a Self) -> Vec<&'a [u8]> {
        let changes = self.differing(target, usize::MAX).unwrap_or_default();
        changes.into_iter().map(|(key, _)| key).collect()
    }

    /// The changes that lead from `self` to `target`, encoded, sorted by key; none when there are more than `limit`.
    fn differing<'a>(&'a self, target: &'a Self, limit: usize) -> Option<Vec<Encoded<'a>>> {
        let mut changes: Vec<Encoded<'a>> = Vec::new();
        for (from, to) in self.buckets.iter().zip(&target.buckets) {
            if from == to {
                continue;
            }
            for (key, _) in Records(from).map(split) {
                if find(to, key).1.is_none() {
                    changes.push((key, None));
                }
            }
            for (key, value) in Records(to).map(split) {
                if self.get_encoded(key) != Some(value) {
                    changes.push((key, Some(value)));
                }
            }
            if changes.len() > limit {
                return None;
            }
        }
        changes.sort_unstable();
        Some(changes)
    }
}

/// A change as its key and value are encoded.
type Encoded<'a> = (&'a [u8], Option<&'a [u8]>);

fn decode(changes: Vec<Encoded<'_>>) -> Vec<Change> {
    let decoded = changes.into_iter().map(|(key, value)| {
        let key = Key::decode(key).expect("what is stored was encoded here");
        let value = value.map(|v| Value::decode(&key, v).expect("what is stored was encoded here"));
        Change { key, value }
    });
    decoded.collect()
}

/// FNV-1a, mixed once more so that the low bits depend on all of the key.
fn bucket_of(key: &[u8]) -> usize {
    let hash =
        key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).expect("32 bits") % BUCKETS
}

/// Where the record with `key` begins, or would begin, and where it ends if it is there.
fn find(bucket: &[u8], key: &[u8]) -> (usize, Option<usize>) {
    let mut at = 0;
    for record in Records(bucket) {
        match split(record).0.cmp(key) {
            Ordering::Less => at += record.len(),
            Ordering::Equal => return (at, Some(at + record.len())),
            Ordering::Greater => break,
        }
    }
    (at, None)
}

/// Iterates over a bucket's records, each with its lengths.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let mut r = Reader(self.0);
        for _ in 0..2 {
            let n = r.len("record", usize::MAX).expect("a stored length");
            r.take(n).expect("a stored record");
        }
        let (record, rest) = self.0.split_at(self.0.len() - r.0.len());
        self.0 = rest;
        Some(record)
    }
}

/// A stored record's key and value.
fn split(record: &[u8]) -> (&[u8], &[u8]) {
    let mut r = Reader(record);
    let mut part = || {
        let n = r.len("record", usize::MAX).expect("a stored length");
        r.take(n).expect("a stored record")
    };
    (part(), part())
}
