//! The narrow waist between what a node should do and the kernel that does it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::view::{Touched, View};

/// What a transaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Time that the kernel took.
    pub kernel: Duration,
    /// Bytes sent to it.
    pub bytes: usize,
    /// Messages sent to it.
    pub messages: usize,
}

/// What was compared, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verified {
    /// Chains that should be there.
    pub chains: usize,
    /// Their rules.
    pub rules: usize,
    /// Sets and maps.
    pub sets: usize,
    /// Their elements, of those that packets do not fill.
    pub elements: usize,
    /// What differs, in words; not more than [`Verified::MOST`] of it.
    pub differences: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

impl Verified {
    /// So many differences are told one by one.
    pub const MOST: usize = 100;

    /// Whether the kernel holds what it should.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    /// Takes note of a difference.
    pub fn differs(&mut self, what: impl FnOnce() -> String) {
        if self.differences.len() < Self::MOST {
            self.differences.push(what());
        } else {
            self.more += 1;
        }
    }
}

/// Why the kernel does not hold what it should. It holds what it held before.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] rulecast_netlink::Error),
    /// The bundle's rules contradict themselves.
    #[error("the rules of the bundle do not fit together: {0}")]
    Rules(String),
    /// This node lacks what the pool's mode needs, or a tool of it failed.
    #[error("{message}")]
    Unsupported {
        /// A CamelCase word for conditions and metrics.
        reason: &'static str,
        /// What is missing, and what to do about it.
        message: String,
    },
}

impl BackendError {
    /// After a write that failed: an update cannot tell what it begins with.
    #[must_use]
    pub fn not_known() -> Self {
        Self::Rules("what the kernel holds is not known any more".to_owned())
    }

    /// Whether a set has no room for another element (`ENFILE`); a rebuild makes it larger.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Netlink(error) if error.errno() == Some(nix::errno::Errno::ENFILE as i32))
    }

    /// A CamelCase word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Netlink(rulecast_netlink::Error::Permission) => "MissingCapability",
            Self::Netlink(_) => "KernelRefused",
            Self::Rules(_) => "BadRules",
            Self::Unsupported { reason, .. } => reason,
        }
    }
}

/// A kernel that Services are programmed into. Every call is one transaction: all of it or nothing.
pub trait Backend {
    /// Makes the kernel hold exactly this view, whatever it held before. Connections and affinity survive.
    fn rebuild(&mut self, view: &View, node_addrs: &[IpAddr]) -> Result<Applied, BackendError>;

    /// Brings the kernel from the view of the last successful call to this one, which differs in what `touched` names.
    /// After an error the next call must be [`Backend::rebuild`].
    fn update(
        &mut self,
        view: &View,
        touched: &Touched,
        node_addrs: &[IpAddr],
    ) -> Result<Applied, BackendError>;

    /// Compares our part of the kernel with what the last successful call made of it.
    fn verify(&mut self, _view: &View) -> Result<Verified, BackendError> {
        Err(BackendError::Rules("this backend cannot compare the kernel with what it should hold".to_owned()))
    }

    /// What somebody else did to our part of the kernel since the last call, in words; none if nothing.
    fn interference(&mut self) -> Result<Option<String>, BackendError>;

    /// Removes everything of ours from the kernel, whoever wrote it.
    fn clean_up(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
