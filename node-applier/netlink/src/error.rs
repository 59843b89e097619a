//! What can go wrong, in words for the person on call.

use std::io;

use rustix::io::Errno;

/// Why a request to the kernel was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every message to nfnetlink needs the capability, in the user namespace that owns the network namespace.
    #[error("CAP_NET_ADMIN is missing: the kernel's packet rules cannot be read or changed without it")]
    Permission,
    /// No `nf_tables` module, or a kernel without it.
    #[error("this kernel does not offer nf_tables ({0}); is the module nf_tables there?")]
    Unsupported(#[source] io::Error),
    /// No `nf_conntrack_netlink` module, or a kernel without it.
    #[error(
        "this kernel does not show its conntrack entries ({0}); is the module nf_conntrack_netlink there?"
    )]
    NoConntrack(#[source] io::Error),
    /// No `ip_vs` module, or a kernel without it.
    #[error("this kernel does not offer IPVS ({0}); is the module ip_vs there?")]
    NoIpvs(#[source] io::Error),
    /// No `ip_set` module, or a kernel without it.
    #[error("this kernel does not offer ipsets ({0}); is the module ip_set there?")]
    NoIpset(#[source] io::Error),
    /// The kernel lacks something that a module of its own has.
    #[error("this kernel does not offer {what}; is the module {module} there?")]
    NoModule {
        /// What it was asked for.
        what: String,
        /// The module.
        module: String,
    },
    /// The kernel refused an operation; nothing was changed.
    #[error("the kernel refused to {operation}: {}{}", errno_text(*errno), kernel_message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused {
        /// What it was asked to do: `add elements of set service-ips, table ip rulecast`.
        operation: String,
        /// The error number.
        errno: i32,
        /// What it says about it (`NLMSGERR_ATTR_MSG`).
        kernel_message: Option<String>,
    },
    /// A batch made with [`Batch::with_generation`](crate::Batch::with_generation) came too late. Nothing was changed.
    #[error("somebody else changed the nftables ruleset meanwhile")]
    Changed,
    /// A batch is larger than the socket's send buffer can be made, or has a message that is too long. Nothing was
    /// changed.
    #[error("a transaction of {bytes} bytes is too large for the netlink socket")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
    },
    /// A dump was disturbed by changes, or a commit by signals, three times in a row.
    #[error("interrupted again and again; try once more")]
    Interrupted,
    /// The kernel's answer to a transaction did not fit into the receive buffer or could not be read: whether it was
    /// committed is to be found out by reading the kernel's state.
    #[error("the kernel's answer was lost; the transaction's outcome is unknown")]
    Lost,
    /// No answer within the time limit.
    #[error("no answer from the kernel to: {0}")]
    Timeout(&'static str),
    /// An answer that makes no sense.
    #[error("the kernel's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The netlink socket failed.
    #[error("netlink socket: cannot {operation}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if the kernel refused an operation.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the kernel refused because something named is not there (`ENOENT`).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NOENT.raw_os_error())
    }

    /// For `map_err` on socket calls.
    pub(crate) fn socket<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| {
            let source = source.into();
            if source.kind() == io::ErrorKind::PermissionDenied {
                Self::Permission
            } else {
                Self::Socket { operation, source }
            }
        }
    }
}

fn errno_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
