//! The text of `crds/yaml`. Only the generator and the test for drift need it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value};

/// The file a definition is kept in.
///
/// # Panics
/// Never: a definition is made of plain JSON.
#[must_use]
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    let value = canonical(serde_json::to_value(crd).expect("a definition is plain JSON"));
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 110 };
    let body = serde_saphyr::to_string_with_options(&value, options).expect("plain JSON is YAML");
    format!(
        "# Made from crds/api by: {COMMAND}\n# Change the types there, not this file.\n{}\n",
        body.trim_end()
    )
}

/// What brings the files up to date.
const COMMAND: &str = "cargo run -p rulecast-api --features crdgen --bin crdgen -- crds/yaml";

/// Sorts keys, whatever features of `serde_json` somebody else in the build turns on, and writes whole numbers as such
/// (limits are floating point in Kubernetes' types).
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                entries.into_iter().map(|(key, value)| (key, canonical(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        Value::Number(number) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53: exact")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9.1e15 => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{crds, file_name};

    #[test]
    fn committed_files_are_up_to_date() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../yaml");
        for crd in crds() {
            let name = file_name(&crd);
            let committed = std::fs::read_to_string(dir.join(&name)).unwrap_or_default();
            assert!(committed == yaml(&crd), "crds/yaml/{name} is out of date. Run: {COMMAND}");
        }
    }

    #[test]
    fn kustomization_lists_exactly_the_kinds() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../yaml/kustomization.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let mut listed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("- ")).collect();
        let mut kinds: Vec<_> = crds().iter().map(file_name).collect();
        listed.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(listed, kinds);
    }
}
