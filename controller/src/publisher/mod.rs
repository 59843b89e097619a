//! One pool's publications: what is out there, what comes next, and what to do when it fails.

mod checkpoint;
mod load;
mod outcome;
mod pace;
mod plan;
mod published;
mod shrink;
mod write;

use rulecast_bundle::Replica;
use rulecast_compiler::PoolBundle;

use crate::sink::{Sink, Version};

pub use checkpoint::{Gate, Rotated, Rotation};
pub use load::{Found, load};
pub use outcome::{Outcome, PublishError};
pub use pace::Pace;
pub use plan::{Limits, Plan};
pub use published::Published;
pub use shrink::Shrink;
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
    limits: Limits,
    allow_shrink: bool,
    gate: Gate,
    base: Base,
    /// The highest epoch and sequence that were published as far as this process knows: nodes refuse what is below.
    floor: (u64, u64),
}

impl Publisher {
    /// Publishes this pool.
    #[must_use]
    pub fn new(pool: impl Into<String>) -> Self {
        Self {
            pool: pool.into(),
            limits: Limits::default(),
            allow_shrink: false,
            gate: Gate::default(),
            base: Base::Unknown,
            floor: (0, 0),
        }
    }

    /// With other limits than the usual ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets publications through that lose many Services.
    #[must_use]
    pub fn allow_shrink(mut self, allow: bool) -> Self {
        self.allow_shrink = allow;
        self
    }

    /// Shares the gate that keeps checkpoints and the deletion of chunks apart.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
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
            Base::Own(published) => {
                let pending = bundle.has_changes() || published.head.mode != bundle.options().mode;
                if pending { Next::Publish } else { Next::Rest }
            }
        }
    }

    /// Reads what is published before the next publication: somebody else may have published.
    pub fn forget(&mut self) {
        self.base = Base::Unknown;
    }

    /// Takes over what was found to be published.
    pub fn adopt(&mut self, found: Found) {
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
            Found::Sound(published, _) if published.position() < self.floor => {
                let (epoch, sequence) = self.floor;
                tracing::error!(
                    pool = self.pool,
                    found = published.head.sequence,
                    sequence,
                    "what is published is older than what was published before; going on after the newer sequence"
                );
                Base::Damaged { sequence, epoch, version: published.version }
            }
            Found::Sound(published, replica) => {
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

    /// Decides what to publish: nothing when it is what is published already. `allowed` is the sequence on top of which
    /// many Services may be lost.
    pub fn plan(&mut self, bundle: &mut PoolBundle, allowed: Option<u64>) -> Result<Option<Plan>, Shrink> {
        let services = bundle.stats().services;
        if !self.allow_shrink {
            self.check_shrink(services, allowed)?;
        }
        let changes = bundle.take_changes();
        let (pool, limits, gate) = (self.pool.as_str(), &self.limits, &self.gate);
        let plan = |base| Plan::new(pool, base, bundle, limits, gate);
        let planned = match std::mem::replace(&mut self.base, Base::Unknown) {
            Base::Unknown => None,
            Base::Nothing { sequence, epoch } => {
                self.base = Base::Nothing { sequence, epoch };
                Some(plan(plan::On::Ruins { sequence, epoch, version: None }))
            }
            Base::Damaged { sequence, epoch, version } => {
                let planned = plan(plan::On::Ruins { sequence, epoch, version: Some(version.clone()) });
                self.base = Base::Damaged { sequence, epoch, version };
                Some(planned)
            }
            Base::Own(published) => {
                let same = changes.is_empty() && published.head.mode == bundle.options().mode;
                let planned = (!same).then(|| plan(plan::On::Head(&published, changes)));
                self.base = Base::Own(published);
                planned
            }
            Base::Loaded(mut published, replica) => {
                let changes = replica.bundle().diff(bundle.bundle());
                if changes.is_empty() && published.head.mode == bundle.options().mode {
                    published.services = services;
                    self.base = Base::Own(published);
                    None
                } else {
                    let planned = plan(plan::On::Head(&published, changes));
                    self.base = Base::Loaded(published, replica);
                    Some(planned)
                }
            }
        };
        Ok(planned)
    }

    fn check_shrink(&self, services: usize, allowed: Option<u64>) -> Result<(), Shrink> {
        let (before, sequence) = match &self.base {
            Base::Loaded(published, _) | Base::Own(published) => {
                (Some(published.services), published.head.sequence)
            }
            Base::Damaged { sequence, .. } => (None, *sequence),
            Base::Unknown | Base::Nothing { .. } => return Ok(()),
        };
        if allowed == Some(sequence) { Ok(()) } else { Shrink::check(&self.pool, before, services, sequence) }
    }

    /// Takes note of what came of a plan. After a failure its changes are part of the next plan.
    pub fn settle(
        &mut self,
        result: Result<Written, WriteError>,
        bundle: &mut PoolBundle,
    ) -> Result<Outcome, PublishError> {
        match result {
            Ok(Written { published, outcome, checkpoint }) => {
                self.floor = published.position();
                self.base = Base::Own(published);
                bundle.confirm();
                drop(checkpoint);
                Ok(outcome)
            }
            Err(WriteError { error, head_untouched: true }) => {
                if let Base::Own(_) = self.base {
                    bundle.put_back();
                }
                Err(error)
            }
            Err(WriteError { error, head_untouched: false }) => {
                // Another head, or perhaps ours after all: only reading tells.
                self.base = Base::Unknown;
                Err(error)
            }
        }
    }

    /// A checkpoint of what is published, if one is due and nothing more urgent is to be done.
    #[must_use]
    pub fn rotation(&self, bundle: &PoolBundle) -> Option<Rotation> {
        let Base::Own(published) = &self.base else { return None };
        let due = published.next.is_none() && published.is_due(&self.limits, 1);
        // Only then is what is compiled what is published.
        let same = due && self.next(bundle) == Next::Rest;
        same.then(|| Rotation::new(&self.pool, published.head.sequence, bundle.bundle(), self.gate.clone()))
    }

    /// Takes note of what came of a rotation. Nothing may have been published meanwhile.
    pub fn rotated(&mut self, result: Result<Rotated, PublishError>) -> Result<(), PublishError> {
        let rotated = result?;
        if let Base::Own(published) = &mut self.base
            && published.head.sequence == rotated.checkpoint.sequence
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
        match self.plan(bundle, None)? {
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
