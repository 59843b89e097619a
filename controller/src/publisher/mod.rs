//! One pool's publications: what is out there, what comes next, and what to do when it fails.

mod checkpoint;
mod load;
mod outcome;
mod pace;
mod plan;
mod published;
mod recent;
mod write;

use rulecast_bundle::{Head, Replica};
use rulecast_compiler::PoolBundle;

use self::published::CheckpointRef;
use crate::sink::{Sink, Version};

pub(crate) use checkpoint::{Closed, off_the_loop};
pub use checkpoint::{Gate, Rotated, Rotation};
pub use load::{Found, load, read_bundle};
pub use outcome::{Outcome, PublishError};
pub use pace::Pace;
pub use plan::{Limits, Plan};
pub use published::Published;
pub use recent::Recent;
pub use write::{WriteError, Written};

/// What is known to be published.
enum Base {
    /// It has to be read.
    Unknown,
    /// Nothing, or nothing any more: nodes may have taken versions up to this sequence.
    Nothing { sequence: u64, epoch: u64 },
    /// It was read, and may differ from what is compiled.
    Loaded(Box<Published>, Box<Replica>),
    /// It was written here: the compiler's changes are relative to it.
    Own(Box<Published>),
    /// A head is there that leads nowhere. It is replaced by a checkpoint with a higher sequence.
    Damaged { sequence: u64, epoch: u64, version: Version },
}

/// What to do next; see [`Publisher::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// [`load`] and [`Publisher::adopt`].
    Load,
    /// [`Publisher::plan`], [`Plan::write`] and [`Publisher::settle`].
    Publish,
    /// Nothing.
    Rest,
}

/// Publishes one pool's bundle.
///
/// [`Publisher::publish`] does everything at once. A loop that has other things to do meanwhile takes the steps one by
/// one; those with I/O do not borrow the publisher.
pub struct Publisher {
    pool: String,
    settings: Settings,
    base: Base,
    /// What changed since the checkpoint, as far as `base` is known.
    recent: Recent,
    /// The highest epoch and sequence that were published as far as this process knows: nodes refuse what is below.
    floor: (u64, u64),
    /// How often what is published was read: a checkpoint begun before is not one of what is known now.
    readings: u64,
    /// A checkpoint of the version that is being published, due without a quiet moment for it.
    snapshot: Option<Rotation>,
    /// One is being written.
    rotating: bool,
}

/// What every plan follows.
#[derive(Default)]
struct Settings {
    limits: Limits,
    gate: Gate,
    /// The least epoch.
    epoch: u64,
    /// Sequences are above this.
    above: u64,
}

impl Publisher {
    /// Publishes this pool.
    #[must_use]
    pub fn new(pool: impl Into<String>) -> Self {
        Self {
            pool: pool.into(),
            settings: Settings::default(),
            base: Base::Unknown,
            recent: Recent::default(),
            floor: (0, 0),
            readings: 0,
            snapshot: None,
            rotating: false,
        }
    }

