//! The EndpointSlices of a Service.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::check::Section;

pub(super) fn check(section: &mut Section, namespace: &str, service: &Service, slices: &[EndpointSlice]) {
    let spec = service.spec.clone().unwrap_or_default();
    if slices.is_empty() {
        let fix = if spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()) {
            "kube-controller-manager makes them from the selector: does it run? kubectl get pods -n kube-system"
        } else {
            "write one with the label kubernetes.io/service-name, as the Service has no selector"
        };
        section.bad("there is none", fix);
        return;
    }
    for family in spec.ip_families.iter().flatten() {
        if !slices.iter().any(|slice| slice.address_type == *family) {
            section.bad(
                format!("there is none with {family} addresses, which the Service has a cluster IP for"),
                format!("have the pods {family} addresses? kubectl get pods -n {namespace} -o jsonpath='{{.items[*].status.podIPs}}'"),
            );
        }
    }
    for port in spec.ports.iter().flatten() {
        one_port(section, namespace, port, slices);
    }
}

/// How many endpoints of a port are how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    ready: BTreeSet<String>,
    serving: BTreeSet<String>,
    terminating: BTreeSet<String>,
    all: BTreeSet<String>,
    target_ports: BTreeSet<i32>,
}

fn one_port(section: &mut Section, namespace: &str, port: &ServicePort, slices: &[EndpointSlice]) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let name = port.name.as_deref().unwrap_or_default();
    let what = format!("port {}/{protocol}", port.port);
    let Some(count) = count(port, slices) else {
        let mut names: Vec<String> = slices
            .iter()
            .flat_map(|slice| slice.ports.iter().flatten())
            .map(|p| {
                format!(
                    "{:?}/{}",
                    p.name.as_deref().unwrap_or_default(),
                    p.protocol.as_deref().unwrap_or("TCP")
                )
            })
            .collect();
        names.sort();
        names.dedup();
        section.bad(
            format!("{what}: no EndpointSlice has a port named {name:?}/{protocol}; they have {}", names.join(", ")),
            "the name of a port in an EndpointSlice is that of the Service's port; is targetPort a name that the pods do not have?",
        );
        return;
    };
    let targets: Vec<String> = count.target_ports.iter().map(i32::to_string).collect();
    let text = format!(
        "{what}: {} of {} endpoints are ready (target port {})",
        count.ready.len(),
        count.all.len(),
        targets.join(", ")
    );
    if !count.ready.is_empty() {
        section.good(text);
    } else if !count.serving.is_empty() {
        section.advise(
            format!("{text}; {} terminating ones that still serve are used instead", count.serving.len()),
            format!("kubectl get pods -n {namespace}"),
        );
    } else {
        section.bad(
            text,
            format!("kubectl get endpointslices -n {namespace} -o yaml; then why the pods are not ready"),
        );
    }
    if !count.terminating.is_empty() {
        section.note(format!("{what}: {} endpoints are terminating", count.terminating.len()));
    }
}

/// None: no slice has the port.
fn count(port: &ServicePort, slices: &[EndpointSlice]) -> Option<Count> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut found = None;
    for slice in slices {
        let matching = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && p.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        let Some(matching) = matching else { continue };
        let count: &mut Count = found.get_or_insert_default();
        count.target_ports.extend(matching.port);
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // What is not said counts as ready (k8s.io/api/discovery/v1).
            let ready = conditions.ready.unwrap_or(true);
            for addr in &endpoint.addresses {
                count.all.insert(addr.clone());
                if ready {
                    count.ready.insert(addr.clone());
                } else if conditions.serving.unwrap_or(false) {
                    count.serving.insert(addr.clone());
                }
                if conditions.terminating.unwrap_or(false) {
                    count.terminating.insert(addr.clone());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(port: &str, conditions: &[Value]) -> EndpointSlice {
        let endpoints: Vec<_> = conditions
            .iter()
            .enumerate()
            .map(|(i, conditions)| json!({ "addresses": [format!("10.0.0.{i}")], "conditions": conditions }))
            .collect();
        serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": port, "protocol": "TCP", "port": 8080 }],
        }))
        .unwrap()
    }

    fn passed(slices: &[EndpointSlice]) -> (bool, String) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {}, "spec": { "ipFamilies": ["IPv4"], "selector": { "a": "b" }, "ports": [{ "name": "http", "port": 80 }] },
        }))
        .unwrap();
        let mut section = Section::new("EndpointSlices");
        check(&mut section, "prod", &service, slices);
        (section.passed(), serde_json::to_string(&section).unwrap())
    }

    #[test]
    fn ready_or_still_serving() {
        let ready = json!({ "ready": true });
        let draining = json!({ "ready": false, "serving": true, "terminating": true });
        let gone = json!({ "ready": false, "serving": false });
        assert!(passed(&[slice("http", &[ready, gone.clone()])]).1.contains("1 of 2 endpoints are ready"));
        assert!(passed(&[slice("http", &[json!({})])]).0);
        let (fine, text) = passed(&[slice("http", &[draining, gone.clone()])]);
        assert!(fine && text.contains("1 terminating ones that still serve are used instead"), "{text}");
        assert!(!passed(&[slice("http", &[gone])]).0);
    }

    #[test]
    fn slices_need_the_port_of_this_name() {
        let (fine, text) = passed(&[slice("web", &[json!({})])]);
        assert!(!fine && text.contains(r#"they have \"web\"/TCP"#), "{text}");
        assert!(passed(&[]).1.contains("there is none"));
    }
}
