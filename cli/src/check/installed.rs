//! Whether the controller runs and who leads.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;

use super::Section;
use crate::cluster::{Cluster, Problem};
use crate::output::{age, now};

/// The names of Deployment and Lease.
const CONTROLLER: &str = "rulecast-controller";
/// A leader renews each second or so; beyond this it is gone, or clocks differ.
const RENEWED: i64 = 15;

/// The controller in this namespace.
pub(super) async fn controller(cluster: &Cluster, namespace: &str) -> Result<Section, Problem> {
    let mut section = Section::new("controller");
    let found = cluster.find_namespaced::<Deployment>(namespace, CONTROLLER).await;
    if let Some(found) = section.take("Deployment rulecast-controller", found)? {
        deployment(&mut section, namespace, found.as_ref());
    }
    let found = cluster.find_namespaced::<Lease>(namespace, CONTROLLER).await;
    if let Some(found) = section.take("Lease rulecast-controller", found)? {
        lease(&mut section, namespace, found.as_ref(), now());
    }
    Ok(section)
}

fn deployment(section: &mut Section, namespace: &str, found: Option<&Deployment>) {
    let Some(found) = found else {
        let what = format!("there is no Deployment {CONTROLLER} in namespace {namespace}");
        section.bad(what, "kubectl apply -k manifests, or name its namespace: --system-namespace");
        return;
    };
    let wanted = found.spec.replicas.unwrap_or(1);
    let available = found.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let what = format!("{available} of {wanted} replicas are available");
    let look =
        format!("kubectl -n {namespace} get pods -l app.kubernetes.io/name={CONTROLLER}, then their logs");
    if available == 0 {
        section.bad(what, look);
    } else if available < wanted {
        section.advise(format!("{what}: nobody stands by"), look);
    } else {
        section.good(what);
    }
}

fn lease(section: &mut Section, namespace: &str, found: Option<&Lease>, now: Timestamp) {
    let logs = format!("kubectl -n {namespace} logs deployment/{CONTROLLER}");
    let spec = found.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let Some((spec, holder)) = spec.zip(holder) else {
        section
            .bad("nobody leads: the Lease rulecast-controller has no holder, so nothing is published", logs);
        return;
    };
    let Some(renewed) = spec.renew_time.as_ref().map(|time| time.0) else {
        section.bad(format!("{holder} holds the Lease and has never renewed it"), logs);
        return;
    };
    let what = format!("{holder} leads; its Lease was renewed {} ago", age(renewed, now));
    let fix = format!("compare this machine's clock with the controller's; then {logs}");
    section.judge(now.as_second() - renewed.as_second() <= RENEWED, what, fix);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_old_lease_is_no_leader() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let passed = |spec: serde_json::Value| {
            let found: Lease = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            let mut section = Section::new("controller");
            lease(&mut section, "ns", Some(&found), at("2026-01-01T00:01:00Z"));
            section.passed()
        };
        assert!(passed(json!({ "holderIdentity": "a", "renewTime": "2026-01-01T00:00:58.000000Z" })));
        assert!(!passed(json!({ "holderIdentity": "a", "renewTime": "2026-01-01T00:00:30.000000Z" })));
        assert!(!passed(json!({ "holderIdentity": "", "renewTime": "2026-01-01T00:00:58.000000Z" })));
        assert!(!passed(json!({ "holderIdentity": "a" })));
    }

    #[test]
    fn one_of_two_replicas_is_enough_to_work() {
        let passed = |available: i32| {
            let found = json!({ "metadata": {}, "spec": { "replicas": 2, "selector": {}, "template": {} },
                "status": { "availableReplicas": available } });
            let mut section = Section::new("controller");
            deployment(&mut section, "ns", Some(&serde_json::from_value(found).unwrap()));
            section.passed()
        };
        assert!(passed(2) && passed(1) && !passed(0));
    }
}
