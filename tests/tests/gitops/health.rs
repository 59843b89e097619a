//! What Argo CD and Flux make of a RulePool: every line of the table in `docs/gitops.md`, with the status that the controller
//! writes.

use std::fs;

use anyhow::{Context as _, ensure};
use mlua::serde::SerializeOptions;
use mlua::{Lua, LuaSerdeExt as _, Table};
use rulecast_tests::cluster::Cluster;
use rulecast_tests::objects::service;
use rulecast_tests::programs;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

const POOL: &str = "health";
const KEY: &str = "resource.customizations.health.rulecast.dev_RulePool";

pub(crate) fn argo_cd_and_flux_read_the_status(c: &mut Cluster) -> anyhow::Result<()> {
    let script = script(c)?;
    let look = |c: &Cluster, what: &str, argo: &str, flux: &str, word: &str| {
        wait_for(what, PATIENCE, || {
            let pool = c.get(&format!("/apis/rulecast.dev/v1alpha1/rulepools/{POOL}"))?;
            let (status, message) = argo_cd(&script, &pool)?;
            let seen = (status.as_str(), flux_says(&pool));
            let status = &pool["status"];
            ensure!(
                seen == (argo, flux) && status.to_string().contains(word),
                "{seen:?}, {message}: {status}"
            );
            ensure!(!message.is_empty(), "no message: {status}");
            Ok(())
        })
    };
    let ask = |c: &Cluster, spec: &Value| {
        let patch = json!({ "spec": spec }).to_string();
        c.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", &patch]).map(drop)
    };
    let change = |c: &Cluster, name: &str| c.set_service(&service(name, "ClusterIP", &json!({}))).map(drop);

    create(c, &json!({ "approval": "Manual" }))?;
    look(c, "the first approval", "Suspended", "InProgress", "NothingReleased")?;
    ask(c, &json!({ "approval": "Automatic", "hold": false }))?;
    look(c, "a publication", "Healthy", "Current", "Published")?;

    c.controller.freeze()?;
    ask(c, &json!({ "hold": true }))?;
    look(c, "a controller that is away", "Progressing", "InProgress", "Published")?;
    c.controller.thaw()?;
    look(c, "a hold", "Suspended", "Current", "Held")?;

    ask(c, &json!({ "hold": false, "approval": "Manual" }))?;
    change(c, "health-0")?;
    look(c, "an approval", "Suspended", "Current", "WaitsForApproval")?;
    ask(c, &json!({ "approved": { "revision": 99, "digest": "A".repeat(27) } }))?;
    look(c, "a revision that is not there", "Degraded", "Failed", "RevisionNotFound")?;
    ask(c, &json!({ "approved": null, "exactReplay": { "revision": 1, "until": "2999-01-01T00:00:00Z" } }))?;
    look(c, "a spec that cannot be used", "Degraded", "Failed", "Invalid")?;
    ask(c, &json!({ "exactReplay": null, "approval": "Automatic" }))?;
    look(c, "the change", "Healthy", "Current", "Published")?;

    ask(c, &json!({ "pinnedRevision": 1 }))?;
    look(c, "an undo", "Suspended", "Current", "HeldByRollback")?;
    ask(c, &json!({ "pinnedRevision": null }))?;
    look(c, "the end of the undo", "Healthy", "Current", "Published")?;
    let undo = ["undo", POOL, "--to-revision", "1", "--exact", "--for", "10m"];
    c.command_line(&undo)?;
    look(c, "a replay", "Suspended", "Current", "ExactReplay")?;
    ask(c, &json!({ "exactReplay": null, "pinnedRevision": null }))?;
    look(c, "the end of the replay", "Healthy", "Current", "Published")?;

    // No node follows this pool, so that its waves never end.
    ask(c, &json!({ "waves": { "pause": "1h" } }))?;
    change(c, "health-1")?;
    look(c, "waves", "Progressing", "InProgress", "InWaves")?;
    ask(c, &json!({ "waves": null }))?;
    look(c, "the end of the waves", "Healthy", "Current", "Published")?;

    let names: Vec<String> = (2..16).map(|n| format!("health-{n}")).collect();
    for name in &names {
        change(c, name)?;
    }
    let all = c.kubectl(&["get", "services", "-A", "-o", "name"])?.lines().count();
    look(c, "many Services", "Healthy", "Current", &format!("\"services\":{all},"))?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    c.kubectl(&[&["delete", "service"], &names[..]].concat())?;
    look(c, "a refusal", "Degraded", "Failed", "ShrinkRefused")
}

/// The pool, after one of a run before is gone.
fn create(c: &Cluster, spec: &Value) -> anyhow::Result<()> {
    c.kubectl(&["delete", "rulepool,rulebundle", POOL, "--ignore-not-found"])?;
    c.apply(&[json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL }, "spec": spec,
    })])
}

/// The script, as Argo CD gets it: `manifests/argocd` applied to its ConfigMap by kustomize.
fn script(c: &Cluster) -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    let component = dir.path().join("component");
    fs::create_dir(&component)?;
    for file in ["kustomization.yaml", "argocd-cm.yaml"] {
        fs::copy(programs::repository().join("manifests/argocd").join(file), component.join(file))?;
    }
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\ndata: {url: https://example.org}\n";
    fs::write(dir.path().join("argo.yaml"), config)?;
    let kustomization = "resources: [argo.yaml]\ncomponents: [component]\nnamespace: argocd\n";
    fs::write(dir.path().join("kustomization.yaml"), kustomization)?;
    let folder = dir.path().display().to_string();
    let text = c.kubectl(&["create", "--dry-run=client", "-o", "json", "-k", &folder])?;
    let map: Value = serde_json::from_str(&text)?;
    ensure!(map["data"]["url"] == "https://example.org", "the rest of the ConfigMap is lost: {map}");
    Ok(map["data"][KEY].as_str().with_context(|| map.to_string())?.to_owned())
}

/// Runs a health script as Argo CD does: the object is `obj`; a table with `status` and `message` comes back.
fn argo_cd(script: &str, pool: &Value) -> anyhow::Result<(String, String)> {
    let run = || -> mlua::Result<(String, String)> {
        let lua = Lua::new();
        let no_nulls = SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
        lua.globals().set("obj", lua.to_value_with(pool, no_nulls)?)?;
        let health: Table = lua.load(script).eval()?;
        Ok((health.get("status")?, health.get("message")?))
    };
    run().map_err(|error| anyhow::anyhow!("the script: {error}"))
}

/// kstatus's rules for a kind that it does not know (sigs.k8s.io/cli-utils, pkg/kstatus/status: generic.go, and the Ready
/// condition at last).
fn flux_says(object: &Value) -> &'static str {
    let status = &object["status"];
    let (generation, observed) = (&object["metadata"]["generation"], &status["observedGeneration"]);
    if !observed.is_null() && observed != generation {
        return "InProgress";
    }
    let conditions = status["conditions"].as_array();
    for condition in conditions.into_iter().flatten().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return "InProgress",
            Some("Stalled") => return "Failed",
            _ => {}
        }
    }
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    if ready.is_none_or(|ready| ready["status"] == "True") { "Current" } else { "InProgress" }
}
