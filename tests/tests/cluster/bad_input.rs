//! Objects that the API server takes and that cannot be compiled.

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::Cluster;
use rulecast_tests::objects::service;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::traffic::{answered_by, inside, plain};

fn quarantined(status: &Value, name: &str) -> anyhow::Result<String> {
    let list = status["quarantined"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = list.iter().find(|q| q["service"].as_str().is_some_and(|s| s.starts_with(name)));
    Ok(found.with_context(|| format!("{name} is not named: {status}"))?["message"].to_string())
}

pub(crate) fn one_bad_object_holds_up_nobody(c: &mut Cluster) -> anyhow::Result<()> {
    // An external address that is another Service's already.
    let claim = json!({ "externalIPs": ["203.0.113.77"] });
    let first = c.set_service(&service("first", "ClusterIP", &claim))?;
    c.set_service(&service("second", "ClusterIP", &claim))?;
    // An endpoint that no endpoint can be, which the API server lets through.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "first-multicast", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "first" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "tcp", "protocol": "TCP", "port": 8080 }],
        "endpoints": [{ "addresses": ["239.1.2.3"], "conditions": { "ready": true } }],
    });
    c.apply(&[slice])?;
    // More prefixes than a rule should have.
    let pool = |prefixes: u8| {
        let list: Vec<String> = (0..prefixes).map(|n| format!("192.0.{n}.0/24")).collect();
        let spec = json!({ "nodePortAddresses": list });
        json!({ "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "odd" }, "spec": spec })
    };
    c.apply(&[pool(20)])?;
    wait_for("the RulePool's status to name them", PATIENCE, || {
        let status = c.pool_status("default")?;
        let multicast = quarantined(&status, "default/first")?;
        ensure!(multicast.contains("239.1.2.3") && multicast.contains("multicast"), "{multicast}");
        let claimed = quarantined(&status, "default/second")?;
        ensure!(claimed.contains("203.0.113.77") && claimed.contains("another Service"), "{claimed}");
        Ok(())
    })?;
    wait_for("the RulePool that cannot be used to say so", PATIENCE, || {
        let status = c.pool_status("odd")?;
        let conditions = status["conditions"].as_array().context("no conditions")?;
        let accepted = conditions.iter().find(|c| c["type"] == "Accepted").context("no Accepted")?;
        let told = accepted["message"].as_str().is_some_and(|m| m.contains("nodePortAddresses"));
        ensure!(accepted["status"] == "False" && told, "{accepted}");
        Ok(())
    })?;
    // Everybody else goes on, and so does what is good of the bad.
    let other = plain(c, "bystander", &["b1"])?;
    answered_by(&inside(c), &other.cluster, &["b1"])?;
    c.set_endpoints("first", 8080, &[rulecast_tests::objects::ready("a1")])?;
    answered_by(&inside(c), &first.cluster, &["a1"])?;

    c.delete_service("first")?;
    c.kubectl(&["delete", "endpointslice", "first-multicast"])?;
    c.apply(&[pool(2)])?;
    wait_for("the names to go when the cause has gone", PATIENCE, || {
        let status = c.pool_status("default")?;
        ensure!(status["quarantinedCount"].as_u64().unwrap_or(0) == 0, "{status}");
        let odd = c.pool_status("odd")?;
        ensure!(odd["sequence"].as_u64().unwrap_or(0) > 0, "{odd}");
        Ok(())
    })?;
    c.kubectl(&["delete", "rulepool", "odd"])?;
    c.delete_service("second")?;
    c.delete_service("bystander")
}
