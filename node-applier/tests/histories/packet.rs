//! A new connection's first packet, and what can become of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::Proto;

/// The first packet of a connection, at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) proto: Proto,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) dport: u16,
    /// The interface that it comes in by; none where the node made it.
    pub(crate) interface: Option<&'static str>,
}

/// What becomes of it in one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It goes to this endpoint.
    To {
        endpoint: SocketAddr,
        masqueraded: bool,
    },
    Rejected,
    Dropped,
    /// It goes on as it came.
    Untouched {
        masqueraded: bool,
    },
}

/// All cases there are: an endpoint is picked at random.
pub(crate) type Verdict = BTreeSet<Outcome>;

/// What a test knows of a node beside the Node object: its name and its interfaces.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    /// The primary address first.
    pub(crate) addrs: Vec<IpAddr>,
    /// A second one that comes and goes.
    pub(crate) second: IpAddr,
}

impl Machine {
    /// `fib type local`.
    pub(crate) fn is_local(&self, addr: IpAddr) -> bool {
        addr.is_loopback() || self.addrs.contains(&addr)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.proto, self.src, SocketAddr::new(self.dst, self.dport))
    }
}
