//! The definitions as the API server takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{RuleBundle, RuleChunk, RuleNode, RulePool, RuleRevision};

/// The definitions of all kinds.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [RulePool::crd(), RuleRevision::crd(), RuleBundle::crd(), RuleChunk::crd(), RuleNode::crd()]
        .into_iter()
        .map(|mut crd| {
            for version in &mut crd.spec.versions {
                if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
                    plain(schema);
                }
            }
            crd
        })
        .collect()
}

/// The name of a definition's file in `crds/yaml`.
#[must_use]
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.yaml", crd.spec.names.plural)
}

/// Turns what schemars says of Rust's types into what Kubernetes knows.
fn plain(schema: &mut JSONSchemaProps) {
    // Left out is the one way to say nothing. A null would be stored, and sent to whoever watches.
    schema.nullable = None;
    schema.title = None;
    // Lines are broken where the source needs it; kubectl explain breaks them for the reader's terminal.
    if let Some(text) = &mut schema.description {
        *text =
            text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    // Kubernetes has no unsigned formats and warns of them; the minimum says the same.
    if let Some(format) = &mut schema.format
        && format.starts_with("uint")
    {
        "int64".clone_into(format);
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        plain(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => plain(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(plain),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        plain(values);
    }
}
