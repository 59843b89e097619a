//! Which endpoints Services have on one side only. This is not part of a shape: it changes all the time, and is live.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::{Bundle, GroupId, Key, Scope, Tag, Value};
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

/// One endpoint of a Service port.
type Place = (GroupId, IpAddr, u16);

/// Compares the endpoints of two bundles. A Service that is on one side only has all of its endpoints on that side.
#[must_use]
pub fn membership(from: &Bundle, to: &Bundle) -> MembershipDifference {
    let mut places: BTreeMap<Place, BTreeSet<Scope>> = BTreeMap::new();
    for change in from.diff(to) {
        if let Key::Member { group, scope, port, addr } = change.key {
            places.entry((group, addr, port)).or_default().insert(scope);
        }
    }
    let mut services: BTreeMap<String, Vec<EndpointChange>> = BTreeMap::new();
    let sides = [Side::new(from), Side::new(to)];
    for (place, scopes) in places {
        let [before, after] = sides.each_ref().map(|side| side.scopes(place, &scopes));
        let named = sides.iter().rev().find_map(|side| side.group(place.0));
        let (service, port) = named.unwrap_or_else(|| ("?".to_owned(), place.0.to_string()));
        let endpoint = SocketAddr::new(place.1, place.2);
        services.entry(service).or_default().push(EndpointChange { port, endpoint, before, after });
    }
    let sorted = |(service, mut endpoints): (String, Vec<EndpointChange>)| {
        endpoints.sort_unstable();
        MembershipChange { service, endpoints }
    };
    MembershipDifference { services: services.into_iter().map(sorted).collect() }
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

    /// The Service and port that a target is of.
    fn group(&self, id: GroupId) -> Option<(String, String)> {
        let Some(Value::Group(group)) = self.bundle.get(&Key::Group(id)) else { return None };
        let mut port =
            if group.port_name.is_empty() { format!("{}/{}", id.port, id.proto) } else { group.port_name };
        if id.kind == rulecast_bundle::GroupKind::Local {
            port.push_str(" (local)");
        }
        Some((group.owner, port))
    }

    /// Those of the scopes in which the endpoint is, in words.
    fn scopes(&self, (group, addr, port): Place, scopes: &BTreeSet<Scope>) -> Option<String> {
        let word = |scope: &Scope| {
            let key = Key::Member { group, scope: *scope, port, addr };
            let Some(Value::Member(member)) = self.bundle.get(&key) else { return None };
            let word = match scope {
                Scope::All => "all nodes".to_owned(),
                Scope::Zone(tag) => format!("zone {:016x}", tag.0),
                Scope::Node(tag) => self.node(*tag),
                Scope::Serving => "UDP flows that are there".to_owned(),
            };
            let state = if member.terminating { " (terminating)" } else { "" };
            Some(format!("{word}{state}{}", self.host(member.node)))
        };
        let words: Vec<String> = scopes.iter().filter_map(word).collect();
        (!words.is_empty()).then(|| words.join("; "))
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
