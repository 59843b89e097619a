//! verify, with what the real controller publishes.

use anyhow::ensure;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::explaining::shop;
use crate::server::Server;

pub(crate) fn what_is_published_is_compiled_once_more(s: &mut Server) -> anyhow::Result<()> {
    let mut controller = shop(s)?;
    s.run(&["verify"])?
        .ended(0)?
        .prints(&["default: sequence", "records are what the objects compile to"])?;
    let json = s.run(&["verify", "default", "-o", "json"])?.ended(0)?.json()?;
    ensure!(json["pools"][0]["differences"] == json!([]) && json["pools"][0]["looks"] == 1, "{json:#}");
    // What changes while it looks is no difference: each time it is run, something has just changed.
    let endpoints = |last: u8| {
        let patch = json!([{ "op": "replace", "path": "/endpoints/0/addresses/0", "value": format!("10.244.1.{last}") }]);
        let args = ["patch", "endpointslice", "web-1", "-n", "shop", "--type=json", "-p", &patch.to_string()];
        s.kubectl(&args)
    };
    for last in 1..4 {
        endpoints(last)?;
        s.run(&["verify"])?.ended(0)?;
    }
    // Only an applier can look into its kernel.
    s.run(&["verify", "--node", "worker-9"])?
        .ended(2)?
        .says(&["no applier's pod is on a node worker-9", "rulecast-node verify"])?;
    // A controller that is gone does not follow.
    controller.terminate()?;
    endpoints(9)?;
    let ran = s.run(&["verify"])?.ended(1)?;
    ran.prints(&[
        "in each of 3 looks",
        "Service shop/web",
        "endpoint 10.244.1.9:8080",
        "is not published",
        "endpoint 10.244.1.3:8080",
    ])?;
    s.kubectl(&["create", "service", "clusterip", "new", "--tcp=80", "-n", "shop"])?;
    s.run(&["verify"])?.ended(1)?.prints(&["the shape that the objects ask for", "shop/new"])?;
    // A chunk that was taken away.
    let head: Value = serde_json::from_str(&s.kubectl(&["get", "rulebundle", "default", "-o", "json"])?)?;
    let checkpoint = head["spec"]["checkpoint"].as_str().unwrap_or_default();
    s.kubectl(&["delete", "rulechunk", checkpoint])?;
    s.run(&["verify"])?.ended(2)?.says(&["the bundle of the pool default", "missing"]).map(drop)
}

pub(crate) fn a_shape_that_is_held_is_no_difference(s: &mut Server) -> anyhow::Result<()> {
    let _controller = shop(s)?;
    s.run(&["hold", "default", "--wait", "--timeout", "30s"])?.ended(0)?;
    s.kubectl(&["create", "service", "clusterip", "later", "--tcp=80", "-n", "shop"])?;
    wait_for("the shape that waits", PATIENCE, || {
        let status = s.run(&["status", "default", "-o", "json"])?.json()?;
        ensure!(status["pools"][0]["pending"]["reason"] == "Hold", "{status:#}");
        Ok(())
    })?;
    s.run(&["verify", "default"])?.ended(0)?.prints(&["waits (Hold)", "held (spec.hold)"])?;
    // Endpoints go on being compared.
    let patch =
        json!([{ "op": "replace", "path": "/endpoints/0/addresses/0", "value": "10.244.2.1" }]).to_string();
    s.kubectl(&["patch", "endpointslice", "web-1", "-n", "shop", "--type=json", "-p", &patch])?;
    s.run(&["verify", "default"])?.ended(0)?;
    // And the rest of the way: what was held goes live, and back.
    s.run(&["resume", "default"])?.ended(0)?.prints(&["goes live now"])?;
    wait_for("what was held", PATIENCE, || {
        let ran = s.run(&["explain", "shop/later"])?;
        ensure!(!ran.out.contains("do not have this Service"), "{}", ran.out);
        Ok(())
    })?;
    s.run(&["verify", "default"])?.ended(0)?;
    s.run(&["undo", "default"])?.ended(0)?;
    wait_for("the revision before", PATIENCE, || {
        let status = s.run(&["status", "default", "-o", "json"])?.json()?;
        ensure!(status["pools"][0]["liveBy"] == "Rollback", "{status:#}");
        Ok(())
    })?;
    s.run(&["verify", "default"])?.ended(0)?.prints(&["is pinned"]).map(drop)
}

pub(crate) fn without_the_right_to_read_it_says_so(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.run(&["verify"])?.ended(2)?.says(&["the cluster has no RulePool"])?;
    s.apply(&[json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "default" }, "spec": {},
    })])?;
    s.run(&["verify", "defualt"])?.ended(2)?.says(&["these exist: default"])?;
    s.run(&["verify"])?.ended(2)?.says(&["nothing is published for the pool default yet"])?;
    let grace = s.somebody("grace")?;
    s.kubectl(&["create", "clusterrole", "grace", "--verb=get,list", "--resource=rulepools.rulecast.dev"])?;
    s.kubectl(&[
        "create",
        "clusterrolebinding",
        "grace",
        "--clusterrole=grace",
        "--serviceaccount=default:grace",
    ])?;
    s.run_as(&grace, &["verify"])?
        .ended(2)?
        .says(&["you may not list services", "kubectl auth can-i list services"])
        .map(drop)
}
