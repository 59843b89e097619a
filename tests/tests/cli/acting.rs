//! approve, hold, resume and undo.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::objects::{bundle, condition, digest, healthy, pool, release, report, revision};
use crate::server::Server;

/// The pool `default` with approval Manual, revision 3 live and 4 pending.
fn manual(s: &mut Server, spec: &Value, reason: &str) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let pending = json!({
        "revision": 4, "digest": digest(4), "reason": reason, "message": "it waits", "since": "2026-01-01T00:50:00Z",
    });
    let mut all = json!({ "approval": "Manual" });
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    s.apply(&[revision("default", 4), pool("default", &all, 3, &json!({ "pending": pending }))])
}

fn spec(s: &Server) -> anyhow::Result<Value> {
    let text = s.kubectl(&["get", "rulepool", "default", "-o", "json"])?;
    Ok(serde_json::from_str::<Value>(&text)?["spec"].take())
}

pub(crate) fn a_revision_is_approved_by_what_was_reviewed(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({}), "Approval")?;
    // Nobody is there to ask.
    let ran = s.run(&["approve", "default", "4"])?.ended(2)?;
    ran.says(&["+ Service prod/web-4", "Beside revision 3, which is live", "standard input is no terminal"])?;
    let ran = s.run(&["approve", "default", "4", "--digest", "abcdef", "--yes"])?.ended(2)?;
    ran.says(&["revision 4", &digest(4), "abcdef", "Nothing was approved"])?;
    s.run(&["approve", "default", "4", "--digest", "abcde", "--yes"])?.ended(2)?.says(&["at least 6"])?;

    let prefix = &digest(4)[..8];
    let dry = s.run(&["approve", "default", "4", "--digest", prefix, "--dry-run"])?.ended(0)?;
    let dry = dry.prints(&["dry run", "kubectl patch rulepool default --type=merge -p"])?;
    ensure!(spec(s)?.get("approved").is_none(), "{}", spec(s)?);
    // What it prints is a command that does the same.
    let patch = dry.out.split('\'').nth(1).context("a patch")?;
    s.kubectl(&["patch", "rulepool", "default", "--type=merge", "--dry-run=server", "-p", patch])?;

    let ran = s.run(&["approve", "default", "4", "--digest", prefix, "--yes"])?.ended(0)?;
    ran.prints(&["revision 4", "is approved"])?;
    ensure!(spec(s)?["approved"] == json!({ "revision": 4, "digest": digest(4) }), "{}", spec(s)?);
    s.run(&["approve", "default", "4", "--yes"])?.ended(0)?.prints(&["is approved already"]).map(drop)
}

pub(crate) fn a_shape_is_approved_before_the_cluster_has_it(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({ "approved": { "revision": 3, "digest": digest(3) } }), "Approval")?;
    let ran = s.run(&["approve", "default", "--digest", &digest(7)[..10], "--yes"])?.ended(2)?;
    ran.says(&["27 characters"])?;
    let ran = s.run(&["approve", "default", "--digest", &digest(7), "--yes"])?.ended(0)?;
    ran.says(&["no revision of it yet"])?;
    // The number of the approval before must not stay beside another digest.
    ensure!(spec(s)?["approved"] == json!({ "digest": digest(7) }), "{}", spec(s)?);
    s.run(&["approve", "default", "--yes"])?.ended(2)?.says(&["REVISION"]).map(drop)
}

pub(crate) fn an_approval_waits_for_the_nodes(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({}), "Approval")?;
    let args = ["approve", "default", "4", "--yes", "--wait", "--timeout"];
    let ran = s.run(&[&args[..], &["2s"]].concat())?.ended(3)?;
    ran.says(&["the controller has not seen it yet", "gave up after 2s"])?;
    let releases = [release(4, 41), release(3, 30)];
    let none = json!({});
    let live = json!({ "observedGeneration": 3, "revision": 4, "shape": digest(4), "releases": releases });
    let now_live = |more: &Value| {
        let status = json!({ "status": more }).to_string();
        s.kubectl(&["patch", "rulepool", "default", "--subresource=status", "--type=merge", "-p", &status])
    };
    std::thread::scope(|scope| {
        let late = scope.spawn(|| -> anyhow::Result<()> {
            let pause = || std::thread::sleep(std::time::Duration::from_millis(1500));
            pause();
            s.apply(&[bundle("default", 41), report("node-a", "default", 41, &none)])?;
            now_live(&live)?;
            pause();
            s.apply(&[report("node-b", "default", 41, &none)])
        });
        let ran = s.run(&[&args[..], &["60s"]].concat())?.ended(0)?;
        late.join().expect("no panic")?;
        ran.says(&["live since sequence 41; 1 of 2 nodes run it, not yet: node-b"]).map(drop)
    })
}

