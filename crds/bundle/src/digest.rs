//! Digests: of a bundle's content, and of what a node is asked to run.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The first 160 bits of a SHA-256 value; as text, 27 characters of URL-safe base64. Every node gets one with every head, and
/// to find two contents with the same 160 bits takes 2^80 attempts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 20]);

/// Text that is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: 27 characters of URL-safe base64 are wanted")]
pub struct BadDigest;

impl Digest {
    /// Hashes the parts with their lengths before them, so that no two lists of parts hash alike.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self::cut(hash)
    }

    /// What a hash came to.
    pub(crate) fn cut(hash: Sha256) -> Self {
        Self(*hash.finalize().first_chunk().expect("32 bytes"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadDigest)?;
        bytes.try_into().map(Self).map_err(|_| BadDigest)
    }
}

/// The fan-out of the digest tree.
const WIDTH: usize = 16;
/// The number of leaves: three levels of 16.
pub(crate) const BUCKETS: usize = WIDTH * WIDTH * WIDTH;

/// A tree of hashes over the buckets of a bundle: a changed bucket costs one leaf and three inner hashes.
#[derive(Clone)]
pub(crate) struct Tree {
    leaves: Vec<Digest>,
    /// 256, then 16, then 1 digests, each over 16 of the level below.
    inner: [Vec<Digest>; 3],
}

impl Tree {
    pub(crate) fn new() -> Self {
        // Without records everything on a level is the same.
        let mut below = Digest::default();
        let inner = [256, 16, 1].map(|n| {
            below = over(&[below; WIDTH]);
            vec![below; n]
        });
        Self { leaves: vec![Digest::default(); BUCKETS], inner }
    }

    pub(crate) fn root(&self) -> Digest {
        self.inner[2][0]
    }

    /// Takes new leaf values for the `dirty` buckets and recomputes what lies above them.
    pub(crate) fn update(&mut self, mut dirty: Vec<usize>, leaf: impl Fn(usize) -> Digest) {
        dirty.sort_unstable();
        dirty.dedup();
        for &bucket in &dirty {
            self.leaves[bucket] = leaf(bucket);
        }
        for level in 0..3 {
            for index in &mut dirty {
                *index /= WIDTH;
            }
            dirty.dedup();
            for &index in &dirty {
                let below = if level == 0 { &self.leaves } else { &self.inner[level - 1] };
                self.inner[level][index] = over(&below[index * WIDTH..(index + 1) * WIDTH]);
            }
        }
    }
}

/// The digest of those below it.
fn over(children: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    for child in children {
        hash.update(child.0);
    }
    Digest::cut(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_strict_and_round_trips() {
        let digest = Digest::of(&[b"a", b"bc"]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_ne!(digest, Digest::of(&[b"ab", b"c"]), "parts are length-prefixed");
        assert_eq!("".parse::<Digest>(), Err(BadDigest));
        assert_eq!(format!("{digest}=").parse::<Digest>(), Err(BadDigest));
    }

    #[test]
    fn updating_one_leaf_equals_building_anew() {
        let value = |bucket: usize| Digest::of(&[&bucket.to_be_bytes()]);
        let mut empty = Tree::new();
        empty.update((0..BUCKETS).collect(), |_| Digest::default());
        assert_eq!(empty.root(), Tree::new().root());
        let mut whole = Tree::new();
        whole.update((0..BUCKETS).collect(), value);
        let mut stepwise = Tree::new();
        for bucket in (0..BUCKETS).rev() {
            stepwise.update(vec![bucket], value);
        }
        assert_eq!(whole.root(), stepwise.root());
    }
}
