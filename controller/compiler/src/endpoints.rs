//! Which endpoints a Service port has, and which of them each node may use (kube-proxy's CategorizeEndpoints).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Member, Proto, Scope, Tag};

use crate::model::{Endpoint, Slice};

/// Remembers the tags of node and zone names: hashing each name once is enough.
#[derive(Default)]
pub(crate) struct Tags(HashMap<Arc<str>, Tag>);

impl Tags {
    fn of(&mut self, name: &Arc<str>) -> Tag {
        if let Some(tag) = self.0.get(name) {
            return *tag;
        }
        let tag = Tag::of(name);
        self.0.insert(Arc::clone(name), tag);
        tag
    }
}

/// How usable an endpoint is; better ones sort later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Unusable,
    /// Neither ready nor on its way out. No traffic goes there, but a UDP flow that is there may stay.
    Serving,
    Terminating,
    Ready,
}

fn condition(endpoint: &Endpoint) -> Condition {
    match endpoint {
        Endpoint { ready: true, .. } => Condition::Ready,
        Endpoint { serving: true, terminating: true, .. } => Condition::Terminating,
        Endpoint { serving: true, .. } => Condition::Serving,
        _ => Condition::Unusable,
    }
}

/// An endpoint of one Service port.
pub(crate) struct Candidate<'a> {
    addr: IpAddr,
    port: u16,
    condition: Condition,
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    fn ready(&self) -> bool {
        self.condition == Condition::Ready
    }
}

/// The endpoints of one Service port in one family, each sorted.
pub(crate) struct Candidates<'a> {
    /// Those that new connections may go to.
    pub(crate) usable: Vec<Candidate<'a>>,
    /// Those that only serve.
    serving: Vec<Candidate<'a>>,
}

/// An address that must not be an endpoint, and why; see [`usable_address`].
pub(crate) type BadEndpoint = (IpAddr, &'static str);

/// The endpoints of a Service port in one family, each once.
///
/// The same address and port may stand in several slices. One that is not terminating counts, as with kube-proxy: the
/// address of a pod that ends may already be a new pod's, which is not ready yet. Then the most usable counts, then the
/// one that names a node.
pub(crate) fn candidates<'a>(
    slices: &[&'a Slice],
    port_name: &str,
    proto: Proto,
    family: Family,
    bad: &mut Vec<BadEndpoint>,
) -> Candidates<'a> {
    let mut found: Vec<(u16, &Endpoint)> = Vec::new();
    for &slice in slices {
        for number in slice.ports.iter().filter(|p| p.name == port_name && p.proto == proto).map(|p| p.port) {
            let endpoints = slice.endpoints.iter().filter(|e| Family::of(e.addr) == family);
            found.extend(endpoints.map(|endpoint| (number, endpoint)));
        }
    }
    let rank = |e: &Endpoint| (e.terminating, std::cmp::Reverse(condition(e)), e.node.is_none());
    found.sort_by(|(p, a), (q, b)| (p, a.addr, rank(a), &a.node).cmp(&(q, b.addr, rank(b), &b.node)));
    found.dedup_by(|(p, a), (q, b)| p == q && a.addr == b.addr);
    found.retain(|(_, e)| condition(e) > Condition::Unusable);
    found.retain(|(_, e)| match usable_address(e.addr) {
        Ok(()) => true,
        Err(why) => {
            bad.push((e.addr, why));
            false
        }
    });
    let candidate = |(port, endpoint): (u16, &'a Endpoint)| Candidate {
        addr: endpoint.addr,
        port,
        condition: condition(endpoint),
        endpoint,
    };
    let (usable, serving) =
        found.into_iter().map(candidate).partition(|c| c.condition >= Condition::Terminating);
    Candidates { usable, serving }
}

/// Refuses addresses by which a Service could reach into the node itself (CVE-2021-25737 and its kin).
pub(crate) fn usable_address(addr: IpAddr) -> Result<(), &'static str> {
    let link_local = match addr {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    match addr {
        _ if addr.is_loopback() => Err("a loopback address"),
        _ if addr.is_unspecified() => Err("the unspecified address"),
        _ if addr.is_multicast() => Err("a multicast address"),
        _ if link_local => Err("a link-local, broadcast or IPv4-mapped address"),
        _ => Ok(()),
    }
}

