//! The part of the applier that keeps a shape although another one is published.

use std::borrow::Cow;

use rulecast_bundle::{Change, Step};
use tracing::warn;

use super::Applier;
use crate::backend::Backend;
use crate::control::Look;
use crate::hold::{Fulfilled, Hold, HoldError, Mask, Previous, Wish};
use crate::store::StoreError;

/// Places in [`Applier::damage`].
const HOLD: usize = 0;
const PREVIOUS: usize = 1;

impl<B: Backend> Applier<B> {
    /// What is kept on this node instead of what is published.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    pub(super) fn restore_hold(&mut self) {
        let Some(store) = &self.store else { return };
        (self.hold, self.damage[HOLD]) = sound(store.load_hold());
        (self.previous, self.damage[PREVIOUS]) = sound(store.load_previous());
        if let Some(problem) = &self.damage[HOLD] {
            warn!("what was asked of this node cannot be read, so it follows its pool: {problem}");
        }
    }

    /// Fulfils a wish. On an error everything is as before.
    pub fn ask(&mut self, wish: Wish, text: &str) -> Result<Fulfilled, HoldError> {
        let head = self.replica.head().ok_or(HoldError::NothingInForce)?;
        if self.hold.as_ref().is_some_and(|hold| hold.is_already(wish)) {
            return Ok(Fulfilled::Already);
        }
        let hold = match wish {
            Wish::Hold => Hold::new(wish, text, head.sequence, Mask::default()),
            Wish::UsePrevious => {
                if let (None, Some(damage)) = (&self.previous, &self.damage[PREVIOUS]) {
                    return Err(HoldError::Damaged(damage.clone()));
                }
                Hold::going_back(self.previous.as_ref(), head, self.replica.bundle(), text)?
            }
        };
        self.change_hold(Some(hold))
    }

    /// What there is to see.
    pub fn look(&self) -> Look<'_> {
        Look {
            node: &self.node,
            pool: &self.pool,
            version: self.replica.name().zip(self.replica.head()),
            published: self.replica.bundle(),
            hold: self.hold.as_ref(),
            hold_damage: self.damage[HOLD].as_deref(),
            previous: self.previous.as_ref().map(|previous| previous.sequence),
            view: &self.view,
        }
    }

    /// Follows the pool again.
    pub fn resume(&mut self) -> Result<Fulfilled, HoldError> {
        if self.hold.is_none() && self.damage[HOLD].is_none() {
            return Ok(Fulfilled::Already);
        }
        self.change_hold(None)
    }

    fn change_hold(&mut self, hold: Option<Hold>) -> Result<Fulfilled, HoldError> {
        let none = Mask::default();
        let mask = |hold: &Option<Hold>| {
            hold.as_ref().map_or_else(|| Cow::Borrowed(&none), |h| Cow::Owned(h.mask.clone()))
        };
        let changes = mask(&self.hold).changes_to(&mask(&hold), self.replica.bundle());
        let before = std::mem::replace(&mut self.hold, hold);
        if !changes.is_empty()
            && let Err(error) = self.write_kernel(Some(&changes))
        {
            self.hold = before;
            self.view = self.whole_view();
            return Err(error.into());
        }
        self.damage[HOLD] = None;
        let Some(store) = &mut self.store else {
            return Ok(Fulfilled::NotKept("this node keeps nothing on disk".to_owned()));
        };
        match store.keep_hold(self.hold.as_ref()) {
            Ok(()) => Ok(Fulfilled::Done),
            Err(error) => Ok(Fulfilled::NotKept(error.to_string())),
        }
    }

    /// Brings what is kept to the version that `step` led to. Returns the mask from before, if there is a hold.
    pub(super) fn mask_step(&mut self, step: &Step) -> Option<Mask> {
        let hold = self.hold.as_mut()?;
        let before = hold.mask.clone();
        hold.mask.absorb(step.former.clone(), self.replica.bundle());
        if step.changes.is_none() {
            self.fit_mask();
        }
        Some(before)
    }

    /// For what is published now, whatever the mask was made over.
    pub(super) fn fit_mask(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.mask = std::mem::take(&mut hold.mask).over(self.replica.bundle());
        }
    }

    pub(super) fn set_mask(&mut self, mask: Option<Mask>) {
        if let (Some(hold), Some(mask)) = (&mut self.hold, mask) {
            hold.mask = mask;
        }
    }

    /// What a step changes of the effective bundle; none: perhaps all of it.
    pub(super) fn effective_changes<'a>(
        &self,
        step: &'a Step,
        before: Option<&Mask>,
    ) -> Option<Cow<'a, [Change]>> {
        let changes = step.changes.as_deref()?;
        Some(match (&self.hold, before) {
            (Some(hold), Some(before)) => {
                Cow::Owned(hold.mask.translate(before, self.replica.bundle(), changes))
            }
            _ => Cow::Borrowed(changes),
        })
    }

    /// Keeps a version on disk, and before it what makes another shape of it. One that cannot be stored is in force all the
    /// same: the next start falls back to an older one. `before` is the mask before the step, if there is a hold.
    pub(super) fn keep(&mut self, step: &Step, before: Option<&Mask>) {
        if let Some(head) = self.replica.head()
            && let Some(previous) = Previous::of(&step.former, head)
        {
            self.previous = Some(previous);
            self.damage[PREVIOUS] = None;
        }
        let Some(store) = &mut self.store else { return };
        if let Some(previous) = self.previous.as_ref().filter(|_| !step.former.is_empty())
            && let Err(error) = store.keep_previous(previous)
        {
            warn!(%error, "after a restart this node could not go back to the shape before this one");
        }
        if let (Some(hold), Some(before)) = (&self.hold, before)
            && hold.mask != *before
            && let Err(error) = store.keep_hold(Some(hold))
        {
            // With this version and an older mask another shape would be in force after a restart.
            warn!(%error, "what is held could not be kept on disk, so this version is not either");
            store.skip();
            return;
        }
        if let Err(error) = store.keep(&self.replica, step.changes.as_deref()) {
            warn!(%error, "the bundle could not be kept on disk; after a restart an older one would be used");
        }
    }
}

fn sound<T>(loaded: Result<Option<T>, StoreError>) -> (Option<T>, Option<String>) {
    match loaded {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error.to_string())),
    }
}
