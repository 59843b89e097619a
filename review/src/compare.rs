//! What is different between two descriptions, field by field.

use std::collections::{BTreeMap, BTreeSet};

use rulecast_bundle::nft::text::prefix;
use serde::Serialize;

use crate::plain::plain;
use crate::service::{PortDescription, ServiceDescription, SessionAffinity};

/// One field, or one entry of a list, that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The field, such as `sessionAffinity`, `ports[http].nodePort` or, of a pool, `rules.ip.chain services`.
    pub path: String,
    /// What it was; none: this entry was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is; none: this entry is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl FieldChange {
    /// The path for people, fit to be printed: `port http nodePort` for `ports[http].nodePort`.
    pub(crate) fn place(&self) -> String {
        let place = match self.path.strip_prefix("ports[").and_then(|rest| rest.split_once(']')) {
            Some((port, field)) => format!("port {port}{}", field.replace('.', " ")),
            None => self.path.clone(),
        };
        plain(&place)
    }
}

/// Fields by path, each with its values: one, or those of a list.
#[derive(Default)]
pub(crate) struct Fields {
    /// In the order in which they were added.
    paths: Vec<String>,
    values: BTreeMap<String, Vec<String>>,
}

impl Fields {
    /// Adds values: of a field that has one, that; of a list, its entries.
    pub(crate) fn add(&mut self, path: &str, values: impl IntoIterator<Item: ToString>) {
        let mut values = values.into_iter().map(|value| value.to_string()).peekable();
        if values.peek().is_none() {
            return;
        }
        let known = self.values.entry(path.to_owned()).or_default();
        if known.is_empty() {
            self.paths.push(path.to_owned());
        }
        known.extend(values);
    }

    fn values(&self, path: &str) -> &[String] {
        self.values.get(path).map_or(&[], Vec::as_slice)
    }

    /// What is different in `after`. One entry in another's place is one change.
    pub(crate) fn compare(&self, after: &Self) -> Vec<FieldChange> {
        let mut seen = BTreeSet::new();
        let paths = after.paths.iter().chain(&self.paths).filter(|path| seen.insert(*path));
        paths.flat_map(|path| changes(path, self.values(path), after.values(path))).collect()
    }
}

fn changes(path: &str, before: &[String], after: &[String]) -> Vec<FieldChange> {
    let change = |before: Option<&String>, after: Option<&String>| FieldChange {
        path: path.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
    };
    if before == after {
        return Vec::new();
    }
    let (gone, came) = (missing(before, after), missing(after, before));
    match (gone.as_slice(), came.as_slice()) {
        // The same in another order.
        ([], []) => vec![change(Some(&before.join("; ")), Some(&after.join("; ")))],
        ([one], [other]) => vec![change(Some(one), Some(other))],
        _ => {
            let gone = gone.into_iter().map(|value| change(Some(value), None));
            gone.chain(came.into_iter().map(|value| change(None, Some(value)))).collect()
        }
    }
}

/// The values that `other` does not have, or has less often.
fn missing<'a>(values: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in other {
        *counts.entry(value.as_str()).or_default() += 1;
    }
    let is_missing = |value: &&String| match counts.get_mut(value.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    values.iter().filter(is_missing).collect()
}

/// What is different between two descriptions of a Service; one that is not there has no fields.
pub(crate) fn services(
    before: Option<&ServiceDescription>,
    after: Option<&ServiceDescription>,
) -> Vec<FieldChange> {
    let ports = |side: Option<&ServiceDescription>| side.map(|d| d.ports.clone()).unwrap_or_default();
    let (old, new) = (ports(before), ports(after));
    let renamed = renamed(&old, &new);
    let fields = |side: Option<&ServiceDescription>, ports: &[PortDescription], is_new: bool| {
        let label = |port: &PortDescription| match renamed.get(&(port.protocol, port.port)) {
            Some(label) if is_new => label.clone(),
            _ => label(port, ports),
        };
        side.map(|description| flatten(description, label)).unwrap_or_default()
    };
    let mut changes = fields(before, &old, false).compare(&fields(after, &new, true));
    for ((protocol, number), label) in &renamed {
        let name = |ports: &[PortDescription]| {
            let port = ports.iter().find(|p| (p.protocol, p.port) == (*protocol, *number));
            port.map(|p| p.name.clone()).filter(|name| !name.is_empty())
        };
        let path = format!("ports[{label}].name");
        changes.push(FieldChange { path, before: name(&old), after: name(&new) });
    }
    changes
}

/// How a port is named in paths: by its name, if that is its own.
fn label(port: &PortDescription, ports: &[PortDescription]) -> String {
    let number = || format!("{}/{}", port.port, port.protocol);
    match ports.iter().filter(|other| other.name == port.name).count() {
        1 if !port.name.is_empty() => port.name.clone(),
        // The only port needs no name.
        1 if ports.len() == 1 => "0".to_owned(),
        _ => number(),
    }
}

type PortKey = (rulecast_bundle::Proto, u16);

/// Ports that have another name now, with the label they had: none of either name is on the other side.
fn renamed(before: &[PortDescription], after: &[PortDescription]) -> BTreeMap<PortKey, String> {
    let has = |ports: &[PortDescription], name: &str| ports.iter().any(|p| p.name == name);
    let mut renamed = BTreeMap::new();
    for port in before {
        let same = after.iter().find(|p| (p.protocol, p.port) == (port.protocol, port.port));
        let Some(same) = same.filter(|p| p.name != port.name) else { continue };
        if !has(after, &port.name) && !has(before, &same.name) {
            renamed.insert((port.protocol, port.port), label(port, before));
        }
    }
    renamed
}

fn flatten(description: &ServiceDescription, label: impl Fn(&PortDescription) -> String) -> Fields {
    let ServiceDescription {
        cluster_ips,
        external_addresses,
        internal_traffic_policy,
        external_traffic_policy,
        session_affinity,
        timeout_seconds,
        load_balancer_source_ranges,
        load_balancer_ips,
        health_check_node_port,
        ports,
        exceptions,
    } = description;
    let affinity = match (session_affinity, timeout_seconds) {
        (SessionAffinity::None, _) => "None".to_owned(),
        (SessionAffinity::ClientIp, timeout) => format!("ClientIP ({} s)", timeout.unwrap_or_default()),
    };
    let mut fields = Fields::default();
    for port in ports {
        let path = format!("ports[{}]", label(port));
        fields.add(&path, [format!("{}/{}", port.port, port.protocol)]);
        fields.add(&format!("{path}.nodePort"), port.node_port);
    }
    fields.add("clusterIPs", cluster_ips);
    fields.add("externalAddresses", external_addresses);
    fields.add("internalTrafficPolicy", [internal_traffic_policy]);
    fields.add("externalTrafficPolicy", external_traffic_policy);
    fields.add("sessionAffinity", [affinity]);
    let ranges = load_balancer_source_ranges.iter().map(|(addr, len)| prefix(*addr, *len));
    fields.add("loadBalancerSourceRanges", ranges);
    fields.add("loadBalancerIPs", load_balancer_ips);
    fields.add("healthCheckNodePort", health_check_node_port);
    fields.add("exceptions", exceptions);
    fields
}
