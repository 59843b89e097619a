//! RuleBundles that an administrator, or somebody with his rights, has altered.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rulecast_bundle::{CatchUp, Delta, FORMAT, Head, Way};
use rulecast_tests::cluster::{Cluster, POOL};
use rulecast_tests::nft::state;
use rulecast_tests::objects::ready;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::traffic::{answered_by, inside, plain};

type Rules = Vec<Vec<String>>;

fn rules(c: &Cluster) -> anyhow::Result<Rules> {
    c.network.nodes.iter().map(|node| state(&node.namespace)).collect()
}

/// Waits until both nodes report the reason, and looks whether they left their rules alone.
fn refused(c: &Cluster, reason: &str, rules_before: &Rules) -> anyhow::Result<()> {
    for node in &c.network.nodes {
        wait_for(&format!("{} to report {reason}", node.name), PATIENCE, || {
            let status = c.node_status(&node.name)?;
            ensure!(status["error"]["reason"] == reason, "{status}");
            ensure!(status["error"]["message"].as_str().is_some_and(|m| m.len() > 20), "{status}");
            Ok(())
        })?;
    }
    ensure!(rules(c)? == *rules_before, "{reason}: the rules changed");
    for number in 0..c.network.nodes.len() {
        ensure!(c.ask_applier(number, "/healthz")?.0 == 200, "the rules in force are good ones");
        let name = format!("rulecast_node_refused_total{{reason=\"{reason}\"}}");
        ensure!(c.applier_metric(number, &name)? >= 1.0, "{name}");
    }
    Ok(())
}

fn read_head(c: &Cluster, pool: &str) -> anyhow::Result<Head> {
    let object = c.get(&format!("/apis/rulecast.dev/v1alpha1/rulebundles/{pool}"))?;
    Ok(serde_json::from_value(object["spec"].clone())?)
}

/// Replaces the whole spec, as a program with a stolen token would.
fn write_head(c: &Cluster, head: &Head) -> anyhow::Result<()> {
    let mut object = c.bundle()?;
    object["spec"] = serde_json::to_value(head)?;
    c.kubectl_input(&["replace", "-f", "-"], &object).map(drop)
}

fn empty_delta(from: u64, to: u64) -> String {
    STANDARD_NO_PAD.encode(Delta { from, to, previous: None, changes: Vec::new() }.encode())
}

/// A change makes the controller publish again, and the nodes take that. It was frozen while somebody lied: it would have
/// repaired the head within a minute.
fn recovers(c: &mut Cluster, above: u64, endpoint: &str) -> anyhow::Result<()> {
    c.controller.thaw()?;
    c.set_endpoints("victim", 8080, &[ready(endpoint)])?;
    let after = c.wait_until_in_force().context("after a change made the controller publish again")?;
    ensure!(after.sequence > above, "{after:?} should be above {above}");
    let victim = plain(c, "victim", &[endpoint])?;
    answered_by(&inside(c), &victim.cluster, &[endpoint])
}

pub(crate) fn altered_bundles_are_refused(c: &mut Cluster) -> anyhow::Result<()> {
    let victim = plain(c, "victim", &["a1"])?;
    answered_by(&inside(c), &victim.cluster, &["a1"])?;
    c.wait_until_in_force()?;
    let (good, before) = (read_head(c, "default")?, rules(c)?);
    let next = good.sequence + 1;
    let lie = "d".repeat(27);
    let cases = [
        ("Conflict", Head { digest: lie.clone(), ..good.clone() }),
        (
            "DigestMismatch",
            Head { digest: lie, sequence: next, delta: empty_delta(good.sequence, next), ..good.clone() },
        ),
        ("UnknownVersion", Head { format: FORMAT + 1, sequence: next, ..good.clone() }),
        (
            "DigestMismatch",
            Head {
                mode: rulecast_bundle::Mode::Ipvs,
                sequence: next,
                delta: empty_delta(good.sequence, next),
                ..good.clone()
            },
        ),
        (
            "Damaged",
            Head { sequence: next + 1, delta: "AAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(), ..good.clone() },
        ),
    ];
    c.controller.freeze()?;
    let highest = cases.iter().map(|(_, head)| head.sequence).max().unwrap_or_default();
    for (reason, head) in cases {
        write_head(c, &head).context(reason)?;
        refused(c, reason, &before).context(reason)?;
        answered_by(&inside(c)[..1], &victim.cluster, &["a1"])?;
    }
    recovers(c, highest, "b1")
}

pub(crate) fn another_pools_bundle_is_refused(c: &mut Cluster) -> anyhow::Result<()> {
    let victim = plain(c, "victim", &["a1"])?;
    answered_by(&inside(c), &victim.cluster, &["a1"])?;
    let pool = json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "foreign" },
        "spec": { "masqueradeAll": true },
    });
    c.apply(&[pool])?;
    wait_for("the other pool to be published", PATIENCE, || read_head(c, "foreign"))?;
    c.wait_until_in_force()?;
    let (own, foreign, before) = (read_head(c, "default")?, read_head(c, "foreign")?, rules(c)?);
    // What that pool would publish next, honest in all but for whom it is.
    let mut catch_up = CatchUp::new(&foreign, None)?;
    while let Some(id) = catch_up.need() {
        let chunk: Value = c.get(&format!("/apis/rulecast.dev/v1alpha1/rulechunks/{id}"))?;
        catch_up.supply(STANDARD_NO_PAD.decode(chunk["spec"]["data"].as_str().context("data")?)?)?;
    }
    let Way::Anew(mut bundle, deltas) = catch_up.finish()? else {
        anyhow::bail!("a whole bundle was asked for")
    };
    for delta in &deltas {
        let _final = bundle.apply(&delta.changes)?;
    }
    let sequence = own.sequence.max(foreign.sequence) + 1;
    let last =
        Delta::decode(&foreign.delta_bytes()?.unwrap_or_default()).map(|delta| (delta.from, delta.changes));
    let (from, changes) = last.unwrap_or((foreign.sequence, Vec::new()));
    let delta = Delta { from, to: sequence, previous: None, changes }.encode();
    let mut head = Head { sequence, ..foreign };
    head.digest = head.expected_digest("foreign", bundle.root()).to_string();
    head.set_delta(&delta);
    c.controller.freeze()?;
    write_head(c, &head)?;
    refused(c, "DigestMismatch", &before)?;
    c.kubectl(&["delete", "rulepool", "foreign"])?;
    recovers(c, sequence, "b2")
}

