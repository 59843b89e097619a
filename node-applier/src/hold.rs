//! What somebody on the node asked of its applier: to keep its shape, or to go back to the one before.
//!
//! Both are a [`Mask`] over what is published. Versions are followed and verified as ever, and membership with them.

mod file;
mod mask;

use std::time::SystemTime;

use rulecast_bundle::{Bundle, Former, Head};

pub use file::{BadFile, decode_hold, decode_previous};
pub use mask::{Effective, LastKnown, Mask};

/// The longest reason that is kept, in characters: the custom resource bounds what is reported.
pub const MAX_REASON: usize = 256;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To keep the shape.
    Hold,
    /// To go back to the shape before the last change.
    UsePrevious,
}

impl Wish {
    /// A CamelCase word, as in RuleNode's `status.hold.reason`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Hold => "Hold",
            Self::UsePrevious => "UsePrevious",
        }
    }
}

/// A shape that is kept on this node, whatever is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What was asked for.
    pub wish: Wish,
    /// Why, in somebody's words; may be empty.
    pub text: String,
    /// Since when, to the second.
    pub since: SystemTime,
    /// The sequence that was in force then.
    pub sequence: u64,
    /// The difference to what is published.
    pub mask: Mask,
}

impl Hold {
    /// From now on.
    #[must_use]
    pub fn new(wish: Wish, text: &str, sequence: u64, mask: Mask) -> Self {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        Self { wish, text: text.chars().take(MAX_REASON).collect(), since, sequence, mask }
    }

    /// Back to the shape before the last change of it, over what `head` published.
    pub fn going_back(
        previous: Option<&Previous>,
        head: &Head,
        published: &Bundle,
        text: &str,
    ) -> Result<Self, HoldError> {
        let previous =
            previous.filter(|previous| previous.is_before(head)).ok_or(HoldError::NothingBefore)?;
        let mask = previous.mask(published).map_err(|e| HoldError::Damaged(e.to_string()))?;
        if mask.is_empty() {
            return Err(HoldError::NothingBefore);
        }
        Ok(Self::new(Wish::UsePrevious, text, previous.sequence, mask))
    }

    /// Whether a wish is fulfilled already. A shape that was gone back to is kept, too.
    #[must_use]
    pub fn is_already(&self, wish: Wish) -> bool {
        self.wish == wish || self.wish == Wish::UsePrevious
    }

    /// What is different from the pool's bundle, for people.
    #[must_use]
    pub fn message(&self) -> String {
        let LastKnown { endpoints, ports } = self.mask.last_known();
        let what = match self.wish {
            Wish::Hold => "the shape of sequence",
            Wish::UsePrevious => "the shape before that of sequence",
        };
        let differs = match self.mask.differing() {
            0 => "nothing published differs from it".to_owned(),
            n => format!("{n} records of what is published differ"),
        };
        let known = match endpoints {
            0 => String::new(),
            n => format!("; {n} endpoints of {ports} Service ports are last known"),
        };
        let text = if self.text.is_empty() { String::new() } else { format!(": {}", self.text) };
        format!("{what} {} is kept; {differs}{known}{text}", self.sequence)
    }
}

/// The last change of the shape, encoded: it is rarely asked for and may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The version that brought the change.
    pub sequence: u64,
    /// Its epoch.
    pub epoch: u64,
    /// The mask that undoes it.
    mask: Vec<u8>,
}

impl Previous {
    /// What a step to `head` took from the shape; none when it took nothing.
    #[must_use]
    pub fn of(former: &Former, head: &Head) -> Option<Self> {
        let encode = || Mask::undoing(former.clone()).encode();
        (!former.is_empty()).then(|| Self { sequence: head.sequence, epoch: head.epoch, mask: encode() })
    }

    /// Whether it is about a version that came no later than `head`: it is written to the disk before that.
    #[must_use]
    pub fn is_before(&self, head: &Head) -> bool {
        (self.epoch, self.sequence) <= (head.epoch, head.sequence)
    }

    /// The mask over what is published now.
    pub fn mask(&self, published: &Bundle) -> Result<Mask, rulecast_bundle::DecodeError> {
        Ok(Mask::decode(&self.mask)?.over(published))
    }
}

/// Why a wish is not fulfilled. Everything is as before.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The last change of the shape is not known.
    #[error(
        "there is nothing to go back to: this node has seen no change of the shape, and its disk knows of none"
    )]
    NothingBefore,
    /// There are no rules yet.
    #[error("no rules are in force yet")]
    NothingInForce,
    /// What the disk has of it cannot be used.
    #[error("{0}")]
    Damaged(String),
    /// The kernel could not be written.
    #[error("the kernel refuses: {0}")]
    Kernel(#[from] crate::backend::BackendError),
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fulfilled {
    /// It is done.
    Done,
    /// It was so already.
    Already,
    /// It is done, but will not survive a restart.
    NotKept(String),
}
