//! Which of a pool's two bundles the node follows: the pool's own, or while it is in a wave that of the next shape.

use rulecast_bundle::next_of;
use rulecast_connect::between;
use tokio::time::{Duration, Instant};

/// As long as that the bundle of the next shape may be missing: the one that says so to the node may have been written first.
const MISSING: Duration = Duration::from_secs(3);
/// After this long, and up to as much again, a node that had to leave the bundle of the next shape tries it once more.
const AGAIN: Duration = Duration::from_secs(20);

/// What the source watches, and when it shall watch the other one.
pub(super) struct Wave {
    names: [String; 2],
    /// The bundle of the next shape is followed.
    next: bool,
    /// It is not there. Until when to wait for it.
    missing: Option<Instant>,
    /// It could not be used, so until then the pool's own is followed whatever that says.
    shunned: Option<Instant>,
}

impl Wave {
    /// Follows the pool's own bundle.
    pub(super) fn new(pool: &str) -> Self {
        Self { names: [pool.to_owned(), next_of(pool)], next: false, missing: None, shunned: None }
    }

    /// The name of the bundle that is followed.
    pub(super) fn followed(&self) -> &str {
        &self.names[usize::from(self.next)]
    }

    /// Whether it is that of the next shape.
    pub(super) fn is_next(&self) -> bool {
        self.next
    }

    /// What is followed was heard of.
    pub(super) fn heard(&mut self) {
        self.missing = None;
    }

    /// What is followed is not there, perhaps because it was deleted. Only of the next shape's bundle that means something.
    pub(super) fn gone(&mut self, deleted: bool) {
        let now = Instant::now();
        let until = if deleted { now } else { now + MISSING };
        self.missing = self.next.then(|| self.missing.map_or(until, |before| before.min(until)));
    }

    /// What is followed is there and cannot be brought into force.
    pub(super) fn failed(&mut self) {
        if self.next {
            self.shunned = Some(Instant::now() + between(AGAIN, 2 * AGAIN));
        }
    }

    /// Turns to the other bundle if that is what `wanted`, which the version in force says, and what was heard ask for. Returns
    /// whether it did.
    pub(super) fn turn(&mut self, wanted: bool) -> bool {
        let now = Instant::now();
        if self.missing.is_some_and(|until| now >= until) {
            self.missing = None;
            self.failed();
        }
        if !wanted || self.shunned.is_some_and(|until| now >= until) {
            self.shunned = None;
        }
        let next = wanted && self.shunned.is_none();
        let turned = next != self.next;
        if turned {
            (self.next, self.missing) = (next, None);
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_missing_bundle_is_waited_for_then_left_and_tried_again() {
        let mut wave = Wave::new("p");
        wave.gone(false);
        assert!(!wave.turn(false) && wave.followed() == "p", "a pool's own bundle is followed, there or not");
        assert!(wave.turn(true) && wave.followed() == "p.next");
        wave.gone(false);
        tokio::time::advance(MISSING / 2).await;
        assert!(!wave.turn(true));
        wave.heard();
        wave.gone(false);
        tokio::time::advance(MISSING / 2).await;
        wave.gone(false);
        assert!(!wave.turn(true), "it was there meanwhile");
        tokio::time::advance(MISSING / 2).await;
        assert!(wave.turn(true) && !wave.is_next());
        tokio::time::advance(AGAIN / 2).await;
        assert!(!wave.turn(true));
        tokio::time::advance(AGAIN * 2).await;
        assert!(wave.turn(true) && wave.is_next());
        wave.gone(false);
        wave.gone(true);
        assert!(wave.turn(true) && !wave.is_next(), "what was deleted is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_left_at_once_and_forgotten_with_the_wave() {
        let mut wave = Wave::new("p");
        assert!(wave.turn(true));
        wave.failed();
        assert!(wave.turn(true) && !wave.is_next());
        wave.failed();
        assert!(!wave.turn(false), "the wave is over");
        assert!(wave.turn(true) && wave.is_next(), "the next one begins");
        assert!(wave.turn(false) && !wave.is_next());
    }
}
