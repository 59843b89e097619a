//! Whether nodes run what is published.

use super::Section;
use crate::fleet::{Fleet, NodeRow, NodeState, rows};
use crate::output::plural;

/// Each node reports at least every ten minutes or so: a head that is older than this should have been reported by all.
const REPORTED: i64 = 15 * 60;
/// How many nodes are named.
const NAMED: usize = 5;

/// The nodes of all pools.
pub(super) fn check(fleet: &Fleet) -> Section {
    let mut section = Section::new("nodes");
    let all = rows(fleet, None);
    let of = |state: NodeState| all.iter().filter(|row| row.state == state).collect::<Vec<_>>();
    let present = all.iter().filter(|row| row.state != NodeState::Gone).count();
    let (late, recent): (Vec<_>, Vec<_>) =
        of(NodeState::Behind).into_iter().partition(|row| is_late(fleet, row));
    let current = of(NodeState::Current).len();
    if current > 0 {
        section.good(format!("{current} of {} run what is published", plural(present, "node")));
    }
    if present == 0 {
        section.bad(
            "no node reports",
            "kubectl -n rulecast-system get daemonset,pods -l app.kubernetes.io/name=rulecast-node",
        );
    }
    if !recent.is_empty() {
        section.note(format!(
            "{} not reported the newest version yet: {}",
            has(recent.len()),
            named(&recent)
        ));
    }
    let logs = "kubectl -n rulecast-system logs daemonset/rulecast-node of that node's pod";
    for row in of(NodeState::Failing).into_iter().take(NAMED) {
        section.bad(
            format!("{}: {}", row.node, row.why),
            format!("kubectl get rulenode {} -o yaml; {logs}", row.node),
        );
    }
    for (state, rows, fix) in [
        ("failing", of(NodeState::Failing), logs.to_owned()),
        ("behind for long", late, format!("is the node up? kubectl get nodes; then {logs}")),
        ("running what is not published", of(NodeState::Astray), "kubectl rulecast nodes says what they run instead".to_owned()),
        (
            "never reported",
            of(NodeState::Missing),
            "do their appliers run? kubectl -n rulecast-system get pods -o wide -l app.kubernetes.io/name=rulecast-node"
                .to_owned(),
        ),
        ("on rules from their disk, without the API server", of(NodeState::Restored), logs.to_owned()),
    ] {
        let told = if state == "failing" { NAMED } else { 0 };
        if rows.len() > told {
            section.bad(format!("{state} ({}): {}", rows.len(), named(&rows)), fix);
        }
    }
    let held = of(NodeState::Held);
    if !held.is_empty() {
        let fix = "rulecast-node resume on the node ends it";
        section
            .advise(format!("{} held on the node itself: {}", plural(held.len(), "node"), named(&held)), fix);
    }
    let gone = of(NodeState::Gone);
    if !gone.is_empty() {
        let what = format!("{} of Nodes that are gone: {}", plural(gone.len(), "report"), named(&gone));
        section.advise(what, "kubectl delete rulenode NAME");
    }
    section
}

/// Whether it should have reported by now.
fn is_late(fleet: &Fleet, row: &NodeRow) -> bool {
    let head = fleet.head(&row.pool, row.next);
    let written = head.and_then(|head| head.written);
    // A head that keeps changing is always young; then the age of what the node runs counts.
    let old = |time: Option<k8s_openapi::jiff::Timestamp>| {
        time.is_some_and(|time| fleet.now.as_second() - time.as_second() > REPORTED)
    };
    old(written) || (row.lag.is_none_or(|lag| lag > 1) && old(row.applied_at) && written.is_none())
}

fn has(count: usize) -> String {
    if count == 1 { "1 node has".to_owned() } else { format!("{count} nodes have") }
}

fn named(rows: &[&NodeRow]) -> String {
    let names: Vec<&str> = rows.iter().take(NAMED).map(|row| row.node.as_str()).collect();
    format!("{}{}", names.join(", "), if rows.len() > NAMED { ", ..." } else { "" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::samples::{fleet, node};

    #[test]
    fn a_report_may_be_late_for_a_while() {
        let mut fleet = fleet();
        let current = json!({ "sequence": 40, "digest": "d".repeat(27) });
        fleet.reports = vec![node("node-a", &current), node("node-b", &json!({ "sequence": 39 }))];
        let mut written = |text: &str| {
            fleet.heads.get_mut("default").unwrap().written = Some(text.parse().unwrap());
            check(&fleet).passed()
        };
        assert!(written("2026-01-01T00:50:00Z"));
        assert!(!written("2026-01-01T00:40:00Z"));
    }

    #[test]
    fn errors_and_silence_fail() {
        let mut fleet = fleet();
        let current = json!({ "sequence": 40, "digest": "d".repeat(27) });
        fleet.reports = vec![node("node-a", &current)];
        let text = serde_json::to_string(&check(&fleet)).unwrap();
        assert!(text.contains("never reported (1): node-b"), "{text}");
        let error = json!({ "reason": "KernelRefused", "message": "no", "since": "2026-01-01T00:00:00Z" });
        fleet.reports.push(node("node-b", &json!({ "sequence": 40, "error": error })));
        let section = check(&fleet);
        assert!(!section.passed() && section.checks.iter().any(|c| c.what == "node-b: KernelRefused: no"));
    }
}
