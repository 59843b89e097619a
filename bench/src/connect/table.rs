//! What was measured, side by side.

use std::fmt::Write as _;

use serde::Serialize;

use super::trace::Met;
use crate::cluster::Size;
use crate::stats::percentile;

/// kube-proxy and rulecast side by side, at one size.
#[derive(Debug, Serialize)]
pub struct Comparison {
    bench: &'static str,
    services: u32,
    endpoints: u32,
    rows: Vec<Row>,
}

/// One thing measured.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    kube_proxy: f64,
    rulecast: f64,
    /// rulecast's by kube-proxy's; none by nothing.
    ratio: Option<f64>,
    /// rulecast may not be above kube-proxy.
    #[serde(skip)]
    budget: bool,
}

impl Comparison {
    pub(super) fn new(size: Size) -> Self {
        let Size { services, endpoints } = size;
        Self { bench: "connect", services, endpoints, rows: Vec::new() }
    }

    /// Adds times in microseconds, kube-proxy's first.
    pub(super) fn add_times(&mut self, what: &str, times: [Vec<f64>; 2]) {
        let sorted = times.map(|mut times| {
            times.sort_unstable_by(f64::total_cmp);
            times
        });
        for percent in [50, 99] {
            let values = [0, 1].map(|side| percentile(&sorted[side], percent));
            self.add(format!("{what}, p{percent}"), "us", values, false);
        }
    }

    /// Adds what so many packets met together, kube-proxy's first.
    pub(super) fn add_met(&mut self, what: &str, met: [Met; 2], packets: u32) {
        let mean = |sum: u32| f64::from(sum) / f64::from(packets);
        self.add(what.to_owned(), "rules", met.map(|met| mean(met.rules)), true);
        self.add(what.to_owned(), "chains", met.map(|met| mean(met.chains)), false);
    }

    fn add(&mut self, what: String, unit: &'static str, [kube_proxy, rulecast]: [f64; 2], budget: bool) {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        let [kube_proxy, rulecast] = [kube_proxy, rulecast].map(round);
        let ratio = (kube_proxy > 0.0).then(|| round(rulecast / kube_proxy));
        self.rows.push(Row { what, unit, kube_proxy, rulecast, ratio, budget });
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let title = format!("connect  nftables  {} Services x {} endpoints", self.services, self.endpoints);
        let mut table = format!("{title:<60}{:>11}{:>11}{:>8}\n", "kube-proxy", "rulecast", "ratio");
        for Row { what, unit, kube_proxy, rulecast, ratio, budget } in &self.rows {
            let verdict = match (*budget, rulecast <= kube_proxy) {
                (false, _) => "",
                (true, true) => "  ok",
                (true, false) => "  MISSED",
            };
            let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let digits = usize::from([kube_proxy, rulecast].iter().any(|value| value.fract() != 0.0));
            writeln!(
                table,
                "  {what:<50} {unit:<7}{kube_proxy:>11.digits$}{rulecast:>11.digits$}{ratio:>8}{verdict}"
            )
            .expect("a String grows");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_of_rules_have_a_budget() {
        let mut comparison = Comparison::new(Size { services: 10, endpoints: 1 });
        comparison.add_times("connect", [vec![10.0], vec![20.0]]);
        comparison.add_met("a", [Met { rules: 6, chains: 4 }, Met { rules: 7, chains: 4 }], 1);
        comparison.add_met("b", [Met { rules: 6, chains: 4 }, Met { rules: 6, chains: 5 }], 1);
        let table = comparison.table();
        assert_eq!(table.matches("MISSED").count(), 1, "{table}");
        assert_eq!(table.matches("  ok").count(), 1, "{table}");
        assert!(table.lines().nth(1).unwrap().ends_with("2.00"), "{table}");
    }
}
