//! Waiting times that differ: what failed together shall not come back together.

use std::time::Duration;

/// A time from half of `longest` to all of it. Choices are those of `fastrand`'s generator of this thread, so a program
/// that seeds it can repeat them.
#[must_use]
pub fn jitter(longest: Duration) -> Duration {
    between(longest / 2, longest)
}

/// A time in this range, each as likely as the other.
#[must_use]
pub fn between(shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_within_its_bounds_and_spread_over_them() {
        fastrand::seed(1);
        let second = Duration::from_secs(1);
        let times: Vec<_> = (0..1000).map(|_| jitter(second)).collect();
        assert!(times.iter().all(|t| (second / 2..=second).contains(t)));
        for tenth in 0..10 {
            let from = second / 2 + second * tenth / 20;
            let here = times.iter().filter(|t| (from..from + second / 20).contains(*t)).count();
            assert!(here > 50, "{here} of 1000 between {from:?} and a twentieth of a second later");
        }
    }
}
