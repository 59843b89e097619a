//! status, nodes, history and show.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::objects::{bundle, bundle_digest, condition, digest, healthy, node, pool, report, revision};
use crate::server::Server;

pub(crate) fn an_empty_cluster_is_no_error(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.run(&["status"])?.ended(0)?.prints(&["There is no RulePool"])?;
    s.run(&["nodes"])?.ended(0)?.prints(&["No node has reported"])?;
    ensure!(s.run(&["status", "-o", "json"])?.ended(0)?.json()?["pools"] == json!([]));
    Ok(())
}

pub(crate) fn pools_and_what_holds_them(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let pending = json!({
        "revision": 4, "digest": digest(4), "reason": "Hold", "message": "spec.hold is true",
        "since": "2026-01-01T00:50:00Z",
    });
    let held = condition("Held", "True", "Hold", "1 newer shape waits");
    let conditions = json!([condition("Ready", "True", "Published", ""), held]);
    let spec = json!({ "hold": true, "approval": "Manual", "nodeSelector": { "canary": "yes" } });
    s.apply(&[pool("canary", &spec, 2, &json!({ "pending": pending, "conditions": conditions }))])?;
    s.kubectl(&["annotate", "rulepool", "canary", "rulecast.dev/hold-reason=maintenance of the racks"])?;

    let ran = s.run(&["status"])?.ended(0)?;
    let ran = ran.prints(&["POOL", "canary", "Held", "default", "Live", "2/2", "revision 4 waits: Hold"])?;
    ensure!(ran.out.contains("maintenance of the racks") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let ran = s.run(&["status", "canary"])?.ended(0)?;
    ran.prints(&["approval Manual", "held (spec.hold)", "set by kubectl", "1 newer shape waits"])?;

    let json = s.run(&["status", "-o", "json"])?.ended(0)?.json()?;
    let canary = &json["pools"][0];
    ensure!(canary["pool"] == "canary" && canary["holds"][0]["by"] == "Hold", "{json}");
    ensure!(canary["pending"]["revision"] == 4 && canary["approval"] == "Manual", "{json}");
    ensure!(
        json["pools"][1]["nodes"]
            == json!({
                "total": 2, "current": 2, "behind": 0, "held": 0, "restored": 0, "failing": 0, "astray": 0, "missing": 0,
                "gone": 0, "next": 0,
            }),
        "{json}"
    );
    let yaml = s.run(&["status", "default", "-o", "yaml"])?.ended(0)?;
    yaml.prints(&["pool: default", "sequence: 40"])?;
    s.run(&["status", "-o", "wide"])?.ended(0)?.prints(&["QUARANTINED", &bundle_digest(40)]).map(drop)
}

pub(crate) fn waiting_ends_with_the_nodes_or_the_time(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    s.run(&["status", "default", "--wait"])?.ended(0)?;
    s.apply(&[bundle("default", 41), report("node-a", "default", 41, &json!({}))])?;
    let start = Instant::now();
    let ran = s.run(&["status", "default", "--wait", "--timeout", "2s"])?.ended(3)?;
    ran.says(&["default: 1/2 current, 1 behind", "gave up after 2s"])?;
    ensure!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            s.apply(&[report("node-b", "default", 41, &json!({}))])
        });
        let ran = s.run(&["status", "--wait", "--timeout", "1m"])?.ended(0)?;
        late.join().expect("no panic")?;
        ran.says(&["1 behind"])?.prints(&["2/2"]).map(drop)
    })
}

pub(crate) fn nodes_and_why_they_are_not_current(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let none = json!({});
    let since = "2026-01-01T00:50:00Z";
    let error =
        json!({ "reason": "KernelRefused", "message": "No space left", "since": since, "sequence": 40 });
    let hold = json!({ "reason": "UsePrevious", "message": "shape of sequence 20", "since": since });
    s.apply(&[
        node("node-c", &none),
        node("node-d", &none),
        node("node-e", &none),
        node("node-f", &none),
        report("node-b", "default", 25, &none),
        report("node-c", "default", 30, &json!({ "error": error })),
        report("node-d", "default", 40, &json!({ "hold": hold })),
        report("node-e", "defualt", 40, &none),
        report("node-x", "default", 40, &none),
    ])?;
    let json = s.run(&["nodes", "-o", "json"])?.ended(0)?.json()?;
    let nodes = json["nodes"].as_array().expect("a list");
    let brief: Vec<_> =
        nodes.iter().map(|n| json!([n["node"], n["state"], n["revision"], n["lag"]])).collect();
    let wanted = json!([
        ["node-a", "Current", 3, 0],
        ["node-b", "Behind", 2, 15],
        ["node-c", "Failing", 3, 10],
        ["node-d", "Held", null, 0],
        ["node-f", "Missing", null, null],
        ["node-x", "Gone", 3, 0],
        ["node-e", "Astray", null, null],
    ]);
    ensure!(json!(brief) == wanted, "{json:#}");
    let ran = s.run(&["nodes", "--pool", "default"])?.ended(0)?;
    let ran = ran.prints(&[
        "KernelRefused: No space left",
        "15 versions behind",
        "UsePrevious on the node: shape of sequence 20",
        "has never reported",
        "kubectl delete rulenode node-x",
    ])?;
    ensure!(!ran.out.contains("node-e"), "{}", ran.out);
    let ran = s.run(&["nodes"])?.ended(0)?.prints(&["there is no RulePool defualt"])?;
    ensure!(ran.err.is_empty(), "{}", ran.err);
    let ran = s.run(&["status"])?.ended(0)?;
    ran.prints(&["1/5 current, 1 behind, 1 held on the node, 1 failing, 1 missing, 1 gone"]).map(drop)
}

