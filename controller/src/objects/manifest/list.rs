//! What can be told of YAML without parsing it: the items of a list, and the kind of an object.
//!
//! Only of the form in which kubectl prints. Of any other nothing is told, and the parser says what it is.

use std::collections::BTreeMap;

use super::Form;

/// The items of a list, each as a sequence of one; none: it is no list in kubectl's form. Then every line of the outermost
/// level is a key, or begins an item below `items:`, and whatever is inside an item is indented.
pub(super) fn items(text: &str) -> Option<Vec<&str>> {
    // Aliases may lead from one item into another.
    if [": &", ": *", "- &", "- *"].iter().any(|sign| text.contains(sign)) {
        return None;
    }
    let (mut at, mut starts, mut end) = (0, Vec::new(), None);
    let mut keys = BTreeMap::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with("- ") {
            if !keys.contains_key("items") || end.is_some() {
                return None;
            }
            starts.push(at);
        } else if !line.trim().is_empty() && !line.starts_with("  ") {
            let (key, value) = line.split_once(':')?;
            let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic());
            if keys.contains_key("items") {
                end.get_or_insert(at);
            }
            if !plain || keys.insert(key, value.trim()).is_some() {
                return None;
            }
        }
        at += line.len();
    }
    let is_list = keys.get("kind")?.ends_with("List") && keys.contains_key("apiVersion");
    if !is_list || starts.is_empty() || !keys.get("items")?.is_empty() {
        return None;
    }
    let ends = starts.iter().skip(1).copied().chain([end.unwrap_or(text.len())]);
    Some(starts.iter().zip(ends).map(|(from, to)| &text[*from..to]).collect())
}

/// Whether an object is of this kind, as far as a glance tells: it is written in block style, and one line of its
/// outermost level says so. Text inside of values is always indented there.
pub(super) fn is_evidently(text: &str, form: Form, kind: &str) -> bool {
    // A list's item is indented, its first line by the dash.
    let outermost = |line| match form {
        Form::Yaml => Some(line),
        Form::YamlItem => str::strip_prefix(line, "  ").or_else(|| line.strip_prefix("- ")),
        Form::Json => None,
    };
    let mut kinds = 0;
    for line in text.lines().filter_map(outermost) {
        if let Some(found) = line.strip_prefix("kind:") {
            if found.trim() != kind {
                return false;
            }
            kinds += 1;
        }
        if line.starts_with(['{', '"', '\'', '[', '?', '&', '!', '|', '>']) {
            return false;
        }
    }
    kinds == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str =
        "- apiVersion: v1\n  kind: Service\n  metadata:\n    name: a\n  spec:\n    ports:\n    - port: 80\n";

    #[test]
    fn items_are_those_that_kubectl_prints() {
        let list =
            format!("apiVersion: v1\nitems:\n{ITEM}{ITEM}kind: List\nmetadata:\n  resourceVersion: \"\"\n");
        assert_eq!(items(&list).unwrap(), [ITEM, ITEM]);
        let last = format!("kind: ServiceList\napiVersion: v1\nitems:\n{ITEM}\n");
        assert_eq!(items(&last).unwrap(), [format!("{ITEM}\n")]);
        for other in [
            "",
            ITEM,
            "apiVersion: v1\nkind: List\nitems: []\n",
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n",
            &format!("apiVersion: v1\nitems:\n{ITEM}"),
            &format!("kind: List\nitems:\n{ITEM}"),
            &format!("apiVersion: v1\nkind: List\nother:\n{ITEM}"),
            &format!("apiVersion: v1\nkind: List\nitems:\n{ITEM}items:\n{ITEM}"),
            &format!("apiVersion: v1\nkind: List\nitems:\n{ITEM}other:\n{ITEM}"),
            &format!("apiVersion: v1\nkind: List\nitems:\n{ITEM}").replace("name: a", "name: &a a"),
            &format!("apiVersion: v1\nkind: List\nitems:\n{ITEM}\"x\": y\n"),
            &format!("{{a: b}}\nkind: List\nitems:\n{ITEM}"),
        ] {
            assert_eq!(items(other), None, "{other}");
        }
    }

    #[test]
    fn kinds_are_told_at_a_glance() {
        let item = ITEM.replace("Service", "EndpointSlice");
        assert!(is_evidently(&item, Form::YamlItem, "EndpointSlice"));
        assert!(!is_evidently(ITEM, Form::YamlItem, "EndpointSlice"));
        let document = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nports:\n- name: x\n";
        assert!(is_evidently(document, Form::Yaml, "EndpointSlice"));
        for other in [
            document.replace("kind", "  kind"),
            document.replace("EndpointSlice", "Service"),
            format!("{document}kind: Service\n"),
            format!("{document}\"kind\": Service\n"),
            format!("{{{document}}}"),
        ] {
            assert!(!is_evidently(&other, Form::Yaml, "EndpointSlice"), "{other}");
        }
        assert!(!is_evidently("{\n\"kind\": \"EndpointSlice\"\n}", Form::Json, "EndpointSlice"));
    }
}
