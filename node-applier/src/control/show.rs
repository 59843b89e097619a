//! `rulecast-node show`: what is in force of a Service, or how much of everything.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::{Empty, Group, GroupId, GroupKind, Key, LaneKey, Value};
use serde::{Deserialize, Serialize};

use super::Look;
use crate::backend::BackendError;
use crate::hold::{Effective, Mask};
use crate::render::{self, Rules};
use crate::view::{Records, Target, View};

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Services.
    pub services: usize,
    /// Their ports, those of both address families and with endpoints of their own for policy Local.
    pub service_ports: usize,
    /// Endpoints that this node uses.
    pub endpoints: usize,
    /// Ranges of load balancers' sources.
    pub source_ranges: usize,
    /// Nodes of the pool.
    pub nodes: usize,
}

/// A Service, as this node serves it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// NAMESPACE/NAME.
    pub service: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Where load balancers ask how many of its endpoints are on this node.
    pub health_check_node_ports: Vec<u16>,
}

/// One port and one list of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The port's name.
    pub name: String,
    /// Cluster IP and port.
    pub cluster: String,
    /// The protocol.
    pub protocol: String,
    /// Those of this node alone (policy Local), or all.
    pub list: String,
    /// What happens to new connections without endpoints.
    pub without_endpoints: String,
    /// Seconds for which a client keeps its endpoint.
    pub affinity_seconds: Option<u32>,
    /// The published version does not have it: it is held, and its endpoints are last known.
    pub last_known: bool,
    /// Where it answers.
    pub answers: Vec<Frontend>,
    /// The endpoints that this node uses.
    pub endpoints: Vec<Endpoint>,
}

/// An address or a nodePort that a Service answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frontend {
    /// Why: as the rules name it.
    pub lane: String,
    /// The address; none: a nodePort.
    pub address: Option<String>,
    /// The port.
    pub port: u16,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Address and port.
    pub address: String,
    /// It runs on this node.
    pub local: bool,
    /// It is terminating, and used because nothing better is there.
    pub terminating: bool,
}

/// How much is in force.
#[must_use]
pub fn totals(look: Look<'_>) -> Totals {
    let mut services = BTreeSet::new();
    groups(look, |_, group| {
        services.insert(group.owner);
    });
    Totals {
        services: services.len(),
        service_ports: look.view.counts().targets,
        endpoints: look.view.counts().members,
        source_ranges: look.view.elements().len(),
        nodes: look.view.nodes(),
    }
}

/// A Service by NAMESPACE/NAME; none: it is not in force.
#[must_use]
pub fn service(look: Look<'_>, name: &str) -> Option<Service> {
    let mut service = Service { service: name.to_owned(), ..Service::default() };
    groups(look, |id, group| {
        if group.owner == name {
            service.ports.push(port(look, id, group));
        }
    });
    let checks = look.view.health_checks().filter(|(_, owner, _)| *owner == name);
    service.health_check_node_ports = checks.map(|(port, ..)| port).collect();
    (!service.ports.is_empty()).then_some(service)
}

/// The rules as the mode's tools have them after a start, or those of one Service among the fixed ones; none: it is not in force.
pub fn rules(
    look: Look<'_>,
    service: Option<&str>,
    node_addrs: &[IpAddr],
) -> Result<Option<Rules>, BackendError> {
    let none = Mask::default();
    let all = Effective { published: look.published, mask: look.mask().unwrap_or(&none) };
    let Some(name) = service else { return render::render(look.view, node_addrs).map(Some) };
    let mut ids = BTreeSet::new();
    groups(look, |id, group| {
        if group.owner == name {
            ids.insert(id);
        }
    });
    if ids.is_empty() {
        return Ok(None);
    }
    let view = View::new(look.node, &OneService { all, name, ids });
    render::render(&view, node_addrs).map(Some)
}

/// The records of one Service, and those that are no Service's.
struct OneService<'a> {
    all: Effective<'a>,
    name: &'a str,
    ids: BTreeSet<GroupId>,
}

impl OneService<'_> {
    fn has(&self, key: &Key, value: &Value) -> bool {
        match (key.group(), value) {
            (Some(group), _) => self.ids.contains(&group),
            (None, Value::Element { owner }) => owner == self.name,
            (None, Value::HealthCheck(check)) => check.owner == self.name,
            (None, _) => true,
        }
    }
}

impl Records for OneService<'_> {
    fn get(&self, key: &Key) -> Option<Value> {
        self.all.get(key).filter(|value| self.has(key, value))
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Value)> {
        self.all.iter().filter(|(key, value)| self.has(key, value))
    }
}

fn groups(look: Look<'_>, mut each: impl FnMut(GroupId, Group)) {
    let none = Mask::default();
    let effective = Effective { published: look.published, mask: look.mask().unwrap_or(&none) };
    for (key, value) in effective.iter() {
        if let (Key::Group(id), Value::Group(group)) = (key, value) {
            each(id, group);
        }
    }
}

fn port(look: Look<'_>, id: GroupId, group: Group) -> Port {
    let members = look.view.target(&id).map(Target::members).unwrap_or_default();
    let endpoints = members.iter().map(|member| Endpoint {
        address: std::net::SocketAddr::new(member.endpoint.addr, member.endpoint.port).to_string(),
        local: member.own,
        terminating: member.terminating,
    });
    Port {
        name: group.port_name,
        cluster: std::net::SocketAddr::new(id.addr, id.port).to_string(),
        protocol: id.proto.to_string(),
        list: if id.kind == GroupKind::Local { "local" } else { "all" }.to_owned(),
        without_endpoints: if group.empty == Empty::Drop { "drop" } else { "reject" }.to_owned(),
        affinity_seconds: group.affinity,
        last_known: look.published.get(&Key::Group(id)).is_none(),
        answers: group.keys.iter().map(frontend).collect(),
        endpoints: endpoints.collect(),
    }
}

fn frontend(key: &LaneKey) -> Frontend {
    let lane =
        rulecast_bundle::Lane::of(key.lane).map_or_else(|| key.lane.to_string(), |lane| format!("{lane:?}"));
    Frontend { lane, address: key.addr.map(|addr| addr.to_string()), port: key.port }
}
