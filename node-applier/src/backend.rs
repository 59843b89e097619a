//! The narrow waist between what a node should do and the kernel that does it.

use std::net::IpAddr;
use std::time::Duration;

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

/// Why the kernel does not hold what it should. It holds what it held before.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] rulecast_netlink::Error),
    /// The bundle's rules contradict themselves.
    #[error("the rules of the bundle do not fit together: {0}")]
    Rules(String),
}

impl BackendError {
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

    /// What somebody else did to our part of the kernel since the last call, in words; none if nothing.
    fn interference(&mut self) -> Result<Option<String>, BackendError>;
}
