//! When the next publication may begin: at once after a quiet time, then once an interval, later after failures.

use std::time::Duration;

use rulecast_connect::jitter;
use tokio::time::Instant;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// After a conflict what is there is read and compared; only two live controllers go on conflicting.
const AFTER_CONFLICT: Duration = Duration::from_millis(200);

/// Spaces publications out.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Instant,
    failures: u32,
}

impl Pace {
    /// The first one may begin at once.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now(), failures: 0 }
    }

    /// Changes the interval, from the next publication on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// When the next one may begin.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// How many failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// One that began then went well.
    pub fn succeeded(&mut self, began: Instant) {
        self.failures = 0;
        self.next = began + self.interval;
    }

    /// One failed.
    pub fn failed(&mut self, conflict: bool) {
        let longest = if conflict {
            AFTER_CONFLICT
        } else {
            FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(LAST_RETRY)
        };
        self.failures += u32::from(!conflict);
        self.next = Instant::now() + jitter(longest);
    }
}
