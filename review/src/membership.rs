//! Which endpoints Services have on one side only. This is not part of a shape: it changes all the time, and is live.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rulecast_bundle::{Bundle, GroupId, GroupKind, Key, Member, Scope, Tag, Value};
use serde::Serialize;

use crate::plain::plain;

/// What is different between the endpoints of two bundles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MembershipDifference {
    /// Services whose endpoints differ, sorted by name.
    pub services: Vec<MembershipChange>,
}

/// A Service whose endpoints differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembershipChange {
    /// The Service, as namespace/name.
    pub service: String,
    /// Its endpoints that differ, by port and address.
    pub endpoints: Vec<EndpointChange>,
}

/// An endpoint of a Service port that is different.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EndpointChange {
    /// The Service port, by its name or as `80/TCP`.
    pub port: String,
    /// Where the endpoint listens.
    pub endpoint: SocketAddr,
    /// For which nodes it was used; none: for no node. Nodes are named where the bundle has a fact of them; zones and other
    /// nodes are told by their tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// For which nodes it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl MembershipDifference {
    /// Whether the endpoints are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

impl EndpointChange {
    pub(crate) fn line(&self) -> String {
        let place = plain(&format!("port {}: ", self.port));
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("{place}{} for {before} -> {after}", self.endpoint),
            (Some(before), None) => format!("{place}-{} for {before}", self.endpoint),
            (None, Some(after)) => format!("{place}+{} for {after}", self.endpoint),
            (None, None) => format!("{place}{}", self.endpoint),
        }
    }
}

/// A Service, its port, and an endpoint. The port's number is not part of it: a port that moves keeps its endpoints.
type Place = (String, String, SocketAddr);

/// Compares the endpoints of two bundles. A Service that is on one side only has all of its endpoints on that side.
#[must_use]
pub fn membership(from: &Bundle, to: &Bundle) -> MembershipDifference {
    let sides = [Side::new(from), Side::new(to)];
    let mut places: BTreeMap<Place, [BTreeSet<String>; 2]> = BTreeMap::new();
    for change in from.diff(to) {
        for (side, at) in sides.iter().zip(0..) {
            if let Some((place, scope)) = side.place(&change.key) {
                places.entry(place).or_default()[at].insert(scope);
            }
        }
    }
    let mut services: BTreeMap<String, Vec<EndpointChange>> = BTreeMap::new();
    for ((service, port, endpoint), scopes) in places {
        let [before, after] = scopes.map(|scopes| {
            let words: Vec<String> = scopes.into_iter().collect();
            (!words.is_empty()).then(|| words.join("; "))
        });
        if before != after {
            services.entry(service).or_default().push(EndpointChange { port, endpoint, before, after });
        }
    }
    let services = services.into_iter().map(|(service, endpoints)| MembershipChange { service, endpoints });
    MembershipDifference { services: services.collect() }
}

struct Side<'a> {
    bundle: &'a Bundle,
    /// Names of nodes, as far as there are facts.
    nodes: BTreeMap<Tag, String>,
    /// The same by [`Tag::short`].
    hosts: BTreeMap<u32, String>,
}

impl<'a> Side<'a> {
    fn new(bundle: &'a Bundle) -> Self {
        let fact = |(key, value)| match (key, value) {
            (Key::Node(tag), Value::Node(fact)) => Some((tag, plain(&fact.name))),
            _ => None,
        };
        let nodes: BTreeMap<Tag, String> = bundle.iter().filter_map(fact).collect();
        let hosts = nodes.iter().map(|(tag, name)| (tag.short(), name.clone())).collect();
        Self { bundle, nodes, hosts }
    }

    /// The endpoint that a member record of this side is, and for which nodes.
    fn place(&self, key: &Key) -> Option<(Place, String)> {
        let Key::Member { group, scope, port, addr } = key else { return None };
        let Value::Member(member) = self.bundle.get(key)? else { return None };
        let (service, name) = self.group(*group)?;
        Some(((service, name, SocketAddr::new(*addr, *port)), self.scope(*scope, member)))
    }

    /// The Service and port that a target is of.
    fn group(&self, id: GroupId) -> Option<(String, String)> {
        let Value::Group(group) = self.bundle.get(&Key::Group(id))? else { return None };
        let mut port = group.port_name;
        if port.is_empty() {
            port = format!("{}/{}", id.port, id.proto);
        }
        if id.kind == GroupKind::Local {
            port.push_str(" (local)");
        }
        Some((group.owner, port))
    }

    fn scope(&self, scope: Scope, member: Member) -> String {
        let nodes = match scope {
            Scope::All => "all nodes".to_owned(),
            Scope::Zone(tag) => format!("zone {:016x}", tag.0),
            Scope::Node(tag) => self.node(tag),
            Scope::Serving => "UDP flows that are there".to_owned(),
        };
        let state = if member.terminating { " (terminating)" } else { "" };
        format!("{nodes}{state}{}", self.host(member.node))
    }

    fn node(&self, tag: Tag) -> String {
        self.nodes.get(&tag).map_or_else(|| format!("node {:016x}", tag.0), |name| format!("node {name}"))
    }

    /// The node that an endpoint runs on.
    fn host(&self, short: u32) -> String {
        match self.hosts.get(&short) {
            _ if short == 0 => String::new(),
            Some(name) => format!(", runs on {name}"),
            None => format!(", runs on {short:08x}"),
        }
    }
}
