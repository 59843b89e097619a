//! What Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn synced(ms: u64) -> Report {
    Report { took: Duration::from_millis(ms), rebuilt: ms > 100, ..Report::default() }
}

/// Metrics of which everything has a value.
fn full() -> Metrics {
    let mut metrics = Metrics::default();
    for ms in [1, 30, 20_000] {
        metrics.synced(&synced(ms));
    }
    metrics.refused("Replay");
    metrics.answered("healthz", 200);
    metrics.answered("livez", 503);
    metrics.queued(7, 3, 2);
    metrics.conntrack_reconciled(Family::V4, Duration::from_millis(3), 5);
    metrics.conntrack_reconciled(Family::V6, Duration::from_millis(300), 0);
    metrics.conntrack_reconciled(Family::V4, Duration::from_millis(3), 2);
    metrics.no_local_endpoints(Family::V6, 4, 1);
    metrics
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} in\n{text}");
    }
}

#[test]
fn histograms_are_cumulative_and_named_as_kube_proxys() {
    assert_lines(
        &full().render(),
        &[
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.001\"} 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"10\"} 2",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\"} 3",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 2",
            "rulecast_node_refused_total{reason=\"Replay\"} 1",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "kubeproxy_proxy_livez_total{code=\"503\"} 1",
        ],
    );
}

#[test]
fn families_are_counted_apart() {
    assert_lines(
        &full().render(),
        &[
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.005\"} 2",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.25\"} 0",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 7",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv6\"} 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"internal\"} 4",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 1",
        ],
    );
}

#[test]
fn changes_are_pending_until_their_version_is_in_force() {
    let value = |metrics: &Metrics, name: &str| {
        let name = format!("kubeproxy_sync_proxy_rules_{name} ");
        let text = metrics.render();
        text.lines().find_map(|l| l.strip_prefix(&name)).unwrap().to_owned()
    };
    let mut metrics = Metrics::default();
    let changes = ["endpoint_changes_pending", "endpoint_changes_total"];
    let services = ["service_changes_pending", "service_changes_total"];
    assert_eq!(changes.map(|name| value(&metrics, name)), ["0", "0"]);
    assert_eq!(value(&metrics, "last_queued_timestamp_seconds"), "0");

    metrics.queued(8, 3, 1);
    metrics.queued(8, 3, 1);
    assert_eq!(changes.map(|name| value(&metrics, name)), ["3", "3"], "tried twice, counted once");
    assert_eq!(services.map(|name| value(&metrics, name)), ["1", "1"]);
    assert_ne!(value(&metrics, "last_queued_timestamp_seconds"), "0");
    // A repair of the version before.
    metrics.synced(&synced(1));
    assert_eq!(changes.map(|name| value(&metrics, name)), ["3", "3"]);
    metrics.sequence = 8;
    assert_eq!(changes.map(|name| value(&metrics, name)), ["0", "3"]);
    metrics.queued(9, 2, 0);
    assert_eq!(changes.map(|name| value(&metrics, name)), ["2", "5"]);
    assert_eq!(services.map(|name| value(&metrics, name)), ["0", "1"]);
}

#[test]
fn failures_have_the_name_of_their_mode() {
    let value = |metrics: &Metrics, name: &str| {
        let name = format!("kubeproxy_sync_proxy_rules_{name}_total ");
        metrics.render().lines().find_map(|l| l.strip_prefix(&name)).unwrap().to_owned()
    };
    let mut metrics = Metrics::default();
    for mode in [None, Some(Mode::Nftables), Some(Mode::Iptables), Some(Mode::Ipvs), Some(Mode::Ipvs)] {
        metrics.sync_failed(mode);
    }
    assert_eq!(value(&metrics, "nftables_sync_failures"), "2");
    assert_eq!(value(&metrics, "iptables_restore_failures"), "3");
}

/// A sample as Prometheus' text format 0.0.4 has it: a name, labels, a value.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = |name: &str| name.chars().all(word) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    let mut read = BTreeMap::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        if !good(key) || value.contains(['"', '\\', '{', '}']) || read.insert(key, value).is_some() {
            return None;
        }
    }
    good(name).then_some((name, read, value.parse().ok()?))
}

/// Every metric has its help and type once and before its samples, which stand together; no series appears twice; the
/// buckets of a histogram grow, and the last one is its count.
#[test]
fn the_text_is_what_prometheus_takes() {
    for metrics in [Metrics::default(), full()] {
        let text = metrics.render();
        assert!(text.ends_with('\n'));
        let (mut told, mut series) = (BTreeSet::new(), BTreeSet::new());
        let (mut current, mut kind, mut bucket) = ("", "", 0.0);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().unwrap();
                assert!(help.len() > current.len() + 1 && told.insert(current), "{line}");
                let typed = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                kind = typed.strip_prefix(current).unwrap().trim_start();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{typed}");
                continue;
            }
            let (name, labels, value) = sample(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(value >= 0.0 && series.insert((name, labels.clone())), "{line}");
            let part = name.strip_prefix(current).unwrap_or_else(|| panic!("{line} among {current}"));
            match (kind, part) {
                ("histogram", "_bucket") => {
                    assert!(value >= bucket, "{line}");
                    bucket = if labels["le"] == "+Inf" { 0.0 } else { value };
                }
                ("histogram", "_sum" | "_count") => assert!(!labels.contains_key("le")),
                (_, part) => assert_eq!(part, "", "{line}"),
            }
            if kind == "histogram" && part == "_count" {
                let whole = text.lines().filter_map(sample).find(|(bucket, others, _)| {
                    let mut others = others.clone();
                    bucket.strip_suffix("_bucket") == name.strip_suffix("_count")
                        && others.remove("le") == Some("+Inf")
                        && others == labels
                });
                assert_eq!(whole.unwrap().2.to_bits(), value.to_bits(), "{line}");
            }
        }
        assert!(told.len() > 20);
    }
}
