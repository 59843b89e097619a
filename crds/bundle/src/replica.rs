//! A reader's copy of a pool's bundle, and the rules by which it moves.

use std::collections::{BTreeMap, HashMap};

use crate::catchup::Way;
use crate::codec::DecodeError;
use crate::digest::Digest;
use crate::former::{self, Former};
use crate::frame::Change;
use crate::publication::{FORMAT, Head};
use crate::{Bundle, Key, MisfitError, Undo, Value};

/// The version of the contract that this applier fulfils; see [`Head::min_applier`].
pub const APPLIER: u32 = 1;

/// Why a published version is not taken. The copy is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is older than what is there.
    #[error(
        "sequence {offered} (epoch {epoch}) is older than {have} (epoch {have_epoch}), which is in force and stays: a replay, \
             a stale cache, or a cluster restored from a backup. Only for the last: raise spec.epoch of the RulePool"
    )]
    Replay {
        /// The sequence in force.
        have: u64,
        /// Its epoch.
        have_epoch: u64,
        /// The sequence offered.
        offered: u64,
        /// Its epoch.
        epoch: u64,
    },
    /// It is older than what is in force from another of the pool's bundles. That passes by itself.
    #[error(
        "bundle {bundle} is at sequence {offered}, and sequence {have} of bundle {in_force} is in force until it is newer"
    )]
    Behind {
        /// The bundle that is followed.
        bundle: String,
        /// Its sequence.
        offered: u64,
        /// The bundle in force.
        in_force: String,
        /// Its sequence.
        have: u64,
    },
    /// The same sequence with another content.
    #[error("sequence {0} is in force with another digest: two writers, or an altered bundle")]
    Conflict(u64),
    /// Written for a later version of this program.
    #[error(
        "the bundle has format {format} and needs applier version {min_applier}; this one knows format {FORMAT} and \
             is version {APPLIER}: upgrade the node applier"
    )]
    Version {
        /// The bundle's format.
        format: u32,
        /// The lowest applier version it asks for.
        min_applier: u32,
    },
    /// Its bytes are damaged.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A delta does not fit.
    #[error("a delta does not fit: {0}")]
    Misfit(#[from] MisfitError),
    /// The content is not what the head says.
    #[error(
        "the digest of the content does not match the head's: the bundle was altered, or is another pool's"
    )]
    Digest,
}

impl Refusal {
    /// A CamelCase word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Replay { .. } => "Replay",
            Self::Behind { .. } => "Behind",
            Self::Conflict(_) => "Conflict",
            Self::Version { .. } => "UnknownVersion",
            Self::Decode(_) => "Damaged",
            Self::Misfit(_) => "DeltaDoesNotFit",
            Self::Digest => "DigestMismatch",
        }
    }
}

/// A copy of a pool's bundle.
///
/// A pool may have two bundles, its own and that of its next shape ([`crate::next_of`]), with sequences from one counter. A
/// copy may [follow](Self::follow) either, and never goes back from one to an older version of the other.
pub struct Replica {
    /// The name of the bundle that is followed.
    followed: String,
    bundle: Bundle,
    head: Option<InForce>,
}

/// A head that was verified, and the name of the bundle that it is of.
struct InForce {
    head: Head,
    name: String,
}

/// A version just taken, with the way back.
pub struct Step {
    /// What changed; none when most of it did, or all.
    pub changes: Option<Vec<Change>>,
    /// What it took from the shape. Empty when there was no version before.
    pub former: Former,
    head: Option<InForce>,
    back: Back,
}

enum Back {
    Undo(Vec<Undo>),
    Bundle(Box<Bundle>),
}

