//! Counters, and how Prometheus reads them: kube-proxy's names where they mean the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::applier::Report;

/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, count) in BUCKETS.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, count) in BUCKETS.iter().zip(&self.counts) {
            let _infallible = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let Self { count, sum, .. } = self;
        let _infallible =
            writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

/// What the node counts.
#[derive(Default)]
pub struct Metrics {
    syncs: Histogram,
    full_syncs: Histogram,
    partial_syncs: Histogram,
    last_sync: Option<SystemTime>,
    sync_failures: u64,
    repairs: u64,
    refused: BTreeMap<&'static str, u64>,
    source_errors: u64,
    answers: BTreeMap<(&'static str, u16), u64>,
    /// The version in force.
    pub sequence: u64,
    /// Targets and endpoints in force on this node.
    pub sizes: (usize, usize),
    /// When the source last said anything.
    pub heard: Option<SystemTime>,
}

impl Metrics {
    /// A version or a repair reached the kernel.
    pub fn synced(&mut self, report: &Report) {
        self.syncs.observe(report.took);
        if report.rebuilt { &mut self.full_syncs } else { &mut self.partial_syncs }.observe(report.took);
        self.last_sync = Some(SystemTime::now());
    }

    /// Rules were repaired after somebody else changed them.
    pub fn repaired(&mut self) {
        self.repairs += 1;
    }

    /// The kernel could not be written.
    pub fn sync_failed(&mut self) {
        self.sync_failures += 1;
    }

    /// A version was refused.
    pub fn refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// The source could not be read.
    pub fn source_failed(&mut self) {
        self.source_errors += 1;
    }

    /// A health check was answered.
    pub fn answered(&mut self, check: &'static str, code: u16) {
        *self.answers.entry((check, code)).or_default() += 1;
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let histograms = [
            (&self.syncs, "sync_proxy_rules", "Time to bring a version to the kernel."),
            (&self.full_syncs, "sync_full_proxy_rules", "Time to write all rules."),
            (&self.partial_syncs, "sync_partial_proxy_rules", "Time to write what changed."),
        ];
        for (histogram, name, help) in histograms {
            histogram.write(&mut out, &format!("kubeproxy_{name}_duration_seconds"), help);
        }
        let unix = |t: Option<SystemTime>| {
            t.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |d| d.as_secs_f64())
        };
        let mut one = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        one(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "gauge",
            "When rules were last written.",
            &unix(self.last_sync),
        );
        one(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "counter",
            "Writes that the kernel refused.",
            &self.sync_failures,
        );
        one("rulecast_node_bundle_sequence", "gauge", "The version in force.", &self.sequence);
        one("rulecast_node_targets", "gauge", "Load-balancing targets in force.", &self.sizes.0);
        one("rulecast_node_endpoints", "gauge", "Endpoints in force on this node.", &self.sizes.1);
        one(
            "rulecast_node_repairs_total",
            "counter",
            "Repairs after somebody else changed the rules.",
            &self.repairs,
        );
        one(
            "rulecast_node_source_errors_total",
            "counter",
            "Failed reads of the source.",
            &self.source_errors,
        );
        one(
            "rulecast_node_source_last_heard_timestamp_seconds",
            "gauge",
            "When the source last brought a version.",
            &unix(self.heard),
        );
        self.write_labelled(&mut out);
        out
    }

    fn write_labelled(&self, out: &mut String) {
        let name = "rulecast_node_refused_total";
        let _infallible = writeln!(out, "# HELP {name} Versions refused.\n# TYPE {name} counter");
        for (reason, count) in &self.refused {
            let _infallible = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
        }
        for check in ["healthz", "livez"] {
            let name = format!("kubeproxy_proxy_{check}_total");
            let _infallible = writeln!(out, "# HELP {name} Answers to /{check}.\n# TYPE {name} counter");
            for ((_, code), count) in self.answers.iter().filter(|((c, _), _)| *c == check) {
                let _infallible = writeln!(out, "{name}{{code=\"{code}\"}} {count}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_named_as_kube_proxys() {
        let mut metrics = Metrics::default();
        for ms in [1, 30, 20_000] {
            metrics.synced(&Report {
                took: Duration::from_millis(ms),
                rebuilt: ms > 100,
                ..Report::default()
            });
        }
        metrics.refused("Replay");
        metrics.answered("healthz", 200);
        let text = metrics.render();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.001\"} 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"10\"} 2",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\"} 3",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 2",
            "rulecast_node_refused_total{reason=\"Replay\"} 1",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
