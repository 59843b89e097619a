//! What a publication consists of, decided without I/O.

use rulecast_bundle::frame::Change;
use rulecast_bundle::{Delta, FORMAT, Head};
use rulecast_compiler::PoolBundle;

use super::checkpoint::Rotation;
use super::published::Published;
use super::recent::Recent;
use crate::sink::Version;

/// When deltas go inline and are merged, and when a new checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest delta that goes inline, in bytes. Nodes cannot find a longer one, so the whole bundle is published
    /// instead.
    pub inline: usize,
    /// After this many single deltas all since the checkpoint are merged: the most chunks that a node far behind reads
    /// beside a checkpoint.
    pub single: usize,
    /// The largest merged delta, in bytes. Beyond it a new checkpoint is the better way.
    pub merged: usize,
    /// The most versions after a checkpoint.
    pub deltas: u64,
    /// Deltas after a checkpoint may take this many bytes, or `percent` of it if that is more, but not more than `merged`.
    pub bytes: usize,
    /// See `bytes`.
    pub percent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inline: 256 << 10, single: 8, merged: 192 << 10, deltas: 1024, bytes: 32_000, percent: 25 }
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
    pub(super) bytes: Vec<u8>,
    pub(super) changes: Vec<Change>,
}

/// Where nodes that cannot follow the deltas begin.
pub(super) enum Start {
    /// The newest checkpoint that is written.
    Newest,
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
    /// Kept instead of the delta, once the head is written: all changes since the checkpoint.
    pub(super) merged: Option<Delta>,
    pub(super) start: Start,
    /// What it replaces.
    pub(super) before: Option<Published>,
    pub(super) services: usize,
    pub(super) limits: Limits,
}

impl Plan {
    /// A version of a higher epoch than the one before is published whole, since nodes begin
    /// anew.
    pub(super) fn new(
        pool: &str,
        on: On<'_>,
        bundle: &PoolBundle,
        recent: &Recent,
        settings: &super::Settings,
    ) -> Self {
        let (before, epoch, over) = match &on {
            On::Head(published, _) => {
                (published.head.sequence, published.head.epoch, Some(published.version.clone()))
            }
            On::Ruins { sequence, epoch, version } => (*sequence, *epoch, version.clone()),
        };
        let sequence = before.max(settings.above) + 1;
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: bundle.mode(),
            epoch: epoch.max(settings.epoch),
            sequence,
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest(pool, bundle.bundle().root()).to_string();
        let mut plan = Self {
            pool: pool.to_owned(),
            over,
            first: None,
            delta: None,
            merged: None,
            start: Start::Newest,
            before: None,
            services: bundle.stats().services,
            limits: settings.limits,
            head,
        };
        let follows = match on {
            On::Head(published, changes) => {
                plan.before = Some(published.clone());
                plan.head.epoch == epoch && plan.follow(published, changes, recent)
            }
            On::Ruins { .. } => false,
        };
        if !follows {
            plan.start = Start::Whole(Rotation::new(pool, sequence, bundle.bundle(), settings.gate.clone()));
        }
        plan
    }

    /// Makes it a delta, unless that would be too large.
    fn follow(&mut self, published: &Published, changes: Vec<Change>, recent: &Recent) -> bool {
        let from = published.head.sequence;
        let delta = Delta { from, to: self.head.sequence, previous: published.last_delta(), changes };
        let bytes = delta.encode();
        let decodable = delta.changes.len() <= SURELY_DECODABLE || Delta::decode(&bytes).is_ok();
        if bytes.len() > self.limits.inline || !decodable {
            return false;
        }
        let checkpoint = published.newest_checkpoint();
        self.head.checkpoint = checkpoint.index.to_string();
        self.head.set_delta(&bytes);
        self.first.clone_from(&published.unsaved);
        if published.newest_tail().len() + 1 >= self.limits.single {
            let since = checkpoint.sequence;
            let changes = recent.merged(since, &delta.changes);
            self.merged = Some(Delta { from: since, to: delta.to, previous: None, changes });
        }
        self.delta = Some(EncodedDelta { bytes, changes: delta.changes });
        true
    }

    /// The sequence that it will have.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }
}
