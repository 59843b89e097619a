//! UDP flows to endpoints that no longer serve.
//!
//! A UDP flow keeps the endpoint that its first packet got for as long as it sends, whatever the rules say since. So what
//! goes to an endpoint that stopped serving has to be forgotten by conntrack; the next packet then meets the rules. As with
//! kube-proxy, policies, topology and being asked to terminate are no reason to move a flow: it stays while its endpoint
//! serves. Unlike kube-proxy, flows of a Service that is gone, or has no endpoint left, are forgotten too, and nodePorts
//! are looked up at the node's own addresses only.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::nft::Family;
use rulecast_bundle::{GroupId, GroupKind, Proto};
use rulecast_netlink::{Conntrack, Destinations, Flow};

use crate::view::{Endpoint, View};

/// Up to so many destinations conntrack is asked for each of them; it looks at all its entries every time.
const NARROW: usize = 4;

/// Where flows are read and forgotten.
pub trait FlowTable {
    /// Tells all UDP flows to a destination; false when some may be missing.
    fn flows(
        &mut self,
        family: Family,
        to: Destinations,
        each: &mut dyn FnMut(&Flow),
    ) -> Result<bool, rulecast_netlink::Error>;

    /// Forgets flows; returns how many were still there.
    fn forget(&mut self, flows: &[Flow]) -> Result<usize, rulecast_netlink::Error>;
}

impl FlowTable for Conntrack {
    fn flows(
        &mut self,
        family: Family,
        to: Destinations,
        each: &mut dyn FnMut(&Flow),
    ) -> Result<bool, rulecast_netlink::Error> {
        self.udp_flows(family, to, each).map(|read| read.complete)
    }

    fn forget(&mut self, flows: &[Flow]) -> Result<usize, rulecast_netlink::Error> {
        self.delete_all(flows)
    }
}

/// What a flow is addressed to: a VIP, or a nodePort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Frontend {
    v6: bool,
    vip: Option<IpAddr>,
    port: u16,
}

impl Frontend {
    fn destinations(self) -> Destinations {
        self.vip.map_or(Destinations::Port(self.port), |vip| Destinations::Addr((vip, self.port).into()))
    }
}

/// A Service port, by its cluster IP.
type ServicePort = (IpAddr, u16);

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    frontends: BTreeSet<Frontend>,
    serving: BTreeSet<Endpoint>,
}

/// The destinations of UDP flows, where they may go, and which of them have to be looked at.
#[derive(Debug, Default)]
pub struct Flows {
    ports: HashMap<ServicePort, State>,
    owners: HashMap<Frontend, ServicePort>,
    due: BTreeSet<Frontend>,
}

impl Flows {
    /// Takes note of targets that may have changed.
    pub fn note(&mut self, view: &View, touched: impl IntoIterator<Item = GroupId>) {
        let udp = touched.into_iter().filter(|id| id.proto == Proto::Udp);
        let ports: BTreeSet<ServicePort> = udp.map(|id| (id.addr, id.port)).collect();
        let new: Vec<(ServicePort, State)> =
            ports.into_iter().map(|port| (port, state(view, port))).collect();
        let mut changed = Vec::new();
        // All that goes before all that comes: a destination may go from one Service to another.
        for (port, new) in new {
            let old = self.ports.remove(&port).unwrap_or_default();
            for gone in old.frontends.difference(&new.frontends) {
                if self.owners.get(gone) == Some(&port) {
                    self.owners.remove(gone);
                }
                self.due.insert(*gone);
            }
            changed.push((port, old, new));
        }
        for (port, old, new) in changed {
            let left = old.serving.iter().any(|endpoint| !new.serving.contains(endpoint));
            let first = old.serving.is_empty() && !new.serving.is_empty();
            for frontend in &new.frontends {
                let came = self.owners.insert(*frontend, port).is_none();
                if left || first || came || !old.frontends.contains(frontend) {
                    self.due.insert(*frontend);
                }
            }
            if new != State::default() {
                self.ports.insert(port, new);
            }
        }
    }

