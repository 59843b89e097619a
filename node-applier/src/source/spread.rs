//! How long to wait before the API server is asked again: never all nodes at once.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use rulecast_connect::{between, jitter};
use tokio::time::Instant;

/// After the first failure, at most: a cluster's nodes lose an API server in the same moment, and 5,000 of them come back
/// with a thousand connections a second.
const FIRST: Duration = Duration::from_secs(5);
/// While it goes on failing, at most.
const LONGEST: Duration = Duration::from_secs(30);
/// A failure after this long without one is a first one.
const FORGET: Duration = Duration::from_mins(2);

/// Waiting times after failures.
#[derive(Debug, Default)]
pub(super) struct Spread {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Spread {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.replace(now).is_none_or(|last| now.duration_since(last) > FORGET) {
            self.failures = 0;
        }
        let longest = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        Some(if self.failures == 1 { between(Duration::ZERO, longest) } else { jitter(longest) })
    }
}

impl Backoff for Spread {
    /// A watcher says that it begins to list before anybody has answered, so what goes well is no reason to hurry.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_thousand_nodes_come_back_evenly() {
        fastrand::seed(7);
        let mut a_second = [0; 5];
        for _ in 0..5000 {
            let wait = Spread::default().next().unwrap();
            a_second[usize::try_from(wait.as_secs().min(4)).unwrap()] += 1;
        }
        assert!(a_second.iter().all(|n| (850..1150).contains(n)), "{a_second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_while_it_fails_and_forgets_after_a_while() {
        let mut spread = Spread::default();
        let waits: Vec<_> = spread.by_ref().take(5).collect();
        spread.reset();
        assert!(waits[0] <= FIRST && waits[3] >= LONGEST / 2 && waits[4] <= LONGEST, "{waits:?}");
        assert!(spread.next().unwrap() >= LONGEST / 2, "a reset is not a success");
        tokio::time::advance(FORGET * 2).await;
        assert!(spread.next().unwrap() <= FIRST);
    }
}
