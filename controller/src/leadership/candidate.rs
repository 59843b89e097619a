//! The rules of the election, without I/O: what a candidate knows, and what it does next.

use rulecast_connect::jitter;
use tokio::time::{Duration, Instant};

use super::record::Record;

/// Others take over this long after the last renewal that they saw. In whole seconds, as the Lease has it.
pub(super) const DURATION: Duration = Duration::from_secs(4);
/// A leader without a successful renewal for this long no longer leads: others wait longer, whatever their clocks say.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two renewals.
const RENEW: Duration = Duration::from_millis(1200);
/// After a write that failed, at most.
const RETRY: Duration = Duration::from_millis(500);

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Read the Lease.
    Read,
    /// Write oneself into it: over what was seen, or as a new one.
    Write,
    /// Nothing before this time.
    Wait(Instant),
}

/// The Lease as it was seen last.
enum Seen {
    /// Not yet, or what was seen may no longer be.
    Unread,
    Absent,
    There(Record),
}

/// One that stands for election.
pub(super) struct Candidate {
    name: String,
    seen: Seen,
    /// When its holder was last seen to have changed anything.
    moved: Instant,
    /// This process leads until then.
    leads_until: Option<Instant>,
    /// When the last renewal that went well began.
    renewed: Instant,
    /// Nothing is tried before.
    pause: Instant,
}

impl Candidate {
    /// One that has seen nothing yet.
    pub(super) fn new(name: &str, now: Instant) -> Self {
        let name = name.to_owned();
        Self { name, seen: Seen::Unread, moved: now, leads_until: None, renewed: now, pause: now }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The Lease, where there is one.
    pub(super) fn seen(&self) -> Option<&Record> {
        match &self.seen {
            Seen::There(record) => Some(record),
            Seen::Unread | Seen::Absent => None,
        }
    }

    /// Until when this process leads, if it does.
    pub(super) fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| now < *until)
    }

    /// Takes note of what a watch says, which may be older than what was read or written.
    pub(super) fn heard(&mut self, record: Record, now: Instant) {
        let number = |record: &Record| record.version.parse::<u64>().ok();
        let older = |seen: &Record| Some(number(&record)? < number(seen)?);
        if self.seen().and_then(older) != Some(true) {
            self.observe(Some(record), now);
        }
    }

    /// Takes note of a watch that says the Lease is gone, perhaps late: only reading tells.
    pub(super) fn doubt(&mut self) {
        self.seen = Seen::Unread;
    }

    /// Takes note of the Lease as it was read. A holder that did nothing since it was seen last is as old as it was.
    pub(super) fn observe(&mut self, lease: Option<Record>, now: Instant) {
        let same = |a: &Record, b: &Record| {
            (&a.holder, &a.renewed, a.transitions) == (&b.holder, &b.renewed, b.transitions)
        };
        if !self.seen().zip(lease.as_ref()).is_some_and(|(a, b)| same(a, b)) {
            self.moved = now;
        }
        if lease.as_ref().is_none_or(|record| record.holder != self.name) {
            self.leads_until = None;
        }
        self.seen = lease.map_or(Seen::Absent, Seen::There);
    }

    /// Takes note of a write that went well; it was begun at `began`.
    pub(super) fn wrote(&mut self, lease: Record, began: Instant, now: Instant) {
        self.observe(Some(lease), now);
        self.renewed = began;
        self.leads_until = Some(began + DEADLINE);
    }

    /// Takes note of a read or a write that failed. A write that was done all the same will meet a newer version.
    pub(super) fn failed(&mut self, now: Instant) {
        self.pause = now + jitter(RETRY);
    }

    /// What to do next.
    pub(super) fn step(&self, now: Instant) -> Step {
        if now < self.pause {
            return Step::Wait(self.pause);
        }
        let from = match &self.seen {
            Seen::Unread => return Step::Read,
            // It leads: renew in time.
            Seen::There(_) if self.leads_until(now).is_some() => self.renewed + RENEW,
            Seen::There(record) if record.holder.is_empty() || record.holder == self.name => now,
            Seen::There(record) => self.moved + record.duration,
            Seen::Absent => now,
        };
        if from <= now { Step::Write } else { Step::Wait(from) }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn record(holder: &str, renewal: i64) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: DURATION,
            renewed: Timestamp::from_second(renewal).ok().map(MicroTime),
            acquired: None,
            transitions: 0,
            version: renewal.to_string(),
        }
    }

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[tokio::test]
    async fn a_silent_leader_is_replaced_after_its_lease_by_the_observers_clock() {
        let start = Instant::now();
        let mut b = Candidate::new("b", start);
        assert_eq!(b.step(start), Step::Read);
        // A clock that is a day ahead or behind makes no difference.
        b.observe(Some(record("a", -86_400)), start);
        assert_eq!(b.step(start), Step::Wait(start + DURATION));
        b.heard(record("a", 86_400), start + seconds(2.0));
        assert_eq!(b.step(start + seconds(2.0)), Step::Wait(start + seconds(6.0)));
        // Seen again, and not renewed.
        b.observe(Some(record("a", 86_400)), start + seconds(5.0));
        assert_eq!(b.step(start + seconds(6.0)), Step::Write);
    }

    #[tokio::test]
    async fn a_lease_that_was_given_back_or_deleted_is_taken_at_once() {
        let now = Instant::now();
        let mut b = Candidate::new("b", now);
        for free in [Some(record("", 1)), None, Some(record("b", 1))] {
            b.observe(Some(record("a", 1)), now);
            assert!(matches!(b.step(now), Step::Wait(_)));
            b.observe(free, now);
            assert_eq!(b.step(now), Step::Write);
            assert_eq!(b.leads_until(now), None, "only a write makes a leader");
        }
    }

    #[tokio::test]
    async fn a_leader_renews_and_stops_before_others_may_begin() {
        let start = Instant::now();
        let mut a = Candidate::new("a", start);
        a.wrote(record("a", 1), start, start + seconds(0.1));
        assert_eq!(a.step(start), Step::Wait(start + RENEW));
        assert_eq!(a.step(start + RENEW), Step::Write);
        a.failed(start + RENEW);
        assert!(matches!(a.step(start + RENEW), Step::Wait(at) if at <= start + RENEW + RETRY));
        assert!(a.leads_until(start + seconds(2.9)).is_some());
        assert_eq!(a.leads_until(start + seconds(3.0)), None);
        assert!(DEADLINE + RETRY < DURATION);
    }

    #[tokio::test]
    async fn a_watch_that_is_behind_deposes_nobody() {
        let now = Instant::now();
        let mut b = Candidate::new("b", now);
        b.observe(Some(record("", 7)), now);
        b.wrote(record("b", 8), now, now);
        b.heard(record("a", 6), now);
        assert!(b.leads_until(now).is_some());
        b.doubt();
        assert_eq!(b.step(now), Step::Read);
        assert!(b.leads_until(now).is_some(), "until it is read");
    }

    #[tokio::test]
    async fn a_leader_that_sees_another_one_steps_down() {
        let now = Instant::now();
        let mut a = Candidate::new("a", now);
        a.wrote(record("a", 1), now, now);
        a.observe(Some(record("c", 2)), now);
        assert_eq!(a.leads_until(now), None);
        assert_eq!(a.step(now), Step::Wait(now + DURATION));
    }
}
