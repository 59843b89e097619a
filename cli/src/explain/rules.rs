//! What a pool has made of a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use rulecast_api::{Approval, RulePool};
use rulecast_bundle::{Bundle, GroupKind, Key, Scope, Value};

use super::targets::{Target, when_empty};
use crate::check::Section;

/// What the pool's status says of the Service.
pub(super) fn conflicts(section: &mut Section, pool: Option<&RulePool>, owner: &str) {
    let status = pool.and_then(|pool| pool.status.as_ref());
    for problem in status.iter().flat_map(|s| &s.quarantined).filter(|q| q.service == owner) {
        section.bad(
            format!("{}: {}", problem.reason, problem.message),
            "mend the Service; what could be used stays in force",
        );
    }
}

/// Why a Service has no targets.
pub(super) fn absent(section: &mut Section, pool: Option<&RulePool>, name: &str) {
    let what = "the published rules do not have this Service";
    let status = pool.and_then(|pool| pool.status.as_ref());
    let Some(pending) = status.and_then(|status| status.pending.as_ref()) else {
        section.bad(what, "is the controller up to date? kubectl rulecast check; kubectl rulecast verify");
        return;
    };
    let which = pending.revision.map_or_else(|| pending.digest.clone(), |r| format!("revision {r}"));
    let number = pending.revision.map_or_else(|| format!("--digest {}", pending.digest), |r| r.to_string());
    let manual = pool.is_some_and(|pool| pool.spec.approval == Approval::Manual);
    let fix = match pending.reason.as_str() {
        "Hold" | "Rollback" => format!("kubectl rulecast resume {name}"),
        "Approval" => format!("kubectl rulecast approve {name} {number}"),
        _ if manual => format!("kubectl rulecast approve {name} {number}"),
        _ => format!("kubectl rulecast status {name}"),
    };
    section.bad(
        format!(
            "{what}, and a shape waits that may have it: {which} ({}: {})",
            pending.reason, pending.message
        ),
        fix,
    );
}

/// Whether every address of the Service leads somewhere.
pub(super) fn addresses(
    section: &mut Section,
    service: &Service,
    targets: &[Target],
    pool: Option<&RulePool>,
) {
    for target in targets {
        section.good(format!("{}: {}", target.name(), target.keys().join("; ")));
    }
    let vips: BTreeSet<(IpAddr, u16)> = targets.iter().flat_map(Target::vips).collect();
    let node_ports: BTreeSet<u16> = targets.iter().flat_map(Target::node_ports).collect();
    let spec = service.spec.clone().unwrap_or_default();
    let external_allowed = pool.is_none_or(|pool| pool.spec.options.allow_service_external_ips);
    for port in spec.ports.iter().flatten() {
        let number = u16::try_from(port.port).unwrap_or(0);
        let mut wanted: Vec<(&str, String)> = Vec::new();
        wanted.extend(spec.cluster_ips.iter().flatten().map(|ip| ("cluster IP", ip.clone())));
        wanted.extend(ingress(service).into_iter().map(|ip| ("load balancer IP", ip)));
        if external_allowed {
            wanted.extend(spec.external_ips.iter().flatten().map(|ip| ("externalIP", ip.clone())));
        }
        for (kind, text) in wanted {
            let there = text.parse().is_ok_and(|ip: IpAddr| vips.contains(&(ip, number)));
            if !there {
                section.bad(
                    format!("the {kind} {text}:{number} leads nowhere"),
                    "was it added just now? Else: is it another Service's, or one that no packet may be sent to?",
                );
            }
        }
        if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
            && !node_ports.contains(&node_port)
        {
            section.bad(format!("the nodePort {node_port} leads nowhere"), "kubectl rulecast verify");
        }
    }
    if !external_allowed && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        let name = pool.map(kube::ResourceExt::name_any).unwrap_or_default();
        section.bad(
            "its externalIPs are not served: the pool does not allow them",
            format!("remove them, or set allowServiceExternalIPs: true in RulePool {name}"),
        );
    }
}

/// The addresses that a cloud gave it and that a proxy answers (not those with ipMode Proxy).
fn ingress(service: &Service) -> Vec<String> {
    let status = service.status.clone().unwrap_or_default();
    let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    let ours = ingress.into_iter().filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
    ours.filter_map(|entry| entry.ip).filter(|ip| !ip.is_empty()).collect()
}

/// How many endpoints there are for whom.
pub(super) fn members(section: &mut Section, bundle: &Bundle, targets: &[Target]) {
    let nodes =
        bundle.iter().filter(|(key, value)| matches!((key, value), (Key::Node(_), Value::Node(_)))).count();
    for target in targets {
        let count = |wanted: fn(&Scope) -> bool| {
            let of = target.scopes.iter().filter(|(scope, _)| wanted(scope));
            (of.clone().count(), of.map(|(_, members)| members).sum::<usize>())
        };
        let (_, all) = count(|scope| *scope == Scope::All);
        let (zones, in_zones) = count(|scope| matches!(scope, Scope::Zone(_)));
        let (own, on_nodes) = count(|scope| matches!(scope, Scope::Node(_)));
        let name = target.name();
        if all + in_zones + on_nodes == 0 {
            section.bad(
                format!("{name}: no endpoint, so {}", when_empty(target.group.empty)),
                "see pods and EndpointSlices above",
            );
        } else if target.id.kind == GroupKind::Local && all == 0 {
            section.note(format!(
                "{name}: {own} of {nodes} nodes have endpoints; on the others {}",
                when_empty(target.group.empty)
            ));
        } else {
            let mut text = format!("{name}: {all} endpoints for all nodes");
            for (lists, members, what) in [(zones, in_zones, "zones"), (own, on_nodes, "nodes")] {
                if lists > 0 {
                    text = format!("{text}, {members} in lists of their own for {lists} {what}");
                }
            }
            section.good(text);
        }
        if let Some(seconds) = target.group.affinity {
            section.note(format!("{name}: a client stays at its endpoint for {seconds} s (sessionAffinity)"));
        }
    }
    section.advise("what one node takes of it", "--node NAME");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(status: &serde_json::Value) -> RulePool {
        crate::fleet::samples::pool("default", &json!({ "status": status }))
    }

    #[test]
    fn a_service_that_waits_says_for_what() {
        let fix = |reason: &str| {
            let pending = json!({ "revision": 4, "digest": "d".repeat(27), "reason": reason, "since": "2026-01-01T00:00:00Z" });
            let mut section = Section::new("rules");
            absent(&mut section, Some(&pool(&json!({ "pending": pending }))), "default");
            section.checks.pop().unwrap().fix
        };
        assert_eq!(fix("Hold"), "kubectl rulecast resume default");
        assert_eq!(fix("Approval"), "kubectl rulecast approve default 4");
        assert_eq!(fix("Shrink"), "kubectl rulecast status default");
        let mut section = Section::new("rules");
        absent(&mut section, Some(&pool(&json!({}))), "default");
        assert!(!section.passed());
    }

    #[test]
    fn a_quarantined_service_is_named() {
        let quarantined = json!([{ "service": "prod/web", "reason": "NotCompiled", "message": "taken" }]);
        let pool = pool(&json!({ "quarantined": quarantined }));
        let judged = |owner: &str| {
            let mut section = Section::new("rules");
            conflicts(&mut section, Some(&pool), owner);
            section.passed()
        };
        assert!(!judged("prod/web") && judged("prod/other"));
    }
}