pub(crate) fn the_history_of_a_pool(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    s.apply(&[revision("default", 4), revision("other", 1)])?;
    s.kubectl(&["delete", "rulerevision", "default-1"])?;
    let spec = r#"{"spec":{"pinnedRevision":2,"approved":{"revision":4,"digest":"DIGEST"}}}"#;
    s.kubectl(&["patch", "rulepool", "default", "--type=merge", "-p", &spec.replace("DIGEST", &digest(4))])?;
    let json = s.run(&["history", "default", "-o", "json"])?.ended(0)?.json()?;
    let rows = json["revisions"].as_array().expect("a list");
    let brief: Vec<_> =
        rows.iter().map(|r| json!([r["number"], r["exists"], r["marks"], r["liveSinceSequence"]])).collect();
    let wanted = json!([
        [4, true, ["Approved"], null],
        [3, true, ["Live"], 30],
        [2, true, ["Pinned"], 20],
        [1, false, [], 10],
    ]);
    ensure!(json!(brief) == wanted, "{json:#}");
    let ran = s.run(&["history", "default"])?.ended(0)?;
    ran.prints(&["REVISION", "Deleted", "Service prod/web-4 and 1 more", &digest(4)[..10]])?;
    s.run(&["history", "default", "-o", "wide"])?.ended(0)?.prints(&[&digest(4), "Automatic"]).map(drop)
}

pub(crate) fn one_revision_and_those_that_are_gone(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let ran = s.run(&["show", "default/3"])?.ended(0)?;
    ran.prints(&["Live", &digest(3), "+ Service prod/web-3: 10.96.0.3:80/TCP", "1234 bytes"])?;
    ensure!(s.run(&["show", "default/2", "-o", "json"])?.ended(0)?.json()?["parent"] == 1);
    s.run(&["show", "default"])?.ended(0)?.prints(&["all defaults", "2/2 current"])?;

    s.kubectl(&["delete", "rulerevision", "default-1"])?;
    let ran = s.run(&["show", "default/1"])?.ended(2)?;
    ran.says(&["revision 1 of the pool default has been cleaned up", "these exist: 2, 3"])?;
    let ran = s.run(&["show", "default/9"])?.ended(2)?;
    ran.says(&["has no revision 9; the newest is 3"])?;
    s.apply(&[json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "fresh" }, "spec": {},
    })])?;
    s.run(&["show", "fresh/1"])?.ended(2)?.says(&["has no revisions yet"])?;
    s.run(&["history", "fresh"])?.ended(0)?.prints(&["has no revisions yet"]).map(drop)
}

pub(crate) fn a_closed_pipe_is_no_failure(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    // More than a pipe holds.
    let reports: Vec<_> = (0..600).map(|i| report(&format!("node-{i}"), "default", 7, &json!({}))).collect();
    s.apply(&[pool("default", &json!({}), 1, &json!({})), bundle("default", 40)])?;
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": reports });
    let path = s.dir().join("reports.json");
    std::fs::write(&path, list.to_string())?;
    s.kubectl(&["create", "-f", &path.display().to_string()])?;
    let (code, said) = s.run_for_a_hasty_reader(&["nodes", "-o", "json"], 100)?;
    ensure!(code == 0 && said.is_empty(), "{code} {said}");
    // And lists are read to their end, page by page.
    let json = s.run(&["nodes", "-o", "json"])?.ended(0)?.json()?;
    ensure!(json["nodes"].as_array().is_some_and(|nodes| nodes.len() == 600), "{}", json["summary"]);
    Ok(())
}
