//! Counters, and how Prometheus reads them: kube-proxy's names where they mean the same.
//!
//! kube-proxy's label `ip_family` is there where the families differ; rules of both are written in one transaction, so
//! numbers about that have none. Two of its metrics are left out, because here they would mean nothing:
//! `network_programming_duration_seconds` is counted from a time that bundles do not carry, and a clean-up that fails
//! (`nftables_cleanup_failures_total`) is followed by a repair, which is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rulecast_bundle::Mode;
use rulecast_bundle::nft::Family;

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

    /// The histogram's lines; `labels` are those beside `le`, as `key="value"`.
    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let (and, all) = if labels.is_empty() {
            (String::new(), String::new())
        } else {
            (format!("{labels},"), format!("{{{labels}}}"))
        };
        for (bound, count) in BUCKETS.iter().zip(&self.counts) {
            let _infallible = writeln!(out, "{name}_bucket{{{and}le=\"{bound}\"}} {count}");
        }
        let Self { count, sum, .. } = self;
        let _infallible = writeln!(out, "{name}_bucket{{{and}le=\"+Inf\"}} {count}");
        let _infallible = writeln!(out, "{name}_sum{all} {sum}\n{name}_count{all} {count}");
    }
}

/// What is counted for each family.
#[derive(Default)]
struct PerFamily {
    /// Reconciliations of conntrack, and the entries that they deleted.
    conntrack: Histogram,
    deleted_flows: u64,
    /// Services without a local endpoint, by internal and external traffic policy Local.
    no_local_endpoints: [usize; 2],
}

/// Changes that a version brings.
#[derive(Default)]
struct Queued {
    sequence: u64,
    at: Option<SystemTime>,
    endpoints: u64,
    services: u64,
}

/// What the node counts.
#[derive(Default)]
pub struct Metrics {
    syncs: Histogram,
    full_syncs: Histogram,
    partial_syncs: Histogram,
    last_sync: Option<SystemTime>,
    queued: Queued,
    endpoint_changes: u64,
    service_changes: u64,
    families: [PerFamily; 2],
    sync_failures: u64,
    restore_failures: u64,
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
    /// Since when the source does not answer, when it last did not, and what it was.
    pub away: Option<Away>,
    /// A shape is kept on this node.
    pub held: bool,
}

/// A source that does not answer.
#[derive(Debug, Clone)]
pub struct Away {
    /// The first failure since it last answered.
    pub since: SystemTime,
    /// The last one.
    pub last: SystemTime,
    /// What that was.
    pub message: String,
}

impl Metrics {
    /// A version or a repair reached the kernel.
    pub fn synced(&mut self, report: &Report) {
        self.syncs.observe(report.took);
        if report.rebuilt { &mut self.full_syncs } else { &mut self.partial_syncs }.observe(report.took);
        self.last_sync = Some(SystemTime::now());
    }

    /// A version was read that brings these changes of endpoints (member records) and Services (group records). To be told
    /// before it is applied; once it is in force, they are pending no longer. A version that is tried again counts once.
    pub fn queued(&mut self, sequence: u64, endpoints: usize, services: usize) {
        let (endpoints, services) = (endpoints as u64, services as u64);
        if self.queued.at.is_none() || self.queued.sequence != sequence {
            self.endpoint_changes += endpoints;
            self.service_changes += services;
        }
        self.queued = Queued { sequence, at: Some(SystemTime::now()), endpoints, services };
    }

    /// The conntrack entries of a family were compared with the rules, which took so long and deleted so many.
    pub fn conntrack_reconciled(&mut self, family: Family, took: Duration, deleted: usize) {
        let family = &mut self.families[index(family)];
        family.conntrack.observe(took);
        family.deleted_flows += deleted as u64;
    }

    /// How many Service ports of a family have endpoints and none on this node, by the traffic policy Local that makes them
    /// drop: the internal one and the external one.
    pub fn no_local_endpoints(&mut self, family: Family, internal: usize, external: usize) {
        self.families[index(family)].no_local_endpoints = [internal, external];
    }

    /// Rules were repaired after somebody else changed them.
    pub fn repaired(&mut self) {
        self.repairs += 1;
    }

    /// The kernel could not be written in this mode.
    pub fn sync_failed(&mut self, mode: Option<Mode>) {
        // Those of IPVS mode are its few iptables rules, too; kube-proxy has no other name for them.
        let iptables = matches!(mode, Some(Mode::Iptables | Mode::Ipvs));
        *if iptables { &mut self.restore_failures } else { &mut self.sync_failures } += 1;
    }

    /// A version was refused.
    pub fn refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// The source could not be read.
    pub fn source_failed(&mut self, message: String) {
        self.source_errors += 1;
        let last = SystemTime::now();
        let since = self.away.as_ref().map_or(last, |away| away.since);
        self.away = Some(Away { since, last, message });
    }

