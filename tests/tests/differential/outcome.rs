//! What the connections of a probe come to, in words that can be compared between worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many connections ended in which way: at which pod, at which port, with which source address; or refused,
/// unanswered, unreachable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome(BTreeMap<String, u32>);

/// The end of one connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A pod answered: its name, its port, and the source address as it saw it, in words.
    Pod(String, u16, String),
    /// Anything else.
    Other(&'static str),
}

/// What is said of a source address that nobody changed.
pub(crate) const KEPT: &str = "address kept";

impl Outcome {
    /// Of connections that may go anywhere.
    pub(crate) fn of(ends: &[End]) -> Self {
        let mut this = Self::default();
        for end in ends {
            *this.0.entry(end.to_string()).or_default() += 1;
        }
        this
    }

    /// Of connections that have to go to one and the same pod, whichever it is: two proxies choose differently.
    pub(crate) fn of_sticky(ends: &[End]) -> Self {
        let mut pods: Vec<&str> = ends.iter().filter_map(End::pod).collect();
        pods.sort_unstable();
        pods.dedup();
        let mut this = Self::default();
        for end in ends {
            let text = match end {
                // Whether a source address is kept can depend on the pod.
                End::Pod(_, port, _) if pods.len() == 1 => format!("one pod, port {port}"),
                _ => end.to_string(),
            };
            *this.0.entry(text).or_default() += 1;
        }
        this
    }

    /// Whether the same happened, however often.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }

    /// Whether all connections ended like this.
    pub(crate) fn is(&self, end: &str) -> bool {
        self.0.keys().eq([end])
    }

    /// Whether pods answered all connections.
    pub(crate) fn answered(&self) -> bool {
        self.0.keys().all(|key| key.contains("port "))
    }

    /// Who answered at which port, whatever source address was seen; or how it ended.
    pub(crate) fn whom(&self) -> BTreeSet<&str> {
        self.0.keys().map(|key| key.split(',').next().unwrap_or_default()).collect()
    }

    /// Whether any connection ended in a way that begins like this.
    pub(crate) fn names(&self, start: &str) -> bool {
        self.0.keys().any(|key| key.starts_with(start))
    }

    /// The words with their counts.
    pub(crate) fn counts(&self) -> &BTreeMap<String, u32> {
        &self.0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(what, count)| format!("{count} x {what}")).collect();
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name, port, source) => write!(f, "{name} port {port}, {source}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl End {
    /// The pod that answered.
    pub(crate) fn pod(&self) -> Option<&str> {
        match self {
            Self::Pod(name, ..) => Some(name),
            Self::Other(_) => None,
        }
    }
}
