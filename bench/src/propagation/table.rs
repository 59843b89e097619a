//! What was measured, side by side.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::cluster::Size;
use crate::stats::percentile;

/// What happens besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing: one change, and nothing until it has arrived and a while longer.
    Quiet,
    /// So many changes a second, evenly.
    Changes(u32),
}

/// How long one change took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Until the API server answered the write.
    pub(super) put: Duration,
    /// From the write to rulecast's kernel.
    pub(super) own: Duration,
    /// From the write to kube-proxy's kernel.
    pub(super) peer: Duration,
}

/// Times from the write of an EndpointSlice to the kernel, at one size and load.
#[derive(Debug, Serialize)]
pub struct Row {
    bench: &'static str,
    services: u32,
    endpoints: u32,
    /// Changes a second; 0 on a quiet cluster.
    rate: u32,
    samples: usize,
    own_p50_ms: f64,
    own_p90_ms: f64,
    own_p99_ms: f64,
    peer_p50_ms: f64,
    peer_p90_ms: f64,
    peer_p99_ms: f64,
    put_p50_ms: f64,
}

/// The longest that the slowest change but one in a hundred may take while many go on, and the median of single ones.
const BUSY_P99_MS: f64 = 1200.0;
const QUIET_P50_MS: f64 = 50.0;

impl Row {
    /// Summarizes; there must be at least one sample.
    pub(super) fn new(size: Size, load: Load, samples: &[Sample]) -> Self {
        let sorted = |time: fn(&Sample) -> Duration| {
            let mut times: Vec<_> = samples.iter().map(|sample| time(sample).as_secs_f64() * 1e3).collect();
            times.sort_unstable_by(f64::total_cmp);
            times
        };
        let (own, peer, put) = (sorted(|s| s.own), sorted(|s| s.peer), sorted(|s| s.put));
        let at = |sorted: &[f64], percent| (percentile(sorted, percent) * 10.0).round() / 10.0;
        Self {
            bench: "propagation",
            services: size.services,
            endpoints: size.endpoints,
            rate: match load {
                Load::Quiet => 0,
                Load::Changes(rate) => rate,
            },
            samples: samples.len(),
            own_p50_ms: at(&own, 50),
            own_p90_ms: at(&own, 90),
            own_p99_ms: at(&own, 99),
            peer_p50_ms: at(&peer, 50),
            peer_p90_ms: at(&peer, 90),
            peer_p99_ms: at(&peer, 99),
            put_p50_ms: at(&put, 50),
        }
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Self { services, endpoints, rate, samples, .. } = self;
        let load = if *rate == 0 { "quiet".to_owned() } else { format!("{rate} changes/s") };
        let title = format!("propagation  {services} Services x {endpoints} endpoints  {load}");
        let mut table = format!("{title:<60}{:>11}{:>11}{:>8}\n", "kube-proxy", "rulecast", "ratio");
        let lines = [
            ("p50", self.peer_p50_ms, self.own_p50_ms, (*rate == 0).then_some(QUIET_P50_MS)),
            ("p90", self.peer_p90_ms, self.own_p90_ms, None),
            ("p99", self.peer_p99_ms, self.own_p99_ms, (*rate > 0).then_some(BUSY_P99_MS)),
        ];
        for (what, peer, own, budget) in lines {
            let what = format!("write to kernel, {what} of {samples}");
            let verdict = match budget {
                None => String::new(),
                Some(budget) if own <= budget => format!("  ok (<= {budget:.0})"),
                Some(budget) => format!("  MISSED (<= {budget:.0})"),
            };
            let ratio = own / peer;
            writeln!(table, "  {what:<50} {:<7}{peer:>11.1}{own:>11.1}{ratio:>8.3}{verdict}", "ms")
                .expect("a String grows");
        }
        writeln!(
            table,
            "  {:<50} {:<7}{:>22.1}",
            "of it the API server's answer, p50", "ms", self.put_p50_ms
        )
        .expect("a String grows");
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(load: Load, own: u64) -> Row {
        let ms = Duration::from_millis;
        let samples: Vec<_> =
            (1..=100).map(|n| Sample { put: ms(n), own: ms(own + n), peer: ms(1000 * n) }).collect();
        Row::new(Size { services: 7, endpoints: 2 }, load, &samples)
    }

    #[test]
    fn percentiles_are_of_each_side() {
        let row = row(Load::Changes(20), 200);
        assert_eq!((row.samples, row.rate), (100, 20));
        let own = [row.own_p50_ms, row.own_p90_ms, row.own_p99_ms];
        let peer = [row.peer_p50_ms, row.peer_p90_ms, row.peer_p99_ms];
        let times = [own, peer, [row.put_p50_ms; 3]].map(|times| times.map(|ms| format!("{ms}")));
        assert_eq!(times, [["250", "290", "299"], ["50000", "90000", "99000"], ["50"; 3]]);
        assert!(row.table().lines().nth(1).unwrap().ends_with("0.005"), "{}", row.table());
    }

    #[test]
    fn each_load_has_one_budget() {
        for (load, own, verdict) in [
            (Load::Quiet, 0, "ok"),
            (Load::Quiet, 1, "MISSED"),
            (Load::Changes(20), 1101, "ok"),
            (Load::Changes(20), 1102, "MISSED"),
        ] {
            let table = row(load, own).table();
            assert_eq!(table.matches("(<=").count(), 1, "{table}");
            assert!(table.contains(&format!("  {verdict} (<=")), "{load:?}, {own}: {table}");
        }
    }
}
