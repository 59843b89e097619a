//! The fields of a configuration file, by path, with the lines they stand in.

use std::collections::BTreeMap;
use std::fmt;

use rulecast_api::Duration;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// All fields that are no mappings themselves. Whoever understands a field takes it; what is left was not understood.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Leaves(BTreeMap<String, Leaf>);

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// Its path, such as `iptables.masqueradeBit`.
    pub(super) path: String,
    /// The line of its key, from 1.
    pub(super) line: u64,
    value: Value,
}

/// What a YAML value is, with the lines of its keys.
enum Tree {
    Scalar(Value),
    List(Vec<Tree>),
    Mapping(Vec<(String, u64, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Tree>()? {
            fields.push((key.value, key.referenced.line(), value));
        }
        Ok(Tree::Mapping(fields))
    }
}

impl Tree {
    fn into_value(self) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Mapping(fields) => {
                fields.into_iter().map(|(key, _, tree)| (key, tree.into_value())).collect()
            }
        }
    }
}

/// A field that has no meaning. kube-proxy does not start with it either.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    field: String,
    line: u64,
    problem: String,
}

impl Wrong {
    /// That a field is missing.
    pub(super) fn missing(field: String, problem: String) -> Self {
        Self { field, line: 0, problem }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Wrong {}

impl Leaves {
    /// Reads a document.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { with_snippet: false };
        let tree: Tree = serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
        let mut leaves = Self::default();
        leaves.add(String::new(), 1, tree);
        Ok(leaves)
    }

    fn add(&mut self, path: String, line: u64, tree: Tree) {
        match tree {
            Tree::Mapping(fields) => {
                for (key, line, tree) in fields {
                    self.add(if path.is_empty() { key } else { format!("{path}.{key}") }, line, tree);
                }
            }
            other => {
                self.0.insert(path.clone(), Leaf { path, line, value: other.into_value() });
            }
        }
    }

    /// Takes a field that is there and not null. Zero may mean something else than nothing.
    pub(super) fn given(&mut self, path: &str) -> Option<Leaf> {
        self.0.remove(path).filter(|leaf| !leaf.value.is_null())
    }

    /// Takes a field that is not the zero value. Go writes its zero values and reads them as nothing.
    pub(super) fn nonzero(&mut self, path: &str) -> Option<Leaf> {
        self.0.remove(path).filter(|leaf| !leaf.is_zero())
    }

    /// Takes all fields below `path`, and `path` itself; none of zero value.
    pub(super) fn below(&mut self, path: &str) -> Vec<Leaf> {
        self.given_below(path).into_iter().filter(|leaf| !leaf.is_zero()).collect()
    }

    /// Takes all fields below `path`, and `path` itself; none that is null.
    pub(super) fn given_below(&mut self, path: &str) -> Vec<Leaf> {
        let inside =
            |p: &String| p.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let paths: Vec<String> = self.0.keys().filter(|p| inside(p)).cloned().collect();
        paths.iter().filter_map(|path| self.given(path)).collect()
    }

    /// What nobody took, by line.
    pub(super) fn rest(self) -> Vec<Leaf> {
        let mut rest: Vec<Leaf> = self.0.into_values().collect();
        rest.sort_by_key(|leaf| leaf.line);
        rest
    }
}

impl Leaf {
    fn is_zero(&self) -> bool {
        match &self.value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(s) => matches!(s.as_str(), "" | "0" | "0s"),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        }
    }

    /// That this field is wrong.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> Wrong {
        Wrong { field: self.path.clone(), line: self.line, problem: problem.into() }
    }

    /// The value, as the report shows it.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items = items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned));
                items.collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        }
    }

    pub(super) fn text(&self) -> Result<&str, Wrong> {
        self.value
            .as_str()
            .ok_or_else(|| self.wrong(format!("{} is not a text; put it in quotes", self.value)))
    }

    pub(super) fn bool(&self) -> Result<bool, Wrong> {
        self.value.as_bool().ok_or_else(|| self.wrong(format!("{} is not true or false", self.value)))
    }

    /// A whole number up to `max`.
    pub(super) fn number(&self, max: u32) -> Result<u32, Wrong> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
        number.ok_or_else(|| self.wrong(format!("{} is not a whole number from 0 to {max}", self.value)))
    }

    pub(super) fn duration(&self) -> Result<Duration, Wrong> {
        let wrong = || self.wrong(format!("{} is not a duration such as \"30s\" or \"24h0m0s\"", self.value));
        self.value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)
    }

    pub(super) fn list(&self) -> Result<Vec<&str>, Wrong> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("is not a list"))?;
        items
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong("is not a list of texts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_have_paths_and_lines_and_are_taken_once() {
        let text = "a: 1\nb:\n  c: x\n  d: [p, q]\n  e: null\n\nf: {}\ng: yes\n";
        let mut leaves = Leaves::read(text).unwrap();
        let c = leaves.given("b.c").unwrap();
        assert_eq!((c.line, c.text().unwrap()), (3, "x"));
        assert!(leaves.given("b.c").is_none());
        assert!(leaves.given("b.e").is_none());
        assert_eq!(leaves.given("b.d").unwrap().list().unwrap(), ["p", "q"]);
        assert!(leaves.nonzero("g").unwrap().bool().unwrap(), "kube-proxy's YAML is 1.1");
        assert_eq!(leaves.rest().iter().map(|l| l.path.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn two_fields_of_one_name_are_refused() {
        assert!(Leaves::read("a: 1\na: 2\n").unwrap_err().contains("line 2"));
    }
}