pub(crate) fn approving_what_is_held_says_so(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({ "hold": true }), "Hold")?;
    let ran = s.run(&["approve", "default", "4", "--yes"])?.ended(0)?;
    ran.prints(&["is approved", "Nothing goes live until kubectl rulecast resume default", "spec.hold"])?;
    manual(s, &json!({ "pinnedRevision": 2 }), "Rollback")?;
    let ran = s.run(&["approve", "default", "4", "--yes", "-o", "json"])?.ended(0)?;
    let notes = ran.json()?["notes"].to_string();
    ensure!(notes.contains("revision 2 is pinned") && notes.contains("resume default"), "{notes}");
    Ok(())
}

pub(crate) fn what_cannot_be_approved_is_explained(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({}), "Approval")?;
    s.kubectl(&["delete", "rulerevision", "default-1"])?;
    let approve = |pool: &str, number: &str| s.run(&["approve", pool, number, "--yes"])?.ended(2);
    approve("default", "1")?.says(&["revision 1", "has been cleaned up", "these exist: 2, 3, 4"])?;
    approve("default", "12")?.says(&["has no revision 12; the newest is 4"])?;
    approve("defualt", "4")?.says(&["there is no RulePool defualt; these exist: default"])?;
    let carol = s.somebody("carol")?;
    s.apply(&[
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "carol" },
            "rules": [{
                "apiGroups": ["rulecast.dev"], "resources": ["rulepools", "rulerevisions"], "verbs": ["get", "list"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "carol" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "carol" },
            "subjects": [{ "kind": "ServiceAccount", "name": "carol", "namespace": "default" }],
        }),
    ])?;
    let ran = s.run_as(&carol, &["approve", "default", "4", "--yes"])?.ended(2)?;
    ran.says(&["you may not patch rulepools.rulecast.dev default", "verbs: [patch]"]).map(drop)
}

pub(crate) fn a_hold_keeps_its_reason_as_data(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let reason = "moving racks: \"3\" & '4'; $(reboot) \u{1b}[2J {\"hold\":false}";
    let ran = s.run(&["hold", "default", "--reason", reason])?.ended(0)?;
    ran.prints(&["is held", "kubectl rulecast resume default"])?;
    let text = s.kubectl(&["get", "rulepool", "default", "-o", "json"])?;
    let object: Value = serde_json::from_str(&text)?;
    ensure!(object["metadata"]["annotations"]["rulecast.dev/hold-reason"] == reason, "{object:#}");
    ensure!(object["spec"]["hold"] == true, "{object:#}");
    let status = s.run(&["status", "default"])?.ended(0)?;
    ensure!(!status.out.contains('\u{1b}') && status.out.contains("$(reboot)"), "{}", status.out);
    s.run(&["status", "default"])?.prints(&["set by kubectl-rulecast"])?;
    s.run(&["hold", "default"])?.ended(0)?.prints(&["is held already"])?;
    s.run(&["hold", "default", "--reason", &"x".repeat(513)])?.ended(2)?.says(&["at most 512"]).map(drop)
}

pub(crate) fn resume_says_what_goes_live(s: &mut Server) -> anyhow::Result<()> {
    let held = json!({ "hold": true, "pinnedRevision": 2, "approval": "Automatic" });
    manual(s, &held, "Rollback")?;
    s.kubectl(&["annotate", "rulepool", "default", "rulecast.dev/hold-reason=old"])?;
    let dry = s.run(&["resume", "default", "--dry-run"])?.ended(0)?;
    dry.prints(&["revision 4 goes live now", "dry run", "\"pinnedRevision\":null"])?;
    ensure!(spec(s)?["hold"] == true && spec(s)?["pinnedRevision"] == 2, "{}", spec(s)?);
    let ran = s.run(&["resume", "default"])?.ended(0)?;
    ran.prints(&["no longer rolled back: revision 2", "revision 4 goes live now"])?;
    let text = s.kubectl(&["get", "rulepool", "default", "-o", "json"])?;
    let object: Value = serde_json::from_str(&text)?;
    ensure!(object["spec"]["hold"] == false && object["spec"].get("pinnedRevision").is_none(), "{object:#}");
    ensure!(object["metadata"]["annotations"].get("rulecast.dev/hold-reason").is_none(), "{object:#}");
    s.run(&["resume", "default"])?.ended(0)?.prints(&["is not held"])?;
    manual(s, &json!({ "hold": true }), "Hold")?;
    s.run(&["resume", "default"])?
        .ended(0)?
        .prints(&["waits on for approval: kubectl rulecast approve default 4"])?;
    Ok(())
}

