//! What the loop is told, and what it says in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::publisher::{Limits, PublishError, Published};

/// How the loop behaves.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Ends when everything has been published once.
    pub once: bool,
    /// Instead of the pools' own intervals.
    pub publish_interval: Option<Duration>,
    /// Lets publications through that lose many Services.
    pub allow_shrink: bool,
    /// When deltas go inline and checkpoints are due.
    pub limits: Limits,
    /// What time it is, for people, and for the end of an exact replay.
    pub clock: fn() -> Timestamp,
    /// How long chunks stay after the last head let go of them.
    pub keep_chunks: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            once: false,
            publish_interval: None,
            allow_shrink: false,
            limits: Limits::default(),
            clock: Timestamp::now,
            keep_chunks: Duration::from_mins(10),
        }
    }
}

/// Why the loop ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A source ended, which it never does by itself.
    #[error("the source of events has ended")]
    SourceEnded,
    /// The election of the one that publishes ended, which it never does by itself.
    #[error("the election of a leader has ended")]
    ElectionEnded,
    /// A task panicked.
    #[error("a task of the controller failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// With `once`: it could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What was there at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By pool: what is published.
    pub pools: BTreeMap<String, Published>,
    /// Objects and files that could not be used, and Services of which something was left out, and why.
    pub quarantined: Vec<String>,
}
