//! What all conversions share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use super::{Content, Kind, Object, ObjectId};

/// Why an object cannot be used. Its previous version stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {field}: {problem}")]
pub struct ConvertError {
    /// The object.
    pub id: ObjectId,
    /// The field, such as `spec.ports[1].port`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A field that is wrong, before it is known in which object.
pub(crate) struct Wrong {
    field: String,
    problem: String,
}

impl Wrong {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// An object as it is read, which becomes one that the compiler takes.
pub(crate) trait Convert: Sized {
    const KIND: Kind;

    fn metadata(&self) -> &ObjectMeta;

    /// What it says; adds to `warnings` what was left out.
    fn content(self, warnings: &mut Vec<String>) -> Result<Content, Wrong>;

    fn convert(self) -> Result<Object, ConvertError> {
        let id = ObjectId::new(Self::KIND, key(Self::KIND, self.metadata()));
        let mut warnings = Vec::new();
        match self.content(&mut warnings) {
            Ok(content) => Ok(Object { id, content, warnings }),
            Err(Wrong { field, problem }) => Err(ConvertError { id, field, problem }),
        }
    }
}

/// An object's name in its kind, as [`ObjectId`] has it.
pub(crate) fn key(kind: Kind, metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match kind {
        Kind::Service | Kind::EndpointSlice => {
            format!("{}/{name}", metadata.namespace.as_deref().unwrap_or("default"))
        }
        _ => name.to_owned(),
    }
}

pub(crate) fn has_label(metadata: &ObjectMeta, label: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// Reads null as the default: Go writes its empty lists and maps so.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}