    /// Takes note of a whole view. Flows may have met other rules meanwhile, so all are to be looked at.
    pub fn note_all(&mut self, view: &View) {
        let known = self.ports.keys().map(|(addr, port)| GroupId {
            addr: *addr,
            port: *port,
            proto: Proto::Udp,
            kind: GroupKind::Cluster,
        });
        let known: Vec<GroupId> = known.collect();
        self.note(view, known.into_iter().chain(view.targets().map(|(id, _)| *id)));
        self.due.extend(self.owners.keys().copied());
    }

    /// Nobody is going to look.
    pub fn overlook(&mut self) {
        self.due.clear();
    }

    /// Whether there is something to look at.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Looks at the flows to destinations of a family that changed and forgets those whose endpoint does not serve. NodePorts
    /// are those of `node_addrs`. Returns how many; none when nothing was due. What could not be read whole is due again.
    pub fn settle(
        &mut self,
        table: &mut dyn FlowTable,
        family: Family,
        node_addrs: &[IpAddr],
    ) -> Result<Option<usize>, rulecast_netlink::Error> {
        let v6 = family == Family::V6;
        let due: BTreeSet<Frontend> = self.due.iter().copied().filter(|f| f.v6 == v6).collect();
        let dumps: Vec<Destinations> = match due.len() {
            0 => return Ok(None),
            1..=NARROW => due.iter().map(|frontend| frontend.destinations()).collect(),
            _ => vec![Destinations::All],
        };
        let (mut stale, mut complete) = (Vec::new(), true);
        for to in dumps {
            complete &= table.flows(family, to, &mut |flow| {
                if self.frontend(flow.dest, &due, node_addrs).is_some_and(|f| self.is_stale(f, flow)) {
                    stale.push(*flow);
                }
            })?;
        }
        let forgotten = table.forget(&stale)?;
        if complete {
            self.due.retain(|f| f.v6 != v6);
        }
        Ok(Some(forgotten))
    }

    fn frontend(
        &self,
        dest: SocketAddr,
        due: &BTreeSet<Frontend>,
        node_addrs: &[IpAddr],
    ) -> Option<Frontend> {
        let vip = Frontend { v6: dest.is_ipv6(), vip: Some(dest.ip()), port: dest.port() };
        if self.owners.contains_key(&vip) || due.contains(&vip) {
            return Some(vip).filter(|vip| due.contains(vip));
        }
        let node_port = Frontend { vip: None, ..vip };
        Some(node_port).filter(|f| due.contains(f) && node_addrs.contains(&dest.ip()))
    }

    /// Where nothing serves, only what was translated is stale: an untranslated flow to a nodePort may be a process's on
    /// the node.
    fn is_stale(&self, frontend: Frontend, flow: &Flow) -> bool {
        let serving = self.owners.get(&frontend).and_then(|port| self.ports.get(port)).map(|s| &s.serving);
        let endpoint = Endpoint { addr: flow.reply_source.ip(), port: flow.reply_source.port() };
        match serving.filter(|serving| !serving.is_empty()) {
            Some(serving) => !serving.contains(&endpoint),
            None => flow.reply_source != flow.dest,
        }
    }
}

fn state(view: &View, (addr, port): ServicePort) -> State {
    let mut state = State::default();
    for kind in [GroupKind::Cluster, GroupKind::Local] {
        let Some(target) = view.target(&GroupId { addr, port, proto: Proto::Udp, kind }) else { continue };
        state.serving.extend(target.serving());
        let keys = target.shape().into_iter().flat_map(|shape| shape.keys.iter());
        let frontend = |vip: Option<IpAddr>, port| Frontend { v6: addr.is_ipv6(), vip, port };
        state.frontends.extend(keys.map(|key| frontend(key.addr, key.port)));
    }
    state
}

#[cfg(test)]
mod tests;
