//! Objects for tests.

use k8s_openapi::jiff::Timestamp;
use rulecast_api::{RuleNode, RulePool, RuleRevision};
use serde_json::{Value, json};

use super::{Fleet, Head};

/// A pool with these fields.
pub(crate) fn pool(name: &str, more: &Value) -> RulePool {
    let mut object = json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": name }, "spec": {},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// A report of a node of the pool `default`.
pub(crate) fn node(name: &str, status: &Value) -> RuleNode {
    let mut object = json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleNode", "metadata": { "name": name },
        "status": { "pool": "default" },
    });
    for (key, value) in status.as_object().into_iter().flatten() {
        object["status"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// A revision of the pool `default`; its digest is made of its number.
pub(crate) fn revision(number: u64) -> RuleRevision {
    serde_json::from_value(json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleRevision",
        "metadata": { "name": format!("default-{number}") },
        "spec": {
            "pool": "default", "number": number, "digest": digest(number), "created": "2026-01-01T00:00:00Z",
            "services": number, "chunks": ["0".repeat(32)], "sizeBytes": 100, "cause": [format!("Service a/s{number}")],
        },
    }))
    .unwrap()
}

/// The digest of the sample revision of this number.
pub(crate) fn digest(number: u64) -> String {
    format!("{number:027}")
}

/// The pool `default` at sequence 40, revision 3 live since 30, and two Nodes.
pub(crate) fn fleet() -> Fleet {
    let release = |revision: u64, sequence: u64| {
        json!({
            "revision": revision, "digest": digest(revision), "sequence": sequence,
            "at": format!("2026-01-01T00:{sequence:02}:00Z"), "reason": "Automatic",
        })
    };
    let status = json!({
        "sequence": 40, "revision": 3, "shape": digest(3), "digest": "d".repeat(27),
        "releases": [release(3, 30), release(2, 20), release(1, 1)],
    });
    let labels = || [("kubernetes.io/os".to_owned(), "linux".to_owned())].into();
    Fleet {
        pools: [("default".to_owned(), pool("default", &json!({ "status": status })))].into(),
        heads: [(
            "default".to_owned(),
            Head { epoch: 0, sequence: 40, digest: "d".repeat(27), written: None },
        )]
        .into(),
        reports: Vec::new(),
        nodes: Some([("node-a".to_owned(), labels()), ("node-b".to_owned(), labels())].into()),
        now: "2026-01-01T01:00:00Z".parse::<Timestamp>().unwrap(),
    }
}
