//! Review, approval, waves and rollback, with the command line as people use it, down to the packets.

use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::{Cluster, POOL, Service};
use rulecast_tests::objects::{ready, service, unready};
use rulecast_tests::probe::Answer;
use rulecast_tests::programs;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::traffic::{answered_by, ends_in, inside, plain};

/// Runs the command line as administrator.
fn run(c: &Cluster, args: &[&str]) -> anyhow::Result<Output> {
    let program = programs::command_line()?;
    let kubeconfig = c.control_plane.kubeconfig();
    let output = c.network.hub.run(|| {
        Command::new(&program).args(args).args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]).output()
    })?;
    output.with_context(|| program.display().to_string())
}

/// The same; it must end with this code. What it prints.
fn cli(c: &Cluster, code: i32, args: &[&str]) -> anyhow::Result<String> {
    let output = run(c, args)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "{args:?}: {}, not {code}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

fn patch(c: &Cluster, spec: &Value) -> anyhow::Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    c.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", &patch]).map(drop)
}

/// The pool as it was before.
fn reset(c: &Cluster) -> anyhow::Result<()> {
    let nothing = json!({ "approval": "Automatic", "approved": null, "hold": false, "pinnedRevision": null,
                          "exactReplay": null, "waves": null });
    patch(c, &nothing)
}

fn pending(c: &Cluster) -> anyhow::Result<Value> {
    wait_for("a shape that waits, with its revision", PATIENCE, || {
        let pending = c.pool_status(POOL)?["pending"].take();
        ensure!(pending["revision"].is_u64(), "{pending}");
        Ok(pending)
    })
}

/// `web` at another port.
fn move_to(c: &Cluster, port: u16) -> anyhow::Result<Service> {
    let mut moved = service("web", "ClusterIP", &json!({}));
    for entry in moved["spec"]["ports"].as_array_mut().context("ports")? {
        entry["port"] = port.into();
    }
    c.set_service(&moved)
}

