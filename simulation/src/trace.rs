//! What happened, when, and whether it was allowed: one line an event.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// What is promised; see the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A node never goes back.
    NeverBack,
    /// A kernel holds one published version, whole.
    Whole,
    /// A head leads to its bundle, and heads only go on.
    HeadLeads,
    /// Nothing is published twice.
    NoNeedless,
    /// Without faults, everything comes to what the cluster's objects say, and stays there.
    Converges,
    /// Chunks that nothing names go away.
    Collected,
    /// No program ends by itself.
    Runs,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverBack => "1 (a node never goes back)",
            Self::Whole => "2 (a kernel holds one published version, whole)",
            Self::HeadLeads => "3 (a head leads to its bundle)",
            Self::NoNeedless => "4 (nothing is published twice)",
            Self::Converges => "5 (everything converges)",
            Self::Collected => "6 (unnamed chunks go away)",
            Self::Runs => "7 (no program ends by itself)",
        })
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// The events of one history. Two histories are the same when their hashes are.
pub(crate) struct Trace {
    inner: Mutex<Inner>,
    violated: Notify,
}

struct Inner {
    start: Instant,
    hash: DefaultHasher,
    events: u64,
    /// None: only the hash is kept.
    lines: Option<Vec<String>>,
    violation: Option<Violation>,
}

/// What remains of a trace.
pub(crate) struct Told {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) violation: Option<Violation>,
}

impl Trace {
    pub(crate) fn new(keep_lines: bool) -> Self {
        let inner = Inner {
            start: Instant::now(),
            hash: DefaultHasher::new(),
            events: 0,
            lines: keep_lines.then(Vec::new),
            violation: None,
        };
        Self { inner: Mutex::new(inner), violated: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A node that is killed may unwind through here; every event is added whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let line = format!("{:9.3} {what}", inner.start.elapsed().as_secs_f64());
        inner.hash.write(line.as_bytes());
        inner.events += 1;
        if let Some(lines) = &mut inner.lines {
            lines.push(line);
        }
    }

    /// Ends the history. The first violation is the one that counts.
    pub(crate) fn violate(&self, invariant: Invariant, what: impl Into<String>) {
        let violation = Violation { invariant, what: what.into() };
        self.note(format_args!("VIOLATED {violation}"));
        self.inner().violation.get_or_insert(violation);
        self.violated.notify_one();
    }

    /// Waits for the first violation.
    pub(crate) async fn violated(&self) {
        self.violated.notified().await;
    }

    pub(crate) fn told(&self) -> Told {
        let mut inner = self.inner();
        Told {
            hash: inner.hash.finish(),
            events: inner.events,
            lines: inner.lines.take().unwrap_or_default(),
            violation: inner.violation.clone(),
        }
    }
}
