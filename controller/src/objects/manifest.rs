//! Files of manifests: YAML with many documents, lists as `kubectl get -o yaml` prints them, and JSON.

mod list;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Convert, ConvertError, Kind, Object, ObjectId, RawNode, RawPool, RawService, RawServiceCidr, RawSlice,
    key,
};

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: document {document}{}: {problem}", path.display(), id.as_ref().map(|id| format!(": {id}")).unwrap_or_default())]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// Which of its documents, from 1.
    pub document: usize,
    /// The object, if it is known: then only that one is in doubt, else the whole file.
    pub id: Option<ObjectId>,
    /// What is wrong, beginning with the field if it is known.
    pub problem: String,
}

/// Which manifests are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// All kinds.
    #[default]
    All,
    /// Those that a bundle's shape is made of: neither EndpointSlices nor Nodes.
    Shape,
}

/// Reads a file of manifests. Kinds that do not concern us are left out.
#[must_use]
pub fn parse_manifests(text: &str, path: &Path) -> Vec<Result<Object, ManifestError>> {
    let parse = |(place, form, text)| {
        let results = parse_part(text, form, Extent::All).into_iter();
        results.map(move |result| result.map_err(|problem| ManifestError::new(path, place, problem)))
    };
    split(text, Form::of(path)).into_iter().flat_map(parse).collect()
}

/// How a file, or a part of one, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Yaml,
    /// A sequence that is one item of a list's.
    YamlItem,
    Json,
}

impl Form {
    pub(crate) fn of(path: &Path) -> Self {
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        if json { Self::Json } else { Self::Yaml }
    }
}

/// Where in a file: the document, from 1, and of a list the item, from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    document: usize,
    item: Option<usize>,
}

/// A part of a file that can be read by itself.
pub(crate) type Part<'a> = (Place, Form, &'a str);

/// A file's parts: its documents and, of lists as kubectl prints them, the items.
pub(crate) fn split(text: &str, form: Form) -> Vec<Part<'_>> {
    if form == Form::Json {
        return vec![(Place { document: 1, item: None }, form, text)];
    }
    let parts = |(document, text)| match list::items(text) {
        Some(items) => (0..)
            .zip(items)
            .map(|(item, text)| (Place { document, item: Some(item) }, Form::YamlItem, text))
            .collect(),
        None => vec![(Place { document, item: None }, Form::Yaml, text)],
    };
    documents(text).into_iter().flat_map(parts).collect()
}

/// The objects of one part.
pub(crate) fn parse_part(text: &str, form: Form, extent: Extent) -> Vec<Result<Object, Problem>> {
    if extent == Extent::Shape && list::is_evidently(text, form, "EndpointSlice") {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut push = |result| out.push(result);
    match (form, if form == Form::Json { read_json(text) } else { read_yaml(text) }) {
        (Form::YamlItem, Ok(Value::Array(items))) => {
            for item in items {
                read(item, extent, &mut push);
            }
        }
        (_, Ok(value)) => read(value, extent, &mut push),
        (_, Err(problem)) => push(Err((None, problem))),
    }
    out
}

/// Splits at lines that begin with `---`, which YAML lets stand for nothing else, wherever they are. Done here and not by
/// the parser so that one broken document does not hide the others. Documents of blanks and comments are left out, but
/// counted.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let marker = line.strip_prefix("---").is_some_and(|rest| rest.trim_start().len() < rest.len());
        if marker || line == "---" {
            parts.push(&text[start..at]);
            // What follows the marker on its line belongs to the document.
            start = at + 3;
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    // A marker at the very beginning, after comments at most, ends no document.
    let blank =
        |part: &str| part.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with(['#', '%']));
    if parts.len() > 1 && blank(parts[0]) {
        parts.remove(0);
    }
    parts.into_iter().enumerate().map(|(i, part)| (i + 1, part)).filter(|(_, part)| !blank(part)).collect()
}

