//! What a publication consists of, decided without I/O.

use rulecast_bundle::frame::Change;
use rulecast_bundle::{ChunkId, Delta, FORMAT, Head};
use rulecast_compiler::PoolBundle;

use super::checkpoint::{Gate, Rotation};
use super::published::Published;
use crate::sink::Version;

/// When deltas go inline, and when a new checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest delta that goes inline, in bytes. Nodes cannot find a longer one, so the whole bundle is published
    /// instead.
    pub inline: usize,
    /// The most deltas after a checkpoint.
    pub deltas: usize,
    /// Deltas after a checkpoint may take this many bytes, or `percent` of it if that is more.
    pub bytes: usize,
    /// See `bytes`.
    pub percent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inline: 256 << 10, deltas: 256, bytes: 32_000, percent: 25 }
    }
}

/// More changes than this may not fit the format's limit before compression, which is then checked.
const SURELY_DECODABLE: usize = 20_000;

/// What a plan is made on top of.
pub(super) enum On<'a> {
    Head(&'a Published, Vec<Change>),
    /// Nothing that could be followed from.
    Ruins {
        sequence: u64,
        epoch: u64,
        version: Option<Version>,
    },
}

/// A delta as it goes out.
pub(super) struct EncodedDelta {
    pub(super) id: ChunkId,
    pub(super) bytes: Vec<u8>,
    pub(super) changes: usize,
}

/// Where nodes that cannot follow the deltas begin.
pub(super) enum Start {
    /// The checkpoint of the version before stays.
    Same,
    /// The one that was written since.
    Next,
    /// One of this version, which is written first.
    Whole(Rotation),
}

/// A publication, decided.
pub struct Plan {
    pub(super) pool: String,
    /// Without its checkpoint's name if that is not written yet.
    pub(super) head: Head,
    pub(super) over: Option<Version>,
    /// A delta that the new head leads to and that is not known to be a chunk yet.
    pub(super) first: Option<Vec<u8>>,
    pub(super) delta: Option<EncodedDelta>,
    pub(super) start: Start,
    /// A checkpoint that is overdue: written after the head, for the head after it.
    pub(super) overdue: Option<Rotation>,
    /// What it replaces.
    pub(super) before: Option<Published>,
    pub(super) services: usize,
}

impl Plan {
    pub(super) fn new(pool: &str, on: On<'_>, bundle: &PoolBundle, limits: &Limits, gate: &Gate) -> Self {
        let (before, epoch, over) = match &on {
            On::Head(published, _) => {
                (published.head.sequence, published.head.epoch, Some(published.version.clone()))
            }
            On::Ruins { sequence, epoch, version } => (*sequence, *epoch, version.clone()),
        };
        let sequence = before + 1;
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: bundle.options().mode,
            epoch,
            sequence,
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest(pool, bundle.bundle().root()).to_string();
        let snapshot = || Rotation::new(pool, sequence, bundle.bundle(), gate.clone());
        let mut plan = Self {
            pool: pool.to_owned(),
            head,
            over,
            first: None,
            delta: None,
            start: Start::Same,
            overdue: None,
            before: None,
            services: bundle.stats().services,
        };
        match on {
            On::Head(published, changes) => {
                plan.before = Some(published.clone());
                if !plan.follow(published, changes, limits) {
                    plan.start = Start::Whole(snapshot());
                } else if matches!(plan.start, Start::Same) && published.is_due(limits, 2) {
                    // There was no quiet moment for it.
                    plan.overdue = Some(snapshot());
                }
            }
            On::Ruins { .. } => plan.start = Start::Whole(snapshot()),
        }
        plan
    }

    /// Makes it a delta, unless that would be too large.
    fn follow(&mut self, published: &Published, changes: Vec<Change>, limits: &Limits) -> bool {
        let from = published.head.sequence;
        let previous = published.tail.last().copied().filter(|_| published.next.is_none());
        let count = changes.len();
        let bytes = Delta { from, to: from + 1, previous, changes }.encode();
        let decodable = count <= SURELY_DECODABLE || Delta::decode(&bytes).is_ok();
        if bytes.len() > limits.inline || !decodable {
            return false;
        }
        self.head.set_delta(&bytes);
        self.first = published.unsaved.clone().filter(|_| previous.is_some());
        self.delta = Some(EncodedDelta { id: ChunkId::of(&bytes), bytes, changes: count });
        let checkpoint = published.next.as_ref().unwrap_or(&published.checkpoint);
        self.head.checkpoint = checkpoint.index.to_string();
        if published.next.is_some() {
            self.start = Start::Next;
        }
        true
    }

    /// The sequence that it will have.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }
}