    /// The source answered.
    pub fn source_answered(&mut self) {
        self.away = None;
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
            let name = format!("kubeproxy_{name}_duration_seconds");
            head(&mut out, &name, "histogram", help);
            histogram.write(&mut out, &name, "");
        }
        self.write_changes(&mut out);
        self.write_families(&mut out);
        self.write_node(&mut out);
        self.write_labelled(&mut out);
        out
    }

    /// What came, and what became of it.
    fn write_changes(&self, out: &mut String) {
        let Self { queued, .. } = self;
        // The version that brought them is in force.
        let done = queued.sequence == self.sequence;
        let pending = |changes| if done { 0 } else { changes };
        let name = |name| format!("kubeproxy_sync_proxy_rules_{name}");
        one(
            out,
            &name("last_timestamp_seconds"),
            "gauge",
            "When rules were last written.",
            &unix(self.last_sync),
        );
        let help = "When a version to be written was last read.";
        one(out, &name("last_queued_timestamp_seconds"), "gauge", help, &unix(queued.at));
        let help = "Changes of endpoints that are not in force.";
        one(out, &name("endpoint_changes_pending"), "gauge", help, &pending(queued.endpoints));
        let help = "Changes of endpoints so far.";
        one(out, &name("endpoint_changes_total"), "counter", help, &self.endpoint_changes);
        let help = "Changes of Services that are not in force.";
        one(out, &name("service_changes_pending"), "gauge", help, &pending(queued.services));
        let help = "Changes of Services so far.";
        one(out, &name("service_changes_total"), "counter", help, &self.service_changes);
        let help = "Writes that the kernel refused, in mode nftables.";
        one(out, &name("nftables_sync_failures_total"), "counter", help, &self.sync_failures);
        let help = "Writes that failed, in modes iptables and ipvs.";
        one(out, &name("iptables_restore_failures_total"), "counter", help, &self.restore_failures);
    }

    /// What differs between the families.
    fn write_families(&self, out: &mut String) {
        let families = || ["IPv4", "IPv6"].into_iter().zip(&self.families);
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        head(out, name, "gauge", "Service ports with traffic policy Local and no endpoint on this node.");
        for (label, family) in families() {
            for (policy, count) in ["internal", "external"].into_iter().zip(family.no_local_endpoints) {
                let _infallible =
                    writeln!(out, "{name}{{ip_family=\"{label}\",traffic_policy=\"{policy}\"}} {count}");
            }
        }
        let name = "kubeproxy_conntrack_reconciler_sync_duration_seconds";
        head(out, name, "histogram", "Time to compare conntrack entries with the rules.");
        for (label, family) in families() {
            family.conntrack.write(out, name, &format!("ip_family=\"{label}\""));
        }
        let name = "kubeproxy_conntrack_reconciler_deleted_entries_total";
        head(out, name, "counter", "Conntrack entries deleted because their endpoint is gone.");
        for (label, family) in families() {
            let _infallible = writeln!(out, "{name}{{ip_family=\"{label}\"}} {}", family.deleted_flows);
        }
    }

    /// What kube-proxy does not have.
    fn write_node(&self, out: &mut String) {
        let (targets, endpoints) = self.sizes;
        one(out, "rulecast_node_bundle_sequence", "gauge", "The version in force.", &self.sequence);
        let help = "Whether a shape is kept on this node, whatever its pool says.";
        one(out, "rulecast_node_held", "gauge", help, &u8::from(self.held));
        one(out, "rulecast_node_targets", "gauge", "Load-balancing targets in force.", &targets);
        one(out, "rulecast_node_endpoints", "gauge", "Endpoints in force on this node.", &endpoints);
        let help = "Repairs after somebody else changed the rules.";
        one(out, "rulecast_node_repairs_total", "counter", help, &self.repairs);
        let help = "Failed reads of the source.";
        one(out, "rulecast_node_source_errors_total", "counter", help, &self.source_errors);
        let help = "When the source last brought a version.";
        one(out, "rulecast_node_source_last_heard_timestamp_seconds", "gauge", help, &unix(self.heard));
    }

    fn write_labelled(&self, out: &mut String) {
        let name = "rulecast_node_refused_total";
        head(out, name, "counter", "Versions refused.");
        for (reason, count) in &self.refused {
            let _infallible = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
        }
        for check in ["healthz", "livez"] {
            let name = format!("kubeproxy_proxy_{check}_total");
            head(out, &name, "counter", &format!("Answers to /{check}."));
            for ((_, code), count) in self.answers.iter().filter(|((c, _), _)| *c == check) {
                let _infallible = writeln!(out, "{name}{{code=\"{code}\"}} {count}");
            }
        }
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric with one value.
fn one(out: &mut String, name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display) {
    head(out, name, kind, help);
    let _infallible = writeln!(out, "{name} {value}");
}

fn unix(at: Option<SystemTime>) -> f64 {
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