impl Replica {
    /// An empty copy.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { followed: name.to_owned(), bundle: Bundle::default(), head: None }
    }

    /// Follows the bundle `name` from now on: heads that are offered are of that one. What is in force stays.
    pub fn follow(&mut self, name: &str) {
        name.clone_into(&mut self.followed);
    }

    /// The name of the bundle that is followed.
    #[must_use]
    pub fn followed(&self) -> &str {
        &self.followed
    }

    /// The name of the bundle in force.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.head.as_ref().map(|in_force| in_force.name.as_str())
    }

    /// The content.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The head in force.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref().map(|in_force| &in_force.head)
    }

    /// Whether a head is worth following: `Ok(None)` when it is the one in force, else the sequence to catch up from
    /// (none: from a checkpoint).
    pub fn admit(&self, head: &Head) -> Result<Option<Option<u64>>, Refusal> {
        if head.format != FORMAT || head.min_applier > APPLIER {
            return Err(Refusal::Version { format: head.format, min_applier: head.min_applier });
        }
        let Some(InForce { head: have, name }) = &self.head else { return Ok(Some(None)) };
        if *name != self.followed {
            if (head.epoch, head.sequence) < (have.epoch, have.sequence) {
                let (bundle, in_force) = (self.followed.clone(), name.clone());
                let (offered, have) = (head.sequence, have.sequence);
                return Err(Refusal::Behind { bundle, offered, in_force, have });
            }
            // Deltas lead on from the other bundle's versions, not from this one's.
            return Ok(Some(None));
        }
        if (head.epoch, head.sequence) < (have.epoch, have.sequence) {
            return Err(Refusal::Replay {
                have: have.sequence,
                have_epoch: have.epoch,
                offered: head.sequence,
                epoch: head.epoch,
            });
        }
        if (head.epoch, head.sequence) == (have.epoch, have.sequence) {
            return if head.digest == have.digest { Ok(None) } else { Err(Refusal::Conflict(head.sequence)) };
        }
        Ok(Some(Some(have.sequence).filter(|_| head.epoch == have.epoch)))
    }

    /// Moves to a version that has the content which is here already, as its digest says, without reading anything. None
    /// when it has another one.
    pub fn adopt(&mut self, head: &Head) -> Result<Option<Step>, Refusal> {
        if self.head.is_none() || self.admit(head)?.is_none() || !self.is_content_of(head) {
            return Ok(None);
        }
        let head = self.put_in_force(head.clone());
        let back = Back::Undo(Vec::new());
        Ok(Some(Step { changes: Some(Vec::new()), former: Former::new(), head, back }))
    }

    fn is_content_of(&self, head: &Head) -> bool {
        head.digest.parse() == Ok::<Digest, _>(head.expected_digest(&self.followed, self.bundle.root()))
    }

    fn put_in_force(&mut self, head: Head) -> Option<InForce> {
        self.head.replace(InForce { head, name: self.followed.clone() })
    }

    /// Moves to a new version, or stays exactly where it is.
    pub fn advance(&mut self, head: Head, way: Way) -> Result<Step, Refusal> {
        self.admit(&head)?;
        let mut step = match way {
            Way::Deltas(deltas) => {
                let mut undos = Vec::new();
                let mut changes = Vec::new();
                for delta in deltas {
                    match self.bundle.follow(&delta) {
                        Ok(undo) => undos.push(undo),
                        Err(misfit) => {
                            undos.into_iter().rev().for_each(|undo| self.bundle.revert(undo));
                            return Err(misfit.into());
                        }
                    }
                    changes.push(delta.changes);
                }
                let changes = Some(net(changes, &undos));
                Step { changes, former: Former::new(), head: self.head.take(), back: Back::Undo(undos) }
            }
            Way::Anew(mut bundle, deltas) => {
                for delta in deltas {
                    let _final = bundle.follow(&delta)?;
                }
                let before = std::mem::replace(&mut self.bundle, *bundle);
                let back = Back::Bundle(Box::new(before));
                Step { changes: None, former: Former::new(), head: self.head.take(), back }
            }
        };
        if !self.is_content_of(&head) {
            self.retreat(step);
            return Err(Refusal::Digest);
        }
        match (&step.back, &step.head) {
            (_, None) => {}
            (Back::Undo(undos), Some(_)) => step.former = former::of_undos(undos, &self.bundle),
            (Back::Bundle(before), Some(_)) => {
                // Another bundle of the pool, or one read anew, differs in little as a rule.
                step.changes = before.small_diff(&self.bundle);
                step.former = former::of_bundles(before, &self.bundle);
            }
        }
        self.put_in_force(head);
        Ok(step)
    }

    /// Goes back to the version before `step`.
    pub fn retreat(&mut self, step: Step) {
        match step.back {
            Back::Undo(undos) => undos.into_iter().rev().for_each(|undo| self.bundle.revert(undo)),
            Back::Bundle(bundle) => self.bundle = *bundle,
        }
        self.head = step.head;
    }
}

/// The changes of several deltas as one: the last change of a record counts, and none that leads back to where it was, or
/// that was none.
fn net(mut changes: Vec<Vec<Change>>, undos: &[Undo]) -> Vec<Change> {
    let had_effect = |changes: &Vec<Change>, undo: &Undo| undo.before().count() == changes.len();
    if changes.len() <= 1 && changes.iter().zip(undos).all(|(changes, undo)| had_effect(changes, undo)) {
        return changes.pop().unwrap_or_default();
    }
    let mut before = HashMap::new();
    for (key, value) in undos.iter().flat_map(Undo::before) {
        before.entry(key).or_insert(value);
    }
    let last: BTreeMap<_, _> = changes.into_iter().flatten().map(|c| (c.key, c.value)).collect();
    let differs = |key: &Key, value: Option<&Value>| {
        let before = before.get(key.encode().as_slice());
        before.is_some_and(|before| *before != value.map(|v| v.encode(key)).as_deref())
    };
    let net = last.into_iter().filter(|(key, value)| differs(key, value.as_ref()));
    net.map(|(key, value)| Change { key, value }).collect()
}
