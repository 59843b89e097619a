//! The real nft tool, in a node's namespace.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::namespace::Namespace;

/// Runs nft; it must succeed.
pub fn nft(namespace: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    namespace.output("nft", args)
}

/// Checks a ruleset without loading it; returns what nft complains about, nothing if it would take it.
pub fn check(namespace: &Namespace, ruleset: &str) -> anyhow::Result<Option<String>> {
    run(namespace, &["-c", "-f", "-"], ruleset)
}

/// What nft complains about; nothing if it succeeds.
fn run(namespace: &Namespace, args: &[&str], ruleset: &str) -> anyhow::Result<Option<String>> {
    let output = namespace.run(|| {
        let mut child = Command::new("nft")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().expect("a pipe").write_all(ruleset.as_bytes())?;
        child.wait_with_output()
    })?;
    let output = output.context("the tool `nft`")?;
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || !complaints.is_empty(), "nft: {}", output.status);
    Ok((!output.status.success()).then_some(complaints))
}

/// Loads a ruleset.
pub fn load(namespace: &Namespace, ruleset: &str) -> anyhow::Result<()> {
    let complaints = run(namespace, &["-f", "-"], ruleset)?;
    ensure!(complaints.is_none(), "nft -f: {}", complaints.unwrap_or_default());
    Ok(())
}

/// The rules in force as text, without what changes by itself.
pub fn listing(namespace: &Namespace) -> anyhow::Result<String> {
    nft(namespace, &["-s", "list", "ruleset"])
}

/// The rules in force, as nft describes them to machines.
pub fn objects(namespace: &Namespace) -> anyhow::Result<Vec<Value>> {
    let mut value: Value = serde_json::from_str(&nft(namespace, &["-j", "list", "ruleset"])?)?;
    let list = value["nftables"].as_array_mut().context("nft -j: no list")?;
    Ok(std::mem::take(list))
}

/// The rules in force in a form that can be compared: without handles, the elements of sets in order, rules numbered,
/// and without the chains that targets once had and nobody has now, which are kept for a while.
pub fn state(namespace: &Namespace) -> anyhow::Result<Vec<String>> {
    let objects = objects(namespace)?;
    let verdicts: String =
        objects.iter().filter_map(|o| o.pointer("/map/elem")).map(Value::to_string).collect();
    let is_idle = |chain: &Value| {
        let name = chain.as_str().unwrap_or_default();
        let numbered = name.rsplit_once('-').is_some_and(|(_, n)| n.parse::<u32>().is_ok());
        numbered && !verdicts.contains(&format!("\"target\":\"{name}\""))
    };
    let mut state = Vec::new();
    let (mut chain, mut number) = (String::new(), 0);
    for mut object in objects {
        let Some((kind, content)) = object.as_object_mut().and_then(|o| o.iter_mut().next()) else {
            continue;
        };
        if kind == "metainfo" || (kind == "chain" && is_idle(&content["name"])) || is_idle(&content["chain"])
        {
            continue;
        }
        if kind == "rule" {
            // The order of rules matters, within a chain.
            let this = format!("{} {}", content["family"], content["chain"]);
            number = if this == chain { number + 1 } else { 0 };
            chain = this;
            content["number"] = number.into();
        }
        if let Some(content) = content.as_object_mut() {
            content.remove("handle");
            if let Some(elements) = content.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(Value::to_string);
            }
        }
        state.push(object.to_string());
    }
    state.sort();
    Ok(state)
}