fn read_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

fn read_yaml(text: &str) -> Result<Value, String> {
    // The parser's usual limits are below what `kubectl get -A -o yaml` of a large cluster prints. The file's own size is
    // the limit here; those on aliases, which multiply, stay.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX, max_nodes: usize::MAX, max_total_scalar_bytes: usize::MAX,
        },
        with_snippet: false,
        // A node called `n` is not false.
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| format!("not YAML: {e}"))
}

/// The object, if it is known, and what is wrong.
pub(crate) type Problem = (Option<ObjectId>, String);

fn read(value: Value, extent: Extent, push: &mut impl FnMut(Result<Object, Problem>)) {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let (Some(kind), Some(version)) = (text("kind"), text("apiVersion")) else {
        push(Err((None, "it has no kind and apiVersion: not a Kubernetes manifest, or cut off".to_owned())));
        return;
    };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if kind.ends_with("List") && value.get("items").is_some() {
        let Value::Object(mut list) = value else { return };
        match list.remove("items") {
            Some(Value::Array(items)) => items.into_iter().for_each(|item| read(item, extent, push)),
            Some(Value::Null) | None => {}
            Some(_) => push(Err((None, "items: not a list".to_owned()))),
        }
        return;
    }
    if extent == Extent::Shape
        && matches!((group, kind), ("discovery.k8s.io", "EndpointSlice") | ("", "Node"))
    {
        return;
    }
    // Of the groups that we read, everything has a name; what has none was cut off before it.
    let ours = matches!(group, "" | "discovery.k8s.io" | "networking.k8s.io" | rulecast_api::GROUP);
    if ours && value.pointer("/metadata/name").is_none() {
        push(Err((None, format!("{kind}: metadata.name: missing; perhaps the file is cut off"))));
        return;
    }
    let known = match (group, kind) {
        ("", "Service") => typed::<RawService>(value),
        ("", "Node") => typed::<RawNode>(value),
        ("discovery.k8s.io", "EndpointSlice") => typed::<RawSlice>(value),
        ("networking.k8s.io", "ServiceCIDR") => typed::<RawServiceCidr>(value),
        (rulecast_api::GROUP, "RulePool") => typed::<RawPool>(value),
        _ => {
            tracing::debug!(kind, version, "a manifest of no concern");
            return;
        }
    };
    push(known);
}

fn typed<T: Convert + DeserializeOwned>(value: Value) -> Result<Object, Problem> {
    let metadata = value.get("metadata");
    let field = |name: &str| metadata.and_then(|m| m.get(name)).and_then(Value::as_str).map(str::to_owned);
    let Some(name) = field("name").filter(|name| !name.is_empty()) else {
        return Err((None, format!("{}: metadata.name: missing", T::KIND)));
    };
    let named = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(name),
        namespace: field("namespace"),
        ..Default::default()
    };
    let id = ObjectId::new(T::KIND, key(T::KIND, &named));
    match serde_path_to_error::deserialize::<_, T>(value) {
        Ok(raw) => raw
            .convert()
            .map_err(|ConvertError { field, problem, id }| (Some(id), format!("{field}: {problem}"))),
        Err(error) => Err((Some(id), format!("{}: {}", error.path(), error.inner()))),
    }
}

impl ManifestError {
    /// Of an object that is not known, it says which item of a list it is.
    pub(crate) fn new(path: &Path, place: Place, (id, problem): Problem) -> Self {
        let problem = match (place.item, &id) {
            (Some(item), None) => format!("items[{item}]: {problem}"),
            _ => problem,
        };
        Self { path: path.to_owned(), document: place.document, id, problem }
    }

    /// What the problem is about: the object, or the file.
    #[must_use]
    pub fn subject(&self) -> ObjectId {
        self.id.clone().unwrap_or_else(|| ObjectId::new(Kind::File, self.path.display().to_string()))
    }
}
