//! What is different between two bundles, by object.

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Bundle, Key, Value};
use serde::Serialize;

/// One record that is not the same.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// The object that it comes from.
    pub(super) object: String,
    /// Which record.
    pub(super) record: String,
    /// What is different.
    pub(super) what: String,
}

impl Difference {
    pub(super) fn of(object: impl Into<String>, record: impl Into<String>, what: impl Into<String>) -> Self {
        Self { object: object.into(), record: record.into(), what: what.into() }
    }
}

/// What is published beside what the objects compile to.
pub(super) fn compare(published: &Bundle, expected: &Bundle, pool: &str) -> Vec<Difference> {
    let changes = published.diff(expected);
    let one = |change: &rulecast_bundle::Change| {
        let before = published.get(&change.key);
        let what = match (&before, &change.value) {
            (Some(_), Some(_)) => "is published with another content",
            (None, _) => "is not published",
            (_, None) => "is published, and no object asks for it",
        };
        let value = before.as_ref().or(change.value.as_ref());
        Difference::of(object(&change.key, value, [published, expected], pool), record(&change.key), what)
    };
    changes.iter().map(one).collect()
}

/// The object that a record comes from.
fn object(key: &Key, value: Option<&Value>, bundles: [&Bundle; 2], pool: &str) -> String {
    let owner = match (key, value) {
        (Key::Member { group, .. }, _) => {
            let group = bundles.iter().find_map(|bundle| bundle.get(&Key::Group(*group)));
            group.and_then(|group| group.owner().map(str::to_owned))
        }
        (Key::Node(_), Some(Value::Node(fact))) => return format!("Node {}", fact.name),
        (_, Some(value)) => value.owner().map(str::to_owned),
        _ => None,
    };
    owner.map_or_else(|| format!("RulePool {pool}"), |owner| format!("Service {owner}"))
}

fn record(key: &Key) -> String {
    match key {
        Key::Rules(family) => format!("rules of {}", if *family == Family::V4 { "IPv4" } else { "IPv6" }),
        Key::Node(_) => "what the node is told of itself".to_owned(),
        Key::Element { set, parts, .. } => format!("element of {set}: {parts:?}"),
        Key::HealthCheck(port) => format!("healthCheckNodePort {port}"),
        Key::Options(family) => {
            format!("options of {}", if *family == Family::V4 { "IPv4" } else { "IPv6" })
        }
        Key::Settings => "settings".to_owned(),
        Key::Group(id) => format!("target {id}"),
        Key::Member { group, scope, port, addr } => {
            let endpoint = std::net::SocketAddr::new(*addr, *port);
            let scope = match scope {
                rulecast_bundle::Scope::All => "for all nodes",
                rulecast_bundle::Scope::Zone(_) => "for a zone",
                rulecast_bundle::Scope::Node(_) => "for one node",
                rulecast_bundle::Scope::Serving => "still serving",
            };
            format!("endpoint {endpoint} of {group}, {scope}")
        }
    }
}

#[cfg(test)]
mod tests {
    use rulecast_bundle::{Change, Empty, Group, GroupId, GroupKind, Member, NodeFact, Proto, Scope, Tag};

    use super::*;

    fn bundle(members: &[u8], node: Option<&str>) -> Bundle {
        let id = GroupId {
            addr: "10.96.0.1".parse().unwrap(),
            port: 80,
            proto: Proto::Tcp,
            kind: GroupKind::Cluster,
        };
        let group = Group {
            owner: "prod/web".into(),
            port_name: String::new(),
            empty: Empty::Reject,
            affinity: None,
            keys: Vec::new(),
        };
        let mut changes = vec![Change { key: Key::Group(id), value: Some(Value::Group(group)) }];
        changes.extend(members.iter().map(|last| Change {
            key: Key::Member { group: id, scope: Scope::All, port: 8080, addr: [10, 0, 0, *last].into() },
            value: Some(Value::Member(Member::default())),
        }));
        changes.extend(node.map(|name| Change {
            key: Key::Node(Tag::of(name)),
            value: Some(Value::Node(NodeFact { name: name.into(), ..NodeFact::default() })),
        }));
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let mut bundle = Bundle::default();
        let _final = bundle.apply(&changes).unwrap();
        bundle
    }

    #[test]
    fn differences_name_the_object() {
        let found = compare(&bundle(&[1, 2], Some("node-a")), &bundle(&[2, 3], None), "default");
        let mut brief: Vec<_> =
            found.iter().map(|d| format!("{}: {} {}", d.object, d.record, d.what)).collect();
        brief.sort();
        assert_eq!(
            brief,
            [
                "Node node-a: what the node is told of itself is published, and no object asks for it",
                "Service prod/web: endpoint 10.0.0.1:8080 of 10.96.0.1:80/TCP, for all nodes is published, and no object asks for it",
                "Service prod/web: endpoint 10.0.0.3:8080 of 10.96.0.1:80/TCP, for all nodes is not published",
            ]
        );
    }
}
