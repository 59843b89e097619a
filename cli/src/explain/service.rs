//! The Service itself.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

use crate::check::Section;

/// By this label another proxy claims a Service.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// What it asks for, and whether a proxy has anything to do with it.
pub(super) fn section(service: &Service) -> (Section, bool) {
    let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
    let mut section = Section::new(format!("Service {name}"));
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned());
    if let Some(proxy) = service.labels().get(PROXY_NAME) {
        section.advise(
            format!("its label {PROXY_NAME} gives it to another proxy, {proxy}: rulecast leaves it alone, as kube-proxy does"),
            "remove the label if it is not meant",
        );
        return (section, false);
    }
    if kind == "ExternalName" {
        let target = spec.external_name.unwrap_or_default();
        section.note(format!(
            "it is an ExternalName: cluster DNS answers with {target}, and no proxy has a part in it"
        ));
        return (section, false);
    }
    let ips: Vec<String> = spec.cluster_ips.iter().flatten().filter(|ip| !ip.is_empty()).cloned().collect();
    if ips.first().is_some_and(|ip| ip == "None") {
        section.note(
            "it is headless: cluster DNS answers with the pods' addresses, and no proxy has a part in it",
        );
        return (section, false);
    }
    if ips.is_empty() {
        section.bad("it has no cluster IP", format!("kubectl describe service {}", service.name_any()));
    } else {
        section.good(format!("type {kind}, cluster IPs {}", ips.join(", ")));
    }
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let name = port.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{}/{}{name}", port.port, port.protocol.as_deref().unwrap_or("TCP"))
        })
        .collect();
    section.judge(
        !ports.is_empty(),
        format!("ports {}", ports.join(", ")),
        "a Service without ports leads nowhere",
    );
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    if local(&spec.internal_traffic_policy) {
        section.note("internalTrafficPolicy Local: pods reach only endpoints on their own node");
    }
    if local(&spec.external_traffic_policy) {
        section.note("externalTrafficPolicy Local: from outside a node leads only to its own endpoints");
    }
    if service.metadata.deletion_timestamp.is_some() {
        section.bad("it is being deleted", "kubectl get service -o yaml shows which finalizer it waits for");
    }
    (section, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_proxy_has_a_part_in() {
        let judged = |spec: serde_json::Value, labels: serde_json::Value| {
            let service =
                json!({ "metadata": { "name": "web", "namespace": "prod", "labels": labels }, "spec": spec });
            let (section, proxied) = section(&serde_json::from_value(service).unwrap());
            (section.passed(), proxied)
        };
        let ports = json!([{ "port": 80 }]);
        assert_eq!(judged(json!({ "clusterIPs": ["10.96.0.1"], "ports": ports }), json!({})), (true, true));
        assert_eq!(judged(json!({ "clusterIPs": ["None"], "ports": ports }), json!({})), (true, false));
        assert_eq!(
            judged(json!({ "type": "ExternalName", "externalName": "a.example" }), json!({})),
            (true, false)
        );
        assert_eq!(
            judged(json!({ "clusterIPs": ["10.96.0.1"] }), json!({ PROXY_NAME: "other" })),
            (true, false)
        );
        assert_eq!(judged(json!({ "ports": ports }), json!({})), (false, true));
    }
}
