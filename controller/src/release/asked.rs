//! What a RulePool says of releases.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rulecast_bundle::Digest;

/// How a pool's shapes go live, as its RulePool asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `approval: Manual`.
    pub manual: bool,
    /// `approved`.
    pub approved: Option<Approved>,
    /// `hold`.
    pub hold: bool,
    /// Why, as somebody wrote it into the annotation.
    pub hold_reason: String,
    /// `pinnedRevision`.
    pub pinned: Option<u64>,
    /// `exactReplay`.
    pub exact: Option<Exact>,
    /// `revisionHistoryLimit`.
    pub history: usize,
    /// `promotion`.
    pub promotion: Option<Promotion>,
    /// `waves.pause`.
    pub waves: Option<Duration>,
}

/// A shape that somebody has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approved {
    /// Its number, if they gave one.
    pub revision: Option<u64>,
    /// Its digest.
    pub digest: Digest,
}

/// An old bundle, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// The revision whose last bundle it is.
    pub revision: u64,
    /// Until when.
    pub until: Timestamp,
}

/// The pool that goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// Its name.
    pub from: String,
    /// For how long.
    pub soak: Duration,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            manual: false,
            approved: None,
            hold: false,
            hold_reason: String::new(),
            pinned: None,
            exact: None,
            history: 10,
            promotion: None,
            waves: None,
        }
    }
}