    /// With other limits than the usual ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Shares the gate that keeps checkpoints and the deletion of chunks apart.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.settings.gate = gate;
        self
    }

    /// Publishes in this epoch from now on, unless it is in a higher one already. Nodes take whatever sequence comes with a
    /// higher epoch than theirs.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.settings.epoch = epoch;
    }

    /// Publishes with higher sequences than this one from now on.
    pub fn set_above(&mut self, sequence: u64) {
        self.settings.above = sequence;
    }

    /// Whether it has to be read what is published.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.base, Base::Unknown)
    }

    /// Whether nothing is published, as far as this process knows.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self.base, Base::Nothing { .. })
    }

    /// What was found to be published, as long as nothing was published on top of it.
    #[must_use]
    pub fn found(&self) -> Option<(&Published, &Replica)> {
        match &self.base {
            Base::Loaded(published, replica) => Some((published, replica)),
            _ => None,
        }
    }

    /// Whether something is published that cannot be read.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self.base, Base::Damaged { .. })
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// What is published, once it is known.
    #[must_use]
    pub fn published(&self) -> Option<&Published> {
        match &self.base {
            Base::Loaded(published, _) | Base::Own(published) => Some(published),
            _ => None,
        }
    }

    /// Whether what is published is what was compiled when it was last looked at.
    #[must_use]
    pub fn in_step(&self) -> bool {
        matches!(self.base, Base::Own(_))
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self, bundle: &PoolBundle) -> Next {
        match &self.base {
            Base::Unknown => Next::Load,
            Base::Nothing { .. } | Base::Loaded(..) | Base::Damaged { .. } => Next::Publish,
            Base::Own(published) if bundle.has_changes() || !self.suits(published, bundle) => Next::Publish,
            Base::Own(_) => Next::Rest,
        }
    }

    /// Whether a version that has the same records need not be followed by another one.
    fn suits(&self, published: &Published, bundle: &PoolBundle) -> bool {
        let Settings { epoch, above, .. } = self.settings;
        let Head { mode, epoch: in_force, sequence, .. } = &published.head;
        *mode == bundle.mode() && *in_force >= epoch && *sequence > above
    }

    /// Reads what is published before the next publication: somebody else may have published.
    pub fn forget(&mut self) {
        self.base = Base::Unknown;
    }

    /// Takes over what was found to be published.
    pub fn adopt(&mut self, found: Found) {
        self.readings += 1;
        self.snapshot = None;
        self.recent = Recent::default();
        self.base = match found {
            Found::Nothing { sequence } => {
                if sequence > 0 {
                    let pool = self.pool.as_str();
                    tracing::warn!(
                        pool,
                        sequence,
                        "the head was deleted: going on after what its chunks tell of"
                    );
                }
                let (epoch, sequence) = self.floor.max((self.floor.0, sequence));
                Base::Nothing { sequence, epoch }
            }
            Found::Sound(published, ..) if published.position() < self.floor => {
                let (epoch, sequence) = self.floor;
                tracing::error!(
                    pool = self.pool,
                    found = published.head.sequence,
                    sequence,
                    "what is published is older than what was published before; going on after the newer sequence"
                );
                Base::Damaged { sequence, epoch, version: published.version }
            }
            Found::Sound(published, replica, recent) => {
                self.recent = recent;
                self.floor = published.position();
                Base::Loaded(published, replica)
            }
            Found::Damaged { sequence, epoch, version, problem } => {
                tracing::error!(
                    pool = self.pool,
                    sequence,
                    problem,
                    "what is published is damaged; a new checkpoint with a higher sequence will replace it"
                );
                let (epoch, sequence) = self.floor.max((epoch, sequence));
                Base::Damaged { sequence, epoch, version }
            }
        };
    }

    /// Decides what to publish: nothing when it is what is published already.
    pub fn plan(&mut self, bundle: &mut PoolBundle) -> Option<Plan> {
        let services = bundle.stats().services;
        let changes = bundle.take_changes();
        let base = std::mem::replace(&mut self.base, Base::Unknown);
        let plan = |on| Plan::new(&self.pool, on, bundle, &self.recent, &self.settings);
        let (base, planned) = match base {
            Base::Unknown => (Base::Unknown, None),
            Base::Nothing { sequence, epoch } => {
                let planned = plan(plan::On::Ruins { sequence, epoch, version: None });
                (Base::Nothing { sequence, epoch }, Some(planned))
            }
            Base::Damaged { sequence, epoch, version } => {
                let planned = plan(plan::On::Ruins { sequence, epoch, version: Some(version.clone()) });
                (Base::Damaged { sequence, epoch, version }, Some(planned))
            }
            Base::Own(published) => {
                let same = changes.is_empty() && self.suits(&published, bundle);
                let planned = (!same).then(|| plan(plan::On::Head(&published, changes)));
                (Base::Own(published), planned)
            }
            Base::Loaded(mut published, replica) => {
                let changes = replica.bundle().diff(bundle.bundle());
                if changes.is_empty() && self.suits(&published, bundle) {
                    published.services = services;
                    (Base::Own(published), None)
                } else {
                    let planned = plan(plan::On::Head(&published, changes));
                    (Base::Loaded(published, replica), Some(planned))
                }
            }
        };
        self.base = base;
        self.snapshot = planned.as_ref().and_then(|plan| self.overdue(plan, bundle));
        planned
    }

    /// A checkpoint of what is about to be published, if there was no quiet moment for one.
    fn overdue(&self, plan: &Plan, bundle: &PoolBundle) -> Option<Rotation> {
        let before = plan.before.as_ref().filter(|_| plan.delta.is_some() && !self.rotating)?;
        let overdue = before.next.is_none() && before.is_due(&self.settings.limits, 2);
        overdue.then(|| self.checkpoint(plan.sequence(), bundle))
    }

    fn checkpoint(&self, sequence: u64, bundle: &PoolBundle) -> Rotation {
        Rotation::new(&self.pool, sequence, bundle.bundle(), self.settings.gate.clone())
            .of_reading(self.readings)
    }

    /// Takes note of what came of a plan. After a failure its changes are part of the next plan.
    pub fn settle(
        &mut self,
        result: Result<Written, WriteError>,
        bundle: &mut PoolBundle,
    ) -> Result<Outcome, PublishError> {
        match result {
            Ok(Written { mut published, outcome, changes, checkpoint }) => {
                // One may have been written meanwhile.
                if let Base::Own(before) | Base::Loaded(before, _) = &mut self.base {
                    let newer = |next: &CheckpointRef| next.sequence > published.checkpoint.sequence;
                    published.next = before.next.take().filter(newer);
                }
                self.floor = published.position();
                self.recent.forget_until(published.checkpoint.sequence);
                self.recent.note(published.head.sequence, changes.unwrap_or_default());
                self.base = Base::Own(published);
                bundle.confirm();
                drop(checkpoint);
                Ok(outcome)
            }
            Err(WriteError { error, head_untouched: true }) => {
                self.snapshot = None;
                if let Base::Own(_) = self.base {
                    bundle.put_back();
                }
                Err(error)
            }
            Err(WriteError { error, head_untouched: false }) => {
                // Another head, or perhaps ours after all: only reading tells.
                self.snapshot = None;
                self.base = Base::Unknown;
                Err(error)
            }
        }
    }

    /// A checkpoint to be written beside the next publications, if one is due. [`Publisher::rotated`] must follow.
    pub fn rotation(&mut self, bundle: &PoolBundle) -> Option<Rotation> {
        let Base::Own(published) = &self.base else { return None };
        if self.rotating {
            return None;
        }
        let quiet = published.next.is_none() && published.is_due(&self.settings.limits, 1);
        // Only then is what is compiled what is published.
        let quiet = quiet && self.next(bundle) == Next::Rest;
        let sequence = published.head.sequence;
        let rotation = self.snapshot.take().or_else(|| quiet.then(|| self.checkpoint(sequence, bundle)));
        self.rotating = rotation.is_some();
        rotation
    }

    /// Takes note of what came of a rotation.
    pub fn rotated(&mut self, result: Result<Rotated, PublishError>) -> Result<(), PublishError> {
        self.rotating = false;
        let rotated = result?;
        if let Base::Own(published) | Base::Loaded(published, _) = &mut self.base
            && rotated.reading == self.readings
            && published.newest_checkpoint().sequence < rotated.checkpoint.sequence
        {
            published.next = Some(rotated.checkpoint.clone());
        }
        Ok(())
    }

    /// Publishes what is compiled, unless it is published already.
    pub async fn publish<S: Sink>(
        &mut self,
        sink: &S,
        bundle: &mut PoolBundle,
    ) -> Result<Outcome, PublishError> {
        if self.next(bundle) == Next::Load {
            self.adopt(load(sink, &self.pool).await?);
        }
        if self.next(bundle) == Next::Rest {
            return Ok(Outcome::Unchanged);
        }
        match self.plan(bundle) {
            Some(plan) => {
                let result = plan.write(sink).await;
                let outcome = self.settle(result, bundle)?;
                if let Some(rotation) = self.rotation(bundle) {
                    // It has been published; the next one tries again.
                    let _ = self.rotated(rotation.write(sink).await);
                }
                Ok(outcome)
            }
            None => Ok(Outcome::Unchanged),
        }
    }
}
