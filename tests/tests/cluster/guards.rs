//! What is not published without somebody's word.

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::{Cluster, POOL};
use rulecast_tests::http;
use rulecast_tests::objects::service;
use rulecast_tests::wait::{PATIENCE, holds_for, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

fn condition(c: &Cluster, kind: &str) -> anyhow::Result<Value> {
    let status = c.pool_status(POOL)?;
    let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    found.cloned().with_context(|| format!("no {kind}: {status}"))
}

fn event(c: &Cluster, reason: &str) -> anyhow::Result<Value> {
    let events = c.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
    let mut items = events["items"].as_array().into_iter().flatten();
    items.rfind(|event| event["reason"] == reason).cloned().with_context(|| format!("no Event {reason}"))
}

pub(crate) fn losing_the_services_needs_a_word(c: &mut Cluster) -> anyhow::Result<()> {
    let names: Vec<String> = (0..20).map(|n| format!("many-{n}")).collect();
    for name in &names {
        c.set_service(&service(name, "ClusterIP", &json!({})))?;
    }
    let before = c.wait_until_in_force()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    c.kubectl(&[&["delete", "service"], &names[..]].concat())?;
    wait_for("the pool to say that nothing is published", PATIENCE, || {
        let ready = condition(c, "Ready")?;
        ensure!(ready["status"] == "False" && ready["reason"] == "ShrinkRefused", "{ready}");
        Ok(())
    })?;
    let refused = format!("rulecast_controller_shrink_refused{{pool=\"{POOL}\"}}");
    let metric = |c: &Cluster| http::metric(&c.ask_controller("/metrics")?.1, &refused);
    ensure!(metric(c)? > 0.0, "the metric does not say so");
    // Some of the Services may have gone before the rest was too many.
    let held = c.head()?;
    holds_for("nothing is published", Duration::from_secs(2), || {
        ensure!(c.head()? == held, "{held:?} became {:?}", c.head()?);
        Ok(())
    })?;

    // The Event is the pool's, and its command is the way out.
    let event = wait_for("the Event", PATIENCE, || event(c, "ShrinkRefused"))?;
    ensure!(event["regarding"]["kind"] == "RulePool" && event["type"] == "Warning", "{event}");
    let described = c.kubectl(&["describe", "rulepool", POOL])?;
    ensure!(described.contains("ShrinkRefused"), "kubectl describe does not show it:\n{described}");
    let message = condition(c, "Ready")?["message"].as_str().context("a message")?.to_owned();
    let command = message.split("kubectl ").nth(1).and_then(|m| m.split(", or").next());
    let command = command.with_context(|| format!("no command: {message}"))?;
    c.kubectl(&command.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>())?;
    wait_for("the publication", PATIENCE, || {
        let ready = condition(c, "Ready")?;
        ensure!(ready["status"] == "True", "{ready}");
        ensure!(c.head()?.sequence > held.sequence && metric(c)? == 0.0, "{:?}", c.head()?);
        Ok(())
    })?;
    let after = c.wait_until_in_force()?;
    ensure!(after.sequence > before.sequence, "{before:?} {after:?}");
    c.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", r#"{"spec":{"approved":null}}"#]).map(drop)
}