/// One member list: scope, and the members' addresses with their content.
pub(crate) struct Entry {
    pub(crate) scope: Scope,
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
    pub(crate) member: Member,
}

fn entry(candidate: &Candidate<'_>, scope: Scope, tags: &mut Tags) -> Entry {
    let node = candidate.endpoint.node.as_ref().map_or(0, |name| tags.of(name).short());
    let member = Member { node, terminating: candidate.condition == Condition::Terminating };
    Entry { scope, addr: candidate.addr, port: candidate.port, member }
}

/// The cluster lists. Ready endpoints, by topology hints where all of them carry hints; when none is ready, those that
/// are terminating but still serve, wherever they are.
pub(crate) fn cluster_lists(candidates: &[Candidate<'_>], tags: &mut Tags) -> Vec<Entry> {
    let ready: Vec<&Candidate<'_>> = candidates.iter().filter(|c| c.ready()).collect();
    if ready.is_empty() {
        return candidates.iter().map(|c| entry(c, Scope::All, tags)).collect();
    }
    let mut entries: Vec<Entry> = ready.iter().map(|c| entry(c, Scope::All, tags)).collect();
    // A node or zone that no hint names falls back to the wider list: hints are used by those they name only.
    for (zone, hinted) in by_hint(&ready, |e| &e.zones) {
        // The same endpoints as everybody's need no list of their own.
        if hinted.len() < ready.len() {
            let scope = Scope::Zone(tags.of(zone));
            entries.extend(hinted.into_iter().map(|c| entry(c, scope, tags)));
        }
    }
    for (node, hinted) in by_hint(&ready, |e| &e.nodes) {
        let scope = Scope::Node(tags.of(node));
        entries.extend(hinted.into_iter().map(|c| entry(c, scope, tags)));
    }
    entries
}

/// The candidates by each name their hints give; nothing unless every one has a hint.
fn by_hint<'c, 'a>(
    ready: &[&'c Candidate<'a>],
    hints: impl Fn(&'a Endpoint) -> &'a Vec<Arc<str>>,
) -> BTreeMap<&'a Arc<str>, Vec<&'c Candidate<'a>>> {
    let mut lists: BTreeMap<&Arc<str>, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in ready {
        let names = hints(candidate.endpoint);
        if names.is_empty() {
            return BTreeMap::new();
        }
        for name in names {
            let list = lists.entry(name).or_default();
            if !list.last().is_some_and(|last| std::ptr::eq(*last, *candidate)) {
                list.push(candidate);
            }
        }
    }
    lists
}

/// The endpoints that flows may stay at although the cluster list of all nodes does not hold them; with `all`, whether it
/// does or not, since there is none. As with kube-proxy, policies and topology do not matter to a flow that is there.
pub(crate) fn serving(candidates: &Candidates<'_>, all: bool, tags: &mut Tags) -> Vec<Entry> {
    let Candidates { usable, serving } = candidates;
    let any_ready = usable.iter().any(Candidate::ready);
    let unlisted = usable.iter().filter(|c| all || any_ready && !c.ready());
    unlisted.chain(serving).map(|c| entry(c, Scope::Serving, tags)).collect()
}

/// The local lists: on each node its own ready endpoints, else its own that are terminating but still serve. Hints do
/// not matter here.
pub(crate) fn local_lists(candidates: &[Candidate<'_>], tags: &mut Tags) -> Vec<Entry> {
    let mut nodes: BTreeMap<&Arc<str>, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        if let Some(node) = &candidate.endpoint.node {
            nodes.entry(node).or_default().push(candidate);
        }
    }
    let mut entries = Vec::new();
    for (node, mut local) in nodes {
        if local.iter().any(|c| c.ready()) {
            local.retain(|c| c.ready());
        }
        let scope = Scope::Node(tags.of(node));
        entries.extend(local.into_iter().map(|c| entry(c, scope, tags)));
    }
    entries
}
