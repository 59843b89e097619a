//! support-dump.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::checking::applier_pod;
use crate::objects::{healthy, node, pool, report, revision};
use crate::server::Server;

/// The files of an archive, by tar itself.
fn unpack(archive: &Path, into: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    std::fs::create_dir_all(into)?;
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .context("the tool `tar`")?;
    ensure!(status.success(), "tar: {status}");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(into.join("rulecast-support"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.insert(
                entry.file_name().to_string_lossy().into_owned(),
                std::fs::read_to_string(entry.path())?,
            );
        }
    }
    Ok(files)
}

/// The text without what stands for nodes' names, as `node-` and twelve random digits may begin like a node's name.
fn without_pseudonyms(text: &str) -> String {
    let mut parts = text.split("node-");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.bytes().take_while(u8::is_ascii_hexdigit).count() {
            12 => left += &part[12..],
            _ => left.extend(["node-", part]),
        }
    }
    left
}

fn busy(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    let quarantined =
        json!([{ "service": "payroll/ledger", "reason": "NotCompiled", "message": "10.1.2.3 is taken" }]);
    let status = json!({ "quarantined": quarantined, "quarantinedCount": 1 });
    let error = json!({ "error": {
        "reason": "KernelRefused", "message": "Service prod/web at 10.96.0.3:80 on secret-node-7",
        "since": "2026-01-01T00:00:00Z",
    } });
    s.apply(&[
        pool("default", &json!({ "clusterCIDR": "10.244.0.0/16" }), 3, &status),
        node("secret-node-7", &json!({})),
        report("secret-node-7", "default", 39, &error),
        revision("default", 4),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "payroll" } }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys", "namespace": "rulecast-system" },
            "stringData": { "key": "hunter3" },
        }),
    ])?;
    s.apply(&applier_pod("secret-node-7"))?;
    s.kubectl(&["annotate", "--overwrite", "rulepool", "default", "note=hunter1"]).map(drop)
}

pub(crate) fn a_dump_has_no_names_in_it(s: &mut Server) -> anyhow::Result<()> {
    s.apply(&applier_pod("nowhere"))?;
    s.kubectl(&["delete", "pod", "rulecast-node-x", "-n", "rulecast-system", "--force", "--grace-period=0"])?;
    busy(s)?;
    let archive = s.dir().join("dump.tar.gz");
    let path = archive.display().to_string();
    let ran = s.run(&["support-dump", "--output", &path])?.ended(0)?;
    // No kubelet runs here, so its log cannot be had; everything else is there.
    ran.prints(&["dump.tar.gz", "not in it: logs/rulecast-node-x.log"])?;
    let files = unpack(&archive, &s.dir().join("dump"))?;
    for file in [
        "README",
        "versions.json",
        "rulepools.json",
        "rulebundles.json",
        "rulerevisions.json",
        "rulenodes.json",
        "rulechunks.txt",
        "events.json",
        "check.json",
        "status.json",
        "nodes.json",
        "deployments.json",
        "daemonsets.json",
        "pods.json",
    ] {
        ensure!(files.contains_key(file), "{file} is missing: {:?}", files.keys());
    }
    for (name, text) in &files {
        let readable = without_pseudonyms(text);
        for secret in [
            "secret-node-7",
            "node-a",
            "payroll",
            "ledger",
            "10.1.2.3",
            "10.96.0.3",
            "10.244.0.0",
            "hunter1",
            "hunter2",
            "hunter3",
            "\"managedFields\"",
            "prod/web",
            "web-3",
        ] {
            ensure!(!readable.contains(secret), "{secret} is in {name}:\n{text}");
        }
    }
    // The same name is the same pseudonym everywhere.
    let nodes: Value = serde_json::from_str(&files["rulenodes.json"])?;
    let list = nodes.as_array().context("a list")?;
    let failing = list.iter().find(|n| n["status"]["error"].is_object()).context("the failing node")?;
    let name = failing["metadata"]["name"].as_str().context("a name")?;
    let message = failing["status"]["error"]["message"].as_str().context("a message")?;
    ensure!(name.starts_with("node-") && message.ends_with(name), "{failing:#}");
    ensure!(
        files["nodes.json"].contains(name) && files["pods.json"].contains(name),
        "{}",
        files["pods.json"]
    );
    ensure!(message.contains(":80 on") && message.contains("v4-"), "{message}");

    // An existing file is not written over, and others may not read one.
    s.run(&["support-dump", "--output", &path])?.ended(2)?.says(&["exists"])?;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&archive)?);
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let open = s.dir().join("open.tar.gz");
    let args = ["support-dump", "--no-redact", "--output"];
    s.run(&[&args[..], &[&open.display().to_string()]].concat())?
        .ended(0)?
        .prints(&["names and addresses of the cluster"])?;
    let files = unpack(&open, &s.dir().join("open"))?;
    ensure!(files["rulenodes.json"].contains("secret-node-7"), "{}", files["rulenodes.json"]);
    ensure!(files.values().all(|text| !["hunter1", "hunter2", "hunter3"].iter().any(|s| text.contains(s))));
    Ok(())
}

pub(crate) fn a_dump_is_made_of_what_can_be_read(s: &mut Server) -> anyhow::Result<()> {
    busy(s)?;
    let bob = s.somebody("erin")?;
    let archive = s.dir().join("erin.tar.gz");
    let ran = s.run_as(&bob, &["support-dump", "--output", &archive.display().to_string()])?.ended(0)?;
    ran.prints(&["not in it: rulepools.json: you may not list rulepools.rulecast.dev"])?;
    let files = unpack(&archive, &s.dir().join("erin"))?;
    ensure!(files["README"].contains("What could not be read") && files["check.json"].contains("unknown"));
    Ok(())
}