pub(crate) fn undo_goes_to_the_revision_before(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let ran = s.run(&["undo", "default"])?.ended(0)?;
    ran.prints(&[
        "goes back from revision 3 to revision 2",
        "New shapes wait until kubectl rulecast resume default",
    ])?;
    ensure!(spec(s)?["pinnedRevision"] == 2, "{}", spec(s)?);
    let ran = s.run(&["undo", "default", "--to-revision", "2"])?.ended(0)?;
    ran.prints(&["pinned to revision 2 already"])?;
    s.run(&["undo", "default", "--to-revision", "1", "--dry-run"])?
        .ended(0)?
        .prints(&["\"pinnedRevision\":1"])?;
    ensure!(spec(s)?["pinnedRevision"] == 2, "{}", spec(s)?);
    s.kubectl(&["delete", "rulerevision", "default-1"])?;
    let ran = s.run(&["undo", "default", "--to-revision", "1"])?.ended(2)?;
    ran.says(&["revision 1 of the pool default has been cleaned up", "these exist: 2, 3"])?;

    // It waits for the nodes, too: revision 2 is live again at sequence 41, which one node runs.
    let releases = [json!({
        "revision": 2, "digest": digest(2), "sequence": 41, "at": "2026-01-01T02:00:00Z", "reason": "Rollback",
    })];
    let more = json!({ "observedGeneration": 2, "revision": 2, "shape": digest(2), "releases": releases,
        "conditions": [condition("HeldByRollback", "True", "Pinned", "")] });
    s.apply(&[
        pool("default", &json!({ "pinnedRevision": 2 }), 2, &more),
        bundle("default", 41),
        report("node-a", "default", 41, &json!({})),
    ])?;
    let wait = ["undo", "default", "--to-revision", "2", "--wait", "--timeout"];
    let ran = s.run(&[&wait[..], &["1s"]].concat())?.ended(3)?;
    ran.says(&["1 of 2 nodes run it, not yet: node-b"])?;
    s.apply(&[report("node-b", "default", 42, &json!({}))])?;
    s.run(&[&wait[..], &["20s"]].concat())?.ended(0)?;

    s.apply(&[json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "fresh" }, "spec": {},
    })])?;
    s.run(&["undo", "fresh"])?.ended(2)?.says(&["nothing has been live in the pool fresh yet"]).map(drop)
}

pub(crate) fn an_exact_undo_warns_and_ends(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    // What the controller keeps of a revision that another one has replaced.
    let last = json!({ "lastBundle": { "sequence": 29, "head": "0".repeat(32), "chunks": [] } }).to_string();
    let status = format!("{{\"status\":{last}}}");
    let patch = ["patch", "rulerevision", "default-2", "--subresource=status", "--type=merge", "-p", &status];
    s.kubectl(&patch)?;
    for length in ["2h", "0s"] {
        let ran = s.run(&["undo", "default", "--exact", "--for", length])?.ended(2)?;
        ran.says(&["from 1s to 1h is wanted"])?;
    }
    s.run(&["undo", "default", "--exact"])?.ended(2)?.says(&["--for"])?;
    s.run(&["undo", "default", "--for", "5m"])?.ended(2)?.says(&["--exact"])?;
    let ran = s.run(&["undo", "default", "--exact", "--for", "10m"])?.ended(0)?;
    let ran = ran.prints(&["exactly as it was", "Warning: dead endpoints are served"])?;
    ensure!(!ran.out.contains("may be impossible"), "{}", ran.out);
    let replay = spec(s)?["exactReplay"].take();
    ensure!(
        replay["revision"] == 2 && replay["until"].as_str().is_some_and(|u| u.ends_with('Z')),
        "{replay}"
    );
    s.run(&["status", "default"])?.ended(0)?.prints(&["replayed exactly", "for another"])?;
    // Of this one nothing is kept.
    let ran = s.run(&["undo", "default", "--to-revision", "1", "--exact", "--for", "1h"])?.ended(0)?;
    ran.prints(&["no RuleRevision keeps the last bundle of revision 1"])?;
    // An ordinary undo ends the replay.
    s.run(&["undo", "default", "--to-revision", "1"])?.ended(0)?;
    ensure!(spec(s)?.get("exactReplay").is_none() && spec(s)?["pinnedRevision"] == 1, "{}", spec(s)?);
    Ok(())
}

/// Two people at the same time: each command's change is there, whole, whoever was first.
pub(crate) fn nothing_is_written_on_top_of_somebody_elses_change(s: &mut Server) -> anyhow::Result<()> {
    manual(s, &json!({}), "Approval")?;
    for _ in 0..5 {
        s.kubectl(&[
            "patch",
            "rulepool",
            "default",
            "--type=merge",
            "-p",
            r#"{"spec":{"approved":null,"hold":false}}"#,
        ])?;
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let approve = scope.spawn(|| s.run(&["approve", "default", "4", "--yes"]));
            let hold = scope.spawn(|| s.run(&["hold", "default", "--reason", "a reason"]));
            approve.join().expect("no panic")?.ended(0)?;
            hold.join().expect("no panic")?.ended(0).map(drop)
        })?;
        let spec = spec(s)?;
        ensure!(spec["approved"]["revision"] == 4 && spec["hold"] == true, "{spec}");
    }
    Ok(())
}
