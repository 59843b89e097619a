//! What was asked of an API server: for the sentences about its answer.

use std::fmt;

use kube::Resource;

/// A verb of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reads one object.
    Get,
    /// Reads all objects.
    List,
    /// Changes one object.
    Patch,
    /// Makes one object.
    Create,
}

impl Verb {
    /// As RBAC writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Create => "create",
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) verb: Verb,
    pub(super) kind: String,
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Request {
    /// About objects of a kind.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(verb: Verb) -> Self {
        Self {
            verb,
            kind: K::kind(&()).into_owned(),
            group: K::group(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            namespace: None,
            name: None,
        }
    }

    /// About objects that no type is for, such as `pods/log`.
    pub(crate) fn about(verb: Verb, kind: &str, group: &str, plural: &str) -> Self {
        Self {
            verb,
            kind: kind.into(),
            group: group.into(),
            plural: plural.into(),
            namespace: None,
            name: None,
        }
    }

    /// The same about one object.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// The same in one namespace.
    pub(crate) fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The resource as `kubectl auth can-i` takes it.
    pub(super) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.as_str(), self.resource())?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in namespace {namespace}")?;
        }
        Ok(())
    }
}
