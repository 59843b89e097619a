//! What the controller and the nodes would write.

use serde_json::{Value, json};

/// The digest of the sample revision of this number.
pub(crate) fn digest(number: u64) -> String {
    format!("shape-{number}-").repeat(4)[..27].to_owned()
}

/// The digest of the bundle at this sequence.
pub(crate) fn bundle_digest(sequence: u64) -> String {
    format!("bundle-{sequence}-").repeat(4)[..27].to_owned()
}

/// `2026-01-01T00:00:00Z` and so many minutes.
fn at(minutes: u64) -> String {
    format!("2026-01-01T{:02}:{:02}:00Z", minutes / 60, minutes % 60)
}

/// A release of a revision.
pub(crate) fn release(revision: u64, sequence: u64) -> Value {
    json!({
        "revision": revision, "digest": digest(revision), "sequence": sequence, "at": at(sequence),
        "reason": "Automatic",
    })
}

/// A condition.
pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(0),
    })
}

/// A pool whose revision is live since the sequence of its last release, at sequence 40; `more` overrides fields of its
/// status.
pub(crate) fn pool(name: &str, spec: &Value, live: u64, more: &Value) -> Value {
    let releases: Vec<_> = (1..=live).rev().map(|revision| release(revision, revision * 10)).collect();
    let mut status = json!({
        "observedGeneration": 1, "sequence": 40, "digest": bundle_digest(40), "revision": live, "shape": digest(live),
        "releases": releases, "services": 3, "endpoints": 7, "groups": 6, "records": 20, "epoch": 0,
        "checkpointBytes": 1000, "quarantinedCount": 0,
        "conditions": [
            condition("Ready", "True", "Published", "3 Services are served"),
            condition("Synced", "True", "AllInputsRead", ""),
            condition("Accepted", "True", "Accepted", ""),
        ],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        status[field] = value.clone();
    }
    json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": name }, "spec": spec,
        "status": status,
    })
}

/// A head.
pub(crate) fn bundle(pool: &str, sequence: u64) -> Value {
    json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleBundle", "metadata": { "name": pool },
        "spec": { "sequence": sequence, "digest": bundle_digest(sequence), "checkpoint": "0".repeat(32) },
    })
}

/// A revision.
pub(crate) fn revision(pool: &str, number: u64) -> Value {
    let mut spec = json!({
        "pool": pool, "number": number, "digest": digest(number), "created": at(number), "services": 3,
        "cause": [format!("Service prod/web-{number}"), "RulePool default"],
        "summary": [format!("+ Service prod/web-{number}: 10.96.0.{number}:80/TCP")],
        "chunks": ["0".repeat(32)], "sizeBytes": 1234,
    });
    if number > 1 {
        spec["parent"] = json!(number - 1);
    }
    json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleRevision",
        "metadata": { "name": format!("{pool}-{number}") }, "spec": spec,
    })
}

/// A node's report, of what is published at this sequence; `more` overrides fields of its status.
pub(crate) fn report(name: &str, pool: &str, sequence: u64, more: &Value) -> Value {
    let mut status = json!({
        "pool": pool, "mode": "nftables", "sequence": sequence, "digest": bundle_digest(sequence), "version": "0.1.0",
        "appliedAt": "2026-01-01T01:00:00.000000Z",
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        status[field] = value.clone();
    }
    json!({
        "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleNode", "metadata": { "name": name }, "status": status,
    })
}

/// A Node.
pub(crate) fn node(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } })
}

/// The pool `default` with revisions 1 to 3, 3 live, and two current nodes.
pub(crate) fn healthy() -> Vec<Value> {
    let none = json!({});
    vec![
        pool("default", &none, 3, &none),
        bundle("default", 40),
        revision("default", 1),
        revision("default", 2),
        revision("default", 3),
        node("node-a", &none),
        node("node-b", &none),
        report("node-a", "default", 40, &none),
        report("node-b", "default", 40, &none),
    ]
}
