//! When a node reports. All nodes hear of a version in the same moment, and a report costs the API server about what a
//! thousand watch events do: so the more nodes there are, the further apart their reports lie.

use std::time::Duration;

use rulecast_connect::between;
use tokio::time::Instant;

/// Reports of versions: all nodes together write one a second.
const VERSION: Duration = Duration::from_secs(1);
/// But each node at least this often while there are new versions.
const OFTEN_ENOUGH: Duration = Duration::from_mins(10);
/// What somebody waits for, as problems and their end: two hundred a second.
const URGENT: Duration = Duration::from_millis(5);

/// The time that so many nodes share for reporting a version: each node's interval is at least this, and up to as much again.
#[must_use]
pub fn spread_of_versions(nodes: usize) -> Duration {
    spread(VERSION, nodes).min(OFTEN_ENOUGH)
}

fn spread(each: Duration, nodes: usize) -> Duration {
    each.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX))
}

/// What is different from the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Version,
    Urgent,
}

/// Says when a report is due.
pub(super) struct Schedule {
    /// The least time between two reports of versions.
    interval: Duration,
    last: Option<Instant>,
    /// What is to be reported, and when.
    due: Option<(Change, Instant)>,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: None, due: None }
    }

    /// Whether to report now; if so, that counts as done. `nodes`: how many there are.
    pub(super) fn is_due(&mut self, change: Change, nodes: usize, now: Instant) -> bool {
        let (known, at) = self.due.unzip();
        match change {
            Change::None => self.due = None,
            _ if known == Some(change) => {}
            // What was due already does not have to wait for longer.
            Change::Urgent => {
                let soon = now + between(Duration::ZERO, spread(URGENT, nodes));
                self.due = Some((change, at.map_or(soon, |at| at.min(soon))));
            }
            Change::Version => {
                let all = spread_of_versions(nodes);
                let from = self.last.map_or(now, |last| now.max(last + self.interval.max(all)));
                self.due = Some((change, from + between(Duration::ZERO, all)));
            }
        }
        let due = self.due.is_some_and(|(_, at)| at <= now);
        if due {
            (self.last, self.due) = (Some(now), None);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The times of reports within `seconds` while every second brings another version, asked every half second.
    fn times(nodes: usize, seconds: u32, start: Instant) -> Vec<Duration> {
        let mut schedule = Schedule::new(10 * SECOND);
        let steps = (0..seconds * 2).map(|step| start + SECOND / 2 * step);
        steps.filter(|now| schedule.is_due(Change::Version, nodes, *now)).map(|now| now - start).collect()
    }

    #[tokio::test]
    async fn few_nodes_report_every_interval_and_many_share_the_time() {
        fastrand::seed(3);
        let start = Instant::now();
        let of_two = times(2, 100, start).len();
        assert!((8..=11).contains(&of_two), "{of_two}");
        let reports: Vec<_> = (0..300).flat_map(|_| times(300, 1200, start)).collect();
        for minute in 0..20 {
            let within = reports.iter().filter(|at| at.as_secs() / 60 == minute).count();
            assert!(within <= 90, "{within} reports of 300 nodes in minute {minute}");
        }
        assert!(reports.len() > 600, "{}", reports.len());
        assert!(!times(5000, 1250, start).is_empty(), "in twice the longest time");
    }

    #[tokio::test]
    async fn a_problem_does_not_wait_for_the_interval() {
        let mut schedule = Schedule::new(10 * SECOND);
        let start = Instant::now();
        assert!(schedule.is_due(Change::Urgent, 0, start), "the first report");
        assert!(!schedule.is_due(Change::Version, 10, start + SECOND));
        assert!(
            schedule.is_due(Change::Urgent, 10, start + 2 * SECOND) || {
                schedule.is_due(Change::Urgent, 10, start + 2 * SECOND + URGENT * 10)
            }
        );
        assert!(!schedule.is_due(Change::None, 10, start + 60 * SECOND));
        assert!(!schedule.is_due(Change::None, 10, start + 61 * SECOND));
    }
}
