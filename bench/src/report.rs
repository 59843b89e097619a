//! Results: a table for people, an object a line for programs.

use std::fmt::Write as _;

use rulecast_bundle::Mode;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::cluster::Size;
use crate::stats::Summary;

/// Something measured, more than once.
pub struct Metric {
    /// Its name in JSON, which ends in its unit.
    pub key: &'static str,
    /// What it is, for people.
    pub label: &'static str,
    /// What the measurements come to.
    pub summary: Summary,
    /// It is the cost of one change, which should not grow with the cluster.
    pub flat: bool,
}

/// What one benchmark measured on one cluster.
pub struct Row {
    /// The benchmark.
    pub bench: &'static str,
    /// The proxy mode.
    pub mode: Mode,
    /// The cluster.
    pub size: Size,
    /// What was measured.
    pub metrics: Vec<Metric>,
}

impl Row {
    /// An empty result.
    #[must_use]
    pub fn new(bench: &'static str, mode: Mode, size: Size) -> Self {
        Self { bench, mode, size, metrics: Vec::new() }
    }

    /// Adds what a full load costs. Without samples nothing is added.
    pub fn full(&mut self, key: &'static str, label: &'static str, samples: &[f64]) {
        self.add(key, label, samples, false);
    }

    /// Adds what one change costs. Without samples nothing is added.
    pub fn change(&mut self, key: &'static str, label: &'static str, samples: &[f64]) {
        self.add(key, label, samples, true);
    }

    fn add(&mut self, key: &'static str, label: &'static str, samples: &[f64], flat: bool) {
        self.metrics.extend(Summary::of(samples).map(|summary| Metric { key, label, summary, flat }));
    }

    /// The most that a metric may be on a cluster of this size; see docs/design.md.
    fn target(&self, key: &str) -> Option<f64> {
        let Size { services, endpoints } = self.size;
        let (reference, large) =
            (services <= 10_000 && endpoints <= 10, services <= 40_000 && endpoints <= 10);
        if self.mode == Mode::Iptables {
            // kube-proxy's 9.2 s, and a third of its 1.7 s, with the legacy tools.
            return match (self.bench, key) {
                ("compile", "full_ms") => Some(700.0).filter(|_| reference),
                ("apply", "full_ms") => Some(9200.0).filter(|_| reference),
                ("apply", "change_ms" | "count_change_ms") => Some(1700.0 / 3.0).filter(|_| reference),
                _ => None,
            };
        }
        if self.mode == Mode::Ipvs {
            // As a rule in user-mode Linux, whose times are not a machine's: what counts is the number of messages.
            return match (self.bench, key) {
                ("apply", "change_messages") => Some(2.0),
                ("apply", "count_change_messages") => Some(1.0),
                _ => None,
            };
        }
        let always = match (self.bench, key) {
            ("compile", "change_us") => Some(1000.0),
            ("wire", "change_bytes" | "count_change_bytes") => Some(200.0),
            ("wire", "coalesced_change_bytes") => Some(40.0),
            ("apply", "change_ms" | "count_change_ms") if !reference && large => Some(8.0),
            _ => None,
        };
        let in_reference = match (self.bench, key) {
            ("compile", "full_ms") | ("apply", "full_ms" | "node_full_ms") => Some(500.0),
            ("compile", "peak_mb") => Some(150.0),
            ("wire", "checkpoint_bytes") => Some(400_000.0),
            ("apply", "change_ms" | "count_change_ms") => Some(5.0),
            ("apply", "change_kernel_ms" | "count_change_kernel_ms") => Some(1.0),
            ("apply", "rss_mb" | "node_rss_mb") => Some(24.0),
            _ => None,
        };
        always.or(in_reference.filter(|_| reference))
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Size { services, endpoints } = self.size;
        let title =
            format!("{}  {}  {} Services x {endpoints} endpoints", self.bench, self.mode, grouped(services));
        let mut table = format!("{title:<58}{:>11}{:>15}{:>11}  {:>9}\n", "median", "min", "max", "target");
        for Metric { key, label, summary, .. } in &self.metrics {
            let unit = unit(key);
            let [median, min, max] =
                [summary.median, summary.min, summary.max].map(|v| number(round(v), unit));
            write!(table, "  {label:<56}{median:>11} {unit:<3}{min:>11}{max:>11}").expect("a String grows");
            if let Some(target) = self.target(key) {
                let verdict = if summary.median <= target { "ok" } else { "MISSED" };
                write!(table, "  {:>9}  {verdict}", format!("<= {}", number(target, unit)))
                    .expect("a String grows");
            }
            table.push('\n');
        }
        table
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bench", self.bench)?;
        map.serialize_entry("mode", &self.mode)?;
        map.serialize_entry("services", &self.size.services)?;
        map.serialize_entry("endpoints", &self.size.endpoints)?;
        for Metric { key, summary, .. } in &self.metrics {
            for (suffix, value) in [("", summary.median), ("_min", summary.min), ("_max", summary.max)] {
                map.serialize_entry(&format!("{key}{suffix}"), &json(round(value)))?;
            }
        }
        map.end()
    }
}

/// How the cost of one change grows with the number of Services.
#[derive(Debug, Serialize)]
pub struct Growth {
    bench: &'static str,
    of: &'static str,
    metric: &'static str,
    endpoints: u32,
    services: u32,
    base_services: u32,
    ratio: f64,
    #[serde(skip)]
    medians: [f64; 2],
}

