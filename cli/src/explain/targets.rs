//! The targets of one Service in a bundle.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::{Bundle, Empty, Group, GroupId, GroupKind, Key, Lane, Scope, Tag, Value};

/// A target with the scopes that have members.
pub(super) struct Target {
    pub(super) id: GroupId,
    pub(super) group: Group,
    /// How many members each scope has.
    pub(super) scopes: Vec<(Scope, usize)>,
}

/// All targets of a Service, by cluster IP and port.
pub(super) fn of(bundle: &Bundle, owner: &str) -> Vec<Target> {
    let groups = bundle.iter().filter_map(|(key, value)| match (key, value) {
        (Key::Group(id), Value::Group(group)) if group.owner == owner => Some((id, group)),
        _ => None,
    });
    let mut targets: Vec<Target> =
        groups.map(|(id, group)| Target { id, group, scopes: Vec::new() }).collect();
    targets.sort_by_key(|target| target.id);
    let mut scopes: Vec<Vec<Scope>> = vec![Vec::new(); targets.len()];
    for (key, _) in bundle.iter() {
        if let Key::Member { group, scope, .. } = key
            && let Ok(at) = targets.binary_search_by_key(&group, |target| target.id)
        {
            scopes[at].push(scope);
        }
    }
    for (target, mut scopes) in targets.iter_mut().zip(scopes) {
        scopes.sort_by_key(|scope| rank(*scope));
        target.scopes = scopes.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect();
    }
    targets
}

fn rank(scope: Scope) -> (u8, u64) {
    match scope {
        Scope::All => (0, 0),
        Scope::Zone(Tag(tag)) => (1, tag),
        Scope::Node(Tag(tag)) => (2, tag),
        Scope::Serving => (3, 0),
    }
}

impl Target {
    /// `10.96.0.1:80/TCP, all endpoints`.
    pub(super) fn name(&self) -> String {
        let which = match self.id.kind {
            GroupKind::Cluster => "all endpoints",
            GroupKind::Local => "the node's own endpoints",
        };
        format!("{}/{} ({which})", SocketAddr::new(self.id.addr, self.id.port), self.id.proto)
    }

    /// What leads to it, in words.
    pub(super) fn keys(&self) -> Vec<String> {
        let word = |key: &rulecast_bundle::LaneKey| {
            let addr = key.addr.map(|addr| SocketAddr::new(addr, key.port).to_string()).unwrap_or_default();
            match Lane::of(key.lane) {
                Some(Lane::ClusterIp | Lane::ClusterIpLocal) => format!("cluster IP {addr}"),
                Some(Lane::External) => format!("external {addr}"),
                Some(Lane::ExternalInside) => format!("external {addr} from this node and its pods"),
                Some(Lane::ExternalOutside) => format!("external {addr} from outside"),
                Some(Lane::NodePort) => format!("nodePort {}", key.port),
                Some(Lane::NodePortInside) => format!("nodePort {} from this node and its pods", key.port),
                Some(Lane::NodePortOutside) => format!("nodePort {} from outside", key.port),
                None => format!("lane {} {addr}", key.lane),
            }
        };
        let words: BTreeSet<String> = self.group.keys.iter().map(word).collect();
        words.into_iter().collect()
    }

    /// Its VIPs with their ports.
    pub(super) fn vips(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.group.keys.iter().filter_map(|key| Some((key.addr?, key.port)))
    }

    /// Its nodePorts.
    pub(super) fn node_ports(&self) -> impl Iterator<Item = u16> {
        self.group.keys.iter().filter(|key| key.addr.is_none()).map(|key| key.port)
    }
}

/// What a client sees of a target that is empty.
pub(super) fn when_empty(empty: Empty) -> &'static str {
    match empty {
        Empty::Reject => "connections are refused at once (TCP reset or ICMP port unreachable)",
        Empty::Drop => {
            "packets are dropped and clients time out: there are endpoints, but none on this node, and the policy is Local"
        }
    }
}
