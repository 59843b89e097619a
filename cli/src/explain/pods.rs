//! The pods that a selector matches.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::check::Section;
use crate::output::plural;

/// How many pods are told of.
const TOLD: usize = 5;

/// The selector as kubectl takes it; none: the Service has none.
pub(super) fn selector(service: &Service) -> Option<String> {
    let selector = service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())?;
    Some(selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

pub(super) fn check(section: &mut Section, namespace: &str, service: &Service, selector: &str, pods: &[Pod]) {
    if pods.is_empty() {
        section.bad(
            format!("no pod in {namespace} has the labels {selector}"),
            format!("compare with kubectl get pods -n {namespace} --show-labels, then mend the selector or the labels"),
        );
        return;
    }
    section.good(format!("{} with the labels {selector}", plural(pods.len(), "pod")));
    let ready = pods.iter().filter(|pod| unready(pod).is_none()).count();
    let fix = format!("kubectl describe pods -n {namespace} -l {selector}");
    section.judge(ready > 0, format!("{ready} of them ready"), fix.clone());
    for pod in pods.iter().take(100).filter(|pod| unready(pod).is_some()).take(TOLD) {
        let why = unready(pod).unwrap_or_default();
        section.advise(format!("{} is not ready: {why}", pod.name_any()), fix.clone());
    }
    for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let what = format!("port {}/{protocol}", port.port);
        match &port.target_port {
            Some(IntOrString::String(name)) => named(section, &what, name, protocol, pods),
            Some(IntOrString::Int(number)) => numbered(section, &what, *number, protocol, pods),
            None => numbered(section, &what, port.port, protocol, pods),
        }
    }
}

/// A name must be that of a container's port.
fn named(section: &mut Section, what: &str, name: &str, protocol: &str, pods: &[Pod]) {
    let has = |pod: &&Pod| ports(pod).any(|(n, _, p)| n == Some(name) && p == protocol);
    let count = pods.iter().filter(has).count();
    section.judge(
        count == pods.len(),
        format!(
            "{what}: {count} of {} have a container port named {name} ({protocol})",
            plural(pods.len(), "pod")
        ),
        format!(
            "name that containerPort {name} in the pods' template, or set targetPort to what they have: {}",
            known(pods)
        ),
    );
}

/// A number need not be declared; where others are, it may be a mistake.
fn numbered(section: &mut Section, what: &str, number: i32, protocol: &str, pods: &[Pod]) {
    let declared = pods.iter().any(|pod| ports(pod).next().is_some());
    let there = pods.iter().any(|pod| ports(pod).any(|(_, n, p)| n == number && p == protocol));
    if there {
        section.good(format!("{what}: the pods declare the container port {number}/{protocol}"));
    } else if declared {
        section.advise(
            format!("{what}: targetPort {number}/{protocol} is none of the container ports that the pods declare ({})", known(pods)),
            "does something listen there? kubectl exec POD -- ss -ltnu",
        );
    }
}

/// Name, number and protocol of the ports that a pod declares.
fn ports(pod: &Pod) -> impl Iterator<Item = (Option<&str>, i32, &str)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| (port.name.as_deref(), port.container_port, port.protocol.as_deref().unwrap_or("TCP")))
}

fn known(pods: &[Pod]) -> String {
    let mut all: Vec<String> = pods
        .iter()
        .flat_map(ports)
        .map(|(name, number, protocol)| match name {
            Some(name) => format!("{name}={number}/{protocol}"),
            None => format!("{number}/{protocol}"),
        })
        .collect();
    all.sort();
    all.dedup();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Why a pod is not ready; none: it is.
fn unready(pod: &Pod) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it is terminating".to_owned());
    }
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|condition| condition.status == "True") {
        return None;
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!("{} waits: {}", container.name, waiting.reason.clone().unwrap_or_default()))
    });
    let message = ready.and_then(|condition| condition.message.clone().or_else(|| condition.reason.clone()));
    let phase = || format!("phase {}", status.phase.clone().unwrap_or_else(|| "unknown".to_owned()));
    Some(waiting.or(message).unwrap_or_else(phase))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str, port_name: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "web-1" },
            "spec": { "containers": [{ "name": "a", "ports": [{ "name": port_name, "containerPort": 8080 }] }] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready, "message": "probe fails" }] },
        }))
        .unwrap()
    }

    fn checked(target: &serde_json::Value, pods: &[Pod]) -> Section {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": target }] },
        }))
        .unwrap();
        let mut section = Section::new("pods");
        check(&mut section, "prod", &service, &selector(&service).unwrap(), pods);
        section
    }

    #[test]
    fn a_named_target_port_has_to_be_there() {
        assert!(checked(&json!("http"), &[pod("True", "http")]).passed());
        let other = checked(&json!("http"), &[pod("True", "web")]);
        assert!(!other.passed());
        assert!(other.checks.last().unwrap().fix.ends_with("web=8080/TCP"), "{other:?}");
        // A number need not.
        assert!(checked(&json!(9090), &[pod("True", "web")]).passed());
    }

    #[test]
    fn pods_that_are_not_ready_say_why() {
        let section = checked(&json!("http"), &[pod("False", "http")]);
        assert!(!section.passed());
        assert!(section.checks.iter().any(|c| c.what == "web-1 is not ready: probe fails"), "{section:?}");
        assert!(!checked(&json!(80), &[]).passed());
    }
}