/// Compares the cost of one change on each cluster with that on the smallest one.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Growth> {
    let mut ratios = Vec::new();
    for row in rows {
        let same = rows.iter().filter(|r| r.bench == row.bench && r.size.endpoints == row.size.endpoints);
        let base = same.min_by_key(|r| r.size.services).expect("the row itself");
        if base.size == row.size {
            continue;
        }
        for metric in row.metrics.iter().filter(|m| m.flat) {
            let Some(before) = base.metrics.iter().find(|m| m.key == metric.key) else { continue };
            let medians = [before.summary.median, metric.summary.median];
            ratios.push(Growth {
                bench: "ratio",
                of: row.bench,
                metric: metric.key,
                endpoints: row.size.endpoints,
                services: row.size.services,
                base_services: base.size.services,
                ratio: round(medians[1] / medians[0]),
                medians,
            });
        }
    }
    ratios
}

/// A table for people, with the sizes side by side; empty when there is nothing to compare.
#[must_use]
pub fn ratio_table(ratios: &[Growth]) -> String {
    let Some(first) = ratios.first() else { return String::new() };
    let mut table =
        format!("what one change costs, and its ratio to {} Services\n", grouped(first.base_services));
    let same = |a: &Growth, b: &Growth| (a.of, a.metric, a.endpoints) == (b.of, b.metric, b.endpoints);
    for (at, ratio) in ratios.iter().enumerate() {
        if ratios[..at].iter().any(|before| same(before, ratio)) {
            continue;
        }
        let Growth { of, metric, endpoints, .. } = ratio;
        let unit = unit(metric);
        let cost = |services: u32, median: f64| {
            let cost = format!("{} x {endpoints}: {} {unit}", grouped(services), number(round(median), unit));
            cost.trim_end().to_owned()
        };
        let base = cost(ratio.base_services, ratio.medians[0]);
        write!(table, "  {:<36}{base:<26}", format!("{of} {metric}")).expect("a String grows");
        for ratio in ratios.iter().filter(|other| same(other, ratio)) {
            let cost = format!("{} ({:.2})", cost(ratio.services, ratio.medians[1]), ratio.ratio);
            write!(table, "{cost:<34}").expect("a String grows");
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    table
}

fn unit(key: &str) -> &'static str {
    match key.rsplit('_').next() {
        Some("ms") => "ms",
        Some("us") => "µs",
        Some("mb") => "MB",
        Some("bytes") => "B",
        _ => "",
    }
}

/// What is below a thousandth of a unit is noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Bytes and messages look like integers, not like 2.0.
fn json(value: f64) -> Option<serde_json::Number> {
    value.to_string().parse().ok()
}

fn number(value: f64, unit: &str) -> String {
    match unit {
        _ if value.fract() == 0.0 || value >= 1000.0 => grouped(value.round()),
        "ms" if value < 100.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

/// Digits in groups of three.
fn grouped(number: impl Into<f64>) -> String {
    let digits = format!("{:.0}", number.into());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(services: u32, change: f64) -> Row {
        let mut row = Row::new("apply", Mode::Nftables, Size { services, endpoints: 10 });
        row.full("full_ms", "full", &[120.0, 100.0, 130.004_2]);
        row.change("change_ms", "one change", &[change]);
        row.full("nothing_ms", "nothing", &[]);
        row
    }

    #[test]
    fn json_is_flat_with_units_in_the_keys() {
        assert_eq!(
            serde_json::to_string(&row(1000, 0.5)).unwrap(),
            r#"{"bench":"apply","mode":"nftables","services":1000,"endpoints":10,"full_ms":120,"full_ms_min":100,"full_ms_max":130.004,"change_ms":0.5,"change_ms_min":0.5,"change_ms_max":0.5}"#
        );
    }

    #[test]
    fn a_table_names_target_and_verdict() {
        let table = row(10_000, 6.25).table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("apply  nftables  10,000 Services x 10 endpoints"), "{table}");
        assert!(lines[1].contains("120 ms") && lines[1].ends_with("<= 500  ok"), "{table}");
        assert!(lines[2].contains("6.250 ms") && lines[2].ends_with("<= 5  MISSED"), "{table}");
        assert!(row(40_000, 6.25).table().contains("<= 8  ok"));
        assert!(!row(41_000, 6.25).table().contains("<="));
    }

    #[test]
    fn ratios_are_to_the_smallest_cluster() {
        let ratios = ratios(&[row(10_000, 0.6), row(1000, 0.5)]);
        assert_eq!(ratios.len(), 1);
        assert_eq!(
            serde_json::to_string(&ratios[0]).unwrap(),
            r#"{"bench":"ratio","of":"apply","metric":"change_ms","endpoints":10,"services":10000,"base_services":1000,"ratio":1.2}"#
        );
        assert!(
            ratio_table(&ratios).ends_with(
                "apply change_ms                     1,000 x 10: 0.500 ms      10,000 x 10: 0.600 ms (1.20)\n"
            ),
            "{}",
            ratio_table(&ratios)
        );
        assert_eq!(ratio_table(&[]), "");
    }

    #[test]
    fn digits_come_in_groups_of_three() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
