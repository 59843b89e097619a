//! Whether each pool is served what it asks for.

use super::Section;
use crate::fleet::{Fleet, PoolState};

/// The pools' own words.
pub(super) fn check(section: &mut Section, fleet: &Fleet) {
    if fleet.pools.is_empty() {
        section.bad("there is no RulePool, so nothing is published", "kubectl apply -k manifests/samples");
    }
    for pool in fleet.pools.values() {
        one(section, fleet, &PoolState::of(fleet, pool));
    }
}

fn one(section: &mut Section, fleet: &Fleet, pool: &PoolState) {
    let name = &pool.pool;
    let before = section.checks.len();
    let logs = "kubectl -n rulecast-system logs deployment/rulecast-controller";
    if !pool.observed {
        section.bad(format!("{name}: the controller has not seen its present spec"), logs);
    }
    if !pool.conditions.iter().any(|condition| condition.kind == "Ready") {
        section.bad(format!("{name}: no condition Ready: the controller has not seen it"), logs);
    }
    for condition in pool.conditions.iter().filter(|condition| condition.good == Some(false)) {
        let what = format!("{name}: {} is {} ({})", condition.kind, condition.status, condition.reason);
        let what = if condition.message.is_empty() { what } else { format!("{what}: {}", condition.message) };
        match condition.kind.as_str() {
            // What somebody wanted is no failure.
            "Held" | "HeldByRollback" => {
                section.advise(what, format!("kubectl rulecast resume {name} ends it"));
            }
            "PendingApproval" => section.advise(what, format!("kubectl rulecast status {name}")),
            _ => section.bad(what, format!("kubectl rulecast status {name}")),
        }
    }
    for hold in &pool.holds {
        section.advise(
            format!("{name}: {}", hold.sentence(fleet.now)),
            format!("kubectl rulecast resume {name} ends it"),
        );
    }
    if pool.quarantined_count > 0 {
        let some: Vec<_> =
            pool.quarantined.iter().take(3).map(|q| format!("{} ({})", q.service, q.message)).collect();
        let more = if pool.quarantined_count as usize > some.len() { ", ..." } else { "" };
        section.bad(
            format!(
                "{name}: {} Services keep their previous rules, as their present state cannot be compiled: {}{more}",
                pool.quarantined_count,
                some.join(", ")
            ),
            format!("kubectl rulecast status {name}, then mend those Services"),
        );
    }
    if fleet.head(name, false).is_none() {
        section.bad(format!("{name}: nothing is published (there is no RuleBundle {name})"), logs);
    }
    if section.checks[before..].iter().all(|check| check.verdict == super::report::Verdict::Note) {
        section.good(format!("{name}: ready at sequence {}, {} Services", pool.sequence, pool.services));
    }
}
