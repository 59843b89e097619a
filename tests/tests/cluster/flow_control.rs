//! Where the API server's priority and fairness puts our requests.

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::Cluster;

/// How many requests a flow schema has let through.
fn dispatched(metrics: &str, schema: &str) -> anyhow::Result<f64> {
    let name = "apiserver_flowcontrol_dispatched_requests_total{";
    let of_schema = format!("flow_schema=\"{schema}\"");
    let of_level = format!("priority_level=\"{schema}\"");
    let lines =
        metrics.lines().filter(|l| l.starts_with(name) && l.contains(&of_schema) && l.contains(&of_level));
    let numbers = lines.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>());
    numbers.sum::<Result<f64, _>>().with_context(|| schema.to_owned())
}

pub(crate) fn requests_have_levels_of_their_own(c: &mut Cluster) -> anyhow::Result<()> {
    let metrics = c.kubectl(&["get", "--raw", "/metrics"])?;
    for schema in ["rulecast-controller", "rulecast-node"] {
        let requests = dispatched(&metrics, schema)?;
        ensure!(requests >= 2.0, "{schema}: {requests} requests");
    }
    // Kubernetes says of a schema whose level does not exist, or that never matches, that it dangles.
    let schemas = c.get("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas")?;
    let ours = schemas["items"].as_array().into_iter().flatten();
    let ours = ours.filter(|s| s["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("rulecast")));
    let dangling: Vec<_> = ours.map(|s| s["status"]["conditions"][0]["status"].clone()).collect();
    ensure!(dangling == ["False", "False"], "{dangling:?}");
    Ok(())
}
