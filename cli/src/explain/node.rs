//! What one node makes of a Service.

use rulecast_bundle::{Bundle, Key, Scope, Tag};
use rulecast_node::view::View;

use super::targets::{Target, when_empty};
use crate::check::Section;
use crate::fleet::{Fleet, NodeState, rows};

/// How many endpoints are named.
const NAMED: usize = 8;

/// How the node stands, and which pool it follows; without a pool only the former.
pub(super) fn pool_of(fleet: &Fleet, node: &str) -> Result<(Section, String), Section> {
    let mut section = Section::new(format!("node {node}"));
    let Some(row) = rows(fleet, None).into_iter().find(|row| row.node == node) else {
        let known = fleet.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(node));
        if known {
            section.bad(
                "no RulePool's nodeSelector matches it, and it has never reported",
                "kubectl rulecast nodes",
            );
        } else {
            section.bad("there is no such Node, and none reports under this name", "kubectl rulecast nodes");
        }
        return Err(section);
    };
    let fix = format!("kubectl rulecast nodes --pool {}", row.pool);
    match row.state {
        NodeState::Current => {
            section
                .good(format!("it runs what the pool {} has published, sequence {}", row.pool, row.sequence));
        }
        NodeState::Behind | NodeState::Held => section.advise(
            format!(
                "it may not run what follows yet: {} at sequence {}: {}",
                row.state.as_str(),
                row.sequence,
                row.why
            ),
            fix,
        ),
        state => section.bad(format!("it does not run what follows: {}: {}", state.as_str(), row.why), fix),
    }
    if row.pool.is_empty() { Err(section) } else { Ok((section, row.pool)) }
}

/// The bundle that a node of a wave follows instead of its pool's.
pub(super) fn bundle_of(fleet: &Fleet, node: &str) -> Option<String> {
    let row = rows(fleet, None).into_iter().find(|row| row.node == node && row.next)?;
    Some(rulecast_bundle::next_of(&row.pool))
}

/// Which list the node takes of each target, and what is in it.
pub(super) fn members(section: &mut Section, bundle: &Bundle, node: &str, targets: &[Target]) {
    let view = View::new(node, bundle);
    if bundle.get(&Key::Node(Tag::of(node))).is_none() {
        section.bad(
            "the bundle does not know this node: its zone and addresses are missing in what follows",
            "does the RulePool's nodeSelector match the Node's labels?",
        );
    }
    for target in targets {
        let members = view.target(&target.id).map(rulecast_node::view::Target::members).unwrap_or_default();
        let name = target.name();
        if members.is_empty() {
            let text = format!("{name}: no endpoint for this node, so {}", when_empty(target.group.empty));
            if target.scopes.is_empty() {
                section.bad(text, "see pods and EndpointSlices above");
            } else {
                section.advise(text, "a pod on this node, or another traffic policy");
            }
            continue;
        }
        let named: Vec<String> = members
            .iter()
            .take(NAMED)
            .map(|member| {
                let addr = std::net::SocketAddr::new(member.endpoint.addr, member.endpoint.port);
                let own = if member.own { " on this node" } else { "" };
                let ending = if member.terminating { " terminating" } else { "" };
                format!("{addr}{own}{ending}")
            })
            .collect();
        let more = if members.len() > NAMED {
            format!(" and {} more", members.len() - NAMED)
        } else {
            String::new()
        };
        section.good(format!("{name}: {}: {}{more}", list_of(target, &view, node), named.join(", ")));
    }
}

/// The list that counts: the most specific one that has a member wins as a whole.
fn list_of(target: &Target, view: &View, node: &str) -> &'static str {
    let has = |wanted: Scope| target.scopes.iter().any(|(scope, _)| *scope == wanted);
    if has(Scope::Node(Tag::of(node))) {
        "the node has a list of its own"
    } else if view.fact().zone.is_some_and(|zone| has(Scope::Zone(zone))) {
        "the node takes its zone's list"
    } else {
        "the node takes everybody's list"
    }
}