pub(crate) fn a_new_shape_waits_for_approval(c: &mut Cluster) -> anyhow::Result<()> {
    let from = inside(c);
    let old = plain(c, "web", &["a1", "b1"])?;
    answered_by(&from, &old.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    patch(c, &json!({ "approval": "Manual" }))?;
    cli(c, 0, &["diff", "--pool", POOL])?;
    let new = move_to(c, 8888)?;
    let waits = pending(c)?;
    ensure!(waits["reason"] == "Approval", "{waits}");
    let number = waits["revision"].to_string();
    let difference = cli(c, 1, &["diff", "--pool", POOL])?;
    ensure!(difference.contains("8888") && difference.lines().count() <= 20, "{difference}");
    // Endpoints follow all the same.
    c.set_endpoints("web", 8080, &[unready("a1"), ready("b1"), ready("b2")])?;
    answered_by(&from, &old.cluster, &["b1", "b2"])?;
    ends_in(&from, &new.cluster, &Answer::Refused)?;
    cli(c, 2, &["approve", POOL, "4711", "--yes"])?;
    cli(c, 2, &["approve", POOL, &number, "--digest", "AAAAAAAAAA", "--yes"])?;
    cli(c, 0, &["approve", POOL, &number, "--yes", "--wait"])?;
    answered_by(&from, &new.cluster, &["b1", "b2"])?;
    ends_in(&from, &old.cluster, &Answer::Refused)?;
    let history = cli(c, 0, &["history", POOL])?;
    ensure!(history.contains(&number) && history.contains("Live,Approved"), "{history}");
    // The exact rules of a node can be had without the node.
    let rules = cli(c, 0, &["render", "live", "--pool", POOL, "--node", &c.network.nodes[0].name])?;
    ensure!(rules.contains("8888"), "the port is missing in:\n{rules}");
    reset(c)
}

pub(crate) fn an_undo_brings_the_old_shape_with_todays_endpoints(c: &mut Cluster) -> anyhow::Result<()> {
    let from = inside(c);
    let old = plain(c, "web", &["a1", "b1"])?;
    answered_by(&from, &old.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    let new = move_to(c, 8888)?;
    answered_by(&from, &new.cluster, &["a1", "b1"])?;
    c.set_endpoints("web", 8080, &[unready("a1"), ready("b1")])?;
    answered_by(&from, &new.cluster, &["b1"])?;
    let before = c.wait_until_in_force()?;
    cli(c, 0, &["undo", POOL, "--wait"])?;
    answered_by(&from, &old.cluster, &["b1"])?;
    ends_in(&from, &new.cluster, &Answer::Refused)?;
    let after = c.head()?;
    ensure!(after.sequence > before.sequence, "{before:?} {after:?}");
    // It stays, whatever comes; and a controller that starts anew keeps to it.
    let newest = move_to(c, 9999)?;
    let waits = pending(c)?;
    ensure!(waits["reason"] == "Rollback", "{waits}");
    c.controller.kill()?;
    c.recover()?;
    answered_by(&inside(c), &old.cluster, &["b1"])?;
    let status = cli(c, 0, &["status", POOL])?;
    ensure!(status.contains("resume"), "{status}");
    cli(c, 0, &["resume", POOL, "--wait"])?;
    answered_by(&inside(c), &newest.cluster, &["b1"])?;
    // Exactly as it was, the dead endpoint included, for as long as it is asked for.
    let exact = cli(c, 0, &["history", POOL, "-o", "json"])?;
    ensure!(exact.contains("revision") || exact.contains("number"), "{exact}");
    cli(c, 0, &["undo", POOL, "--exact", "--for", "5m", "--wait"])?;
    let condition = c.pool_status(POOL)?["conditions"].to_string();
    ensure!(condition.contains("ExactReplay"), "{condition}");
    cli(c, 0, &["resume", POOL, "--wait"])?;
    answered_by(&inside(c), &newest.cluster, &["b1"])?;
    reset(c)
}

pub(crate) fn a_hold_is_for_shapes_and_not_for_endpoints(c: &mut Cluster) -> anyhow::Result<()> {
    let from = inside(c);
    let old = plain(c, "web", &["a1", "b1"])?;
    answered_by(&from, &old.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    cli(c, 0, &["hold", POOL, "--reason", "$(reboot) `x` \"night shift\""])?;
    let new = move_to(c, 8888)?;
    c.set_endpoints("web", 8080, &[ready("b2")])?;
    answered_by(&from, &old.cluster, &["b2"])?;
    ends_in(&from, &new.cluster, &Answer::Refused)?;
    let status = cli(c, 0, &["status", POOL])?;
    ensure!(status.contains("night shift"), "{status}");
    cli(c, 0, &["resume", POOL, "--wait"])?;
    answered_by(&from, &new.cluster, &["b2"])?;
    reset(c)
}

pub(crate) fn a_new_shape_comes_in_waves(c: &mut Cluster) -> anyhow::Result<()> {
    let old = plain(c, "web", &["a1", "b1"])?;
    answered_by(&inside(c), &old.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    patch(c, &json!({ "waves": { "pause": "15s" } }))?;
    let new = move_to(c, 8888)?;
    let first = wait_for("a node in the wave", PATIENCE, || {
        let statuses: Vec<Value> =
            c.network.nodes.iter().map(|node| c.node_status(&node.name)).collect::<anyhow::Result<_>>()?;
        let next: Vec<usize> =
            statuses.iter().enumerate().filter(|(_, s)| s["next"] == true).map(|(i, _)| i).collect();
        ensure!(next.len() == 1, "{statuses:?}");
        Ok(next[0])
    })?;
    let all = inside(c);
    answered_by(&all[first..=first], &new.cluster, &["a1", "b1"])?;
    answered_by(&all[1 - first..2 - first], &old.cluster, &["a1", "b1"])?;
    // Endpoints are everybody's at once.
    c.set_endpoints("web", 8080, &[ready("b2")])?;
    answered_by(&all[first..=first], &new.cluster, &["b2"])?;
    answered_by(&all[1 - first..2 - first], &old.cluster, &["b2"])?;
    answered_by(&all, &new.cluster, &["b2"])?;
    wait_for("the second bundle to go", PATIENCE, || {
        let bundles = c.kubectl(&["get", "rulebundles", "-o", "name"])?;
        ensure!(!bundles.contains("next"), "{bundles}");
        Ok(())
    })?;
    c.wait_until_in_force()?;
    reset(c)
}
