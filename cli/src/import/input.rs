//! Finds the configuration in what was given: the file itself, or a ConfigMap that holds it.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::leaves::Leaves;

/// A configuration.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is, for messages.
    pub(super) place: String,
    /// Its fields, but `apiVersion` and `kind`.
    pub(super) leaves: Leaves,
}

const KIND: &str = "KubeProxyConfiguration";
const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const GET: &str = "get it with: kubectl get configmap kube-proxy -n kube-system -o yaml";
/// More than any ConfigMap can hold, several times over.
const MAX_BYTES: u64 = 32 << 20;

/// Reads the one configuration in `file`; `-` is standard input.
pub(super) fn read(file: &Path) -> anyhow::Result<Found> {
    let (name, text) = if file == Path::new("-") {
        ("standard input".to_owned(), limited(std::io::stdin()).context("standard input")?)
    } else {
        let name = file.display().to_string();
        let file = std::fs::File::open(file).with_context(|| format!("{name}: cannot be read"))?;
        let text = limited(file).with_context(|| format!("{name}: cannot be read"))?;
        (name, text)
    };
    find(&text, &name)
}

fn limited(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("it has more than {} MiB; a kube-proxy configuration has a few kB", MAX_BYTES >> 20);
    }
    Ok(text)
}

/// A configuration's text, and where it is in the file.
struct Candidate {
    place: String,
    text: String,
}

fn find(text: &str, file: &str) -> anyhow::Result<Found> {
    // Every value as it is written: a ConfigMap has texts only, and of the rest the kind is wanted.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|e| anyhow::anyhow!("{file}: it is not YAML: {e}"))?;
    let documents: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
    if documents.is_empty() {
        bail!("{file}: it is empty; {GET}");
    }
    let (mut candidates, mut seen) = (Vec::new(), Vec::new());
    for document in &documents {
        look(document, file, &mut candidates, &mut seen);
    }
    // A file of its own keeps its line numbers; a document among others is printed anew.
    let alone = documents.len() == 1 && documents[0].get("kind").and_then(Value::as_str) == Some(KIND);
    match candidates.as_slice() {
        [one] => leaves(one.place.clone(), if alone { text } else { &one.text }),
        [] => bail!("{file}: no {KIND} in it, but {}; {GET}", seen.join(", ")),
        many => {
            let places: Vec<_> = many.iter().map(|c| c.place.as_str()).collect();
            bail!(
                "{file}: {} {KIND}s in it, in {}; give the one that kube-proxy reads",
                many.len(),
                places.join(" and in ")
            )
        }
    }
}

/// Adds the configurations in an object to `candidates`, or what it is instead to `seen`.
fn look(object: &Value, place: &str, candidates: &mut Vec<Candidate>, seen: &mut Vec<String>) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    match text("/kind") {
        Some(KIND) => {
            let text = serde_json::to_string_pretty(object).expect("it was read from text");
            candidates.push(Candidate { place: place.to_owned(), text });
        }
        Some("ConfigMap") => {
            let name = text("/metadata/name").unwrap_or("without a name");
            config_map(object, name, place, candidates, seen);
        }
        Some(kind) if kind.ends_with("List") => match object.get("items").and_then(Value::as_array) {
            Some(items) if !items.is_empty() => {
                for item in items {
                    look(item, place, candidates, seen);
                }
            }
            _ => seen.push(format!("an empty {kind}")),
        },
        Some(kind) => seen.push(format!("a {kind}")),
        None => seen.push("a document without a kind".to_owned()),
    }
}

fn config_map(
    object: &Value,
    name: &str,
    place: &str,
    candidates: &mut Vec<Candidate>,
    seen: &mut Vec<String>,
) {
    let data = object.get("data").and_then(Value::as_object).filter(|data| !data.is_empty());
    let Some(data) = data else {
        seen.push(format!("the ConfigMap {name}, which has no data"));
        return;
    };
    let before = candidates.len();
    for (key, text) in data {
        // kubeadm, kind and others call it config.conf, some config; what it holds says more than its name.
        if let Some(text) = text.as_str().filter(|text| text.contains(KIND)) {
            candidates.push(Candidate {
                place: format!("{place}: {key} of ConfigMap {name}"),
                text: text.to_owned(),
            });
        }
    }
    if candidates.len() == before {
        let keys: Vec<_> = data.keys().map(String::as_str).collect();
        seen.push(format!("the ConfigMap {name} with the keys {}", keys.join(", ")));
    }
}

fn leaves(place: String, text: &str) -> anyhow::Result<Found> {
    let mut leaves = Leaves::read(text).map_err(|e| anyhow::anyhow!("{place}: it is not YAML: {e}"))?;
    let mut text = |field| leaves.given(field).map(|leaf| leaf.shown()).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if kind != KIND {
        bail!("{place}: its kind is {kind:?}, not {KIND}; {GET}");
    }
    if version != API_VERSION {
        bail!(
            "{place}: its apiVersion is {version:?}; only {API_VERSION} can be read, which every kube-proxy writes with --write-config-to"
        );
    }
    Ok(Found { place, leaves })
}
