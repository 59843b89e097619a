//! What nodes and programs say of themselves.

use anyhow::ensure;
use rulecast_tests::cluster::Cluster;
use rulecast_tests::http::metric;
use rulecast_tests::programs::{self, APPLIER};
use rulecast_tests::wait::{PATIENCE, wait_for};

/// Somebody on a node keeps its shape, and takes that back.
pub(crate) fn a_held_node_reports_it(c: &mut Cluster) -> anyhow::Result<()> {
    let node = c.network.nodes[0].name.clone();
    let state = c.dir().join(format!("{node}-state"));
    let ask = |what: &[&str]| {
        let mut command = programs::command(APPLIER)?;
        let output = command.args(what).arg("--state-dir").arg(&state).output()?;
        ensure!(output.status.success(), "{what:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let reported = |c: &Cluster, reason: &serde_json::Value| {
        wait_for("the RuleNode's status", PATIENCE, || {
            let status = c.node_status(&node)?;
            ensure!(status["hold"]["reason"] == *reason, "{status}");
            Ok(status)
        })
    };
    ask(&["hold", "--reason", "a test"])?;
    let status = reported(c, &"Hold".into())?;
    let message = status["hold"]["message"].as_str().unwrap_or_default();
    ensure!(message.ends_with(": a test") && status["hold"]["since"].is_string(), "{status}");
    ensure!(
        metric(&c.ask_applier(0, "/metrics")?.1, "rulecast_node_held")? > 0.0,
        "the metric does not say so"
    );
    ask(&["resume"])?;
    reported(c, &serde_json::Value::Null)?;
    ensure!(
        metric(&c.ask_applier(0, "/metrics")?.1, "rulecast_node_held")? == 0.0,
        "the metric does not say so"
    );
    Ok(())
}

pub(crate) fn both_nodes_report_what_is_published(c: &mut Cluster) -> anyhow::Result<()> {
    let head = c.wait_until_in_force()?;
    for (i, node) in c.network.nodes.iter().enumerate() {
        let status = c.node_status(&node.name)?;
        ensure!(status["pool"] == "default" && status["mode"] == "nftables", "{status}");
        ensure!(status.get("restored").is_none_or(|restored| restored == false), "{status}");
        ensure!(status["appliedAt"].is_string() && status["version"].is_string(), "{status}");
        let (code, body) = c.ask_applier(i, "/healthz")?;
        ensure!(code == 200 && body.contains(&head.digest), "{code} {body}");
        ensure!(c.ask_applier(i, "/livez")?.0 == 200, "/livez of {}", node.name);
        let (code, page) = c.ask_applier(i, "/metrics")?;
        let sequence = metric(&page, "rulecast_node_bundle_sequence")?;
        ensure!(code == 200 && sequence.to_string() == head.sequence.to_string(), "{code} {page}");
        ensure!(metric(&page, "kubeproxy_sync_proxy_rules_duration_seconds_count")? >= 1.0, "{page}");
    }
    for path in ["/livez", "/readyz"] {
        let (code, body) = c.ask_controller(path)?;
        ensure!(code == 200, "{path} of the controller: {code} {body}");
    }
    let (code, page) = c.ask_controller("/metrics")?;
    ensure!(code == 200 && page.trim_end().ends_with("# EOF"), "{code} {page}");
    // Where only numbers differ, it writes them not more often than every 30 s.
    wait_for("the RulePool's status", PATIENCE * 2, || {
        let status = c.pool_status("default")?;
        let same = status["sequence"] == head.sequence && status["digest"] == head.digest.as_str();
        ensure!(same, "{head:?} {status}");
        Ok(())
    })
}