pub(crate) fn a_lower_sequence_is_refused(c: &mut Cluster) -> anyhow::Result<()> {
    let victim = plain(c, "victim", &["a1"])?;
    answered_by(&inside(c), &victim.cluster, &["a1"])?;
    c.wait_until_in_force()?;
    let before = rules(c)?;
    let mut object = c.bundle()?;
    let sequence = object["spec"]["sequence"].as_u64().context("a sequence")?;
    c.controller.freeze()?;
    // The definition lets nobody lower it; deleting and making it anew does.
    object["spec"]["sequence"] = json!(sequence - 1);
    let error = c.kubectl_input(&["replace", "-f", "-"], &object).err().map(|e| format!("{e:#}"));
    ensure!(error.as_deref().is_some_and(|e| e.contains("must not decrease")), "{error:?}");
    c.kubectl(&["delete", "rulebundle", "default"])?;
    let fresh = json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleBundle", "metadata": { "name": "default" },
        "spec": {
            "format": FORMAT, "sequence": 1,
            "digest": object["spec"]["digest"], "checkpoint": object["spec"]["checkpoint"],
        },
    });
    c.kubectl_input(&["create", "-f", "-"], &fresh)?;
    refused(c, "Replay", &before)?;
    answered_by(&inside(c)[..1], &victim.cluster, &["a1"])?;
    recovers(c, sequence, "b2")
}

pub(crate) fn a_deleted_bundle_is_made_again(c: &mut Cluster) -> anyhow::Result<()> {
    let victim = plain(c, "victim", &["a1"])?;
    answered_by(&inside(c), &victim.cluster, &["a1"])?;
    c.wait_until_in_force()?;
    let (before, rules_before) = (c.head()?.sequence, rules(c)?);
    c.kubectl(&["delete", "rulebundle", "default"])?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    ensure!(rules(c)? == rules_before, "the rules go when the bundle goes");
    recovers(c, before, "a2")?;
    c.delete_service("victim")
}

/// What a backup brings back: an older head, whose chunks are there. Nothing tells nodes that from a replay, so they stay
/// with what they have until somebody raises the epoch.
pub(crate) fn a_restored_cluster_is_accepted_by_its_epoch(c: &mut Cluster) -> anyhow::Result<()> {
    let victim = plain(c, "victim", &["a1"])?;
    answered_by(&inside(c), &victim.cluster, &["a1"])?;
    c.wait_until_in_force()?;
    let backup = read_head(c, POOL)?;
    for endpoint in ["a2", "b1", "b2", "a1", "b2"] {
        c.set_endpoints("victim", 8080, &[ready(endpoint)])?;
        wait_for("a change to arrive", PATIENCE, || answered_by(&inside(c), &victim.cluster, &[endpoint]))?;
    }
    let before = c.wait_until_in_force()?;
    ensure!(before.sequence > backup.sequence + 3, "{before:?}");
    let rules_before = rules(c)?;
    c.controller.kill()?;
    c.kubectl(&["delete", "rulebundle", POOL])?;
    let restored = json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleBundle", "metadata": { "name": POOL },
        "spec": serde_json::to_value(&backup)?,
    });
    c.kubectl_input(&["create", "-f", "-"], &restored)?;
    c.controller.start(&c.network.hub)?;
    refused(c, "Replay", &rules_before)?;
    let message = c.node_status("node-a")?["error"]["message"].clone();
    ensure!(
        message.as_str().is_some_and(|m| m.contains("spec.epoch")),
        "it does not say what to do: {message}"
    );
    answered_by(&inside(c)[..1], &victim.cluster, &["b2"])?;

    let epoch = read_head(c, POOL)?.epoch + 1;
    let patch = json!({ "spec": { "epoch": epoch } }).to_string();
    c.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", &patch])?;
    wait_for("nodes to follow again", PATIENCE, || {
        let status = c.node_status("node-a")?;
        ensure!(status["epoch"] == epoch && status.get("error").is_none(), "{status}");
        Ok(())
    })?;
    let after = c.wait_until_in_force()?;
    ensure!(after.sequence < before.sequence, "{after:?}: sequences begin again where the backup was");
    c.set_endpoints("victim", 8080, &[ready("a2")])?;
    wait_for("a change to arrive", PATIENCE, || answered_by(&inside(c), &victim.cluster, &["a2"]))?;
    c.delete_service("victim")
}
