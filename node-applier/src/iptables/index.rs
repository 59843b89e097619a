//! What is known of each Service port: which frontends lead to it, and what it has of its own. It tells which chains an update
//! may change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{GroupKind, Lane, Proto};

use super::chain::{Chain, Vip, first_port, nets};
use crate::view::{Endpoint, PortId, View};

/// Why a frontend leads to a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A cluster IP, internalTrafficPolicy Cluster.
    ClusterIp,
    /// The same, policy Local.
    ClusterIpLocal,
    /// From outside, externalTrafficPolicy Cluster.
    External,
    /// The same, policy Local.
    ExternalLocal,
}

impl Role {
    fn of(lane: Lane) -> Self {
        match lane {
            Lane::ClusterIp => Self::ClusterIp,
            Lane::ClusterIpLocal => Self::ClusterIpLocal,
            Lane::External | Lane::NodePort => Self::External,
            Lane::ExternalInside | Lane::ExternalOutside | Lane::NodePortInside | Lane::NodePortOutside => {
                Self::ExternalLocal
            }
        }
    }
}

/// What packets are addressed to: a VIP's port, or a nodePort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Frontend {
    Vip(Vip),
    NodePort(Proto, u16),
}

impl Frontend {
    /// The chain that it is looked up in.
    pub(super) fn chain(self) -> Chain {
        match self {
            Self::Vip(vip) => Chain::Vips(nets(vip.addr).1),
            Self::NodePort(proto, port) => Chain::Ports(proto, first_port(port)),
        }
    }
}

/// What a Service port has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    frontends: BTreeSet<(Frontend, Role)>,
    /// With session affinity: its endpoints.
    sticky: BTreeSet<Endpoint>,
    /// The addresses of its endpoints on this node.
    own: BTreeSet<IpAddr>,
}

/// One family's Service ports.
#[derive(Debug, Default)]
pub(super) struct Index {
    known: HashMap<PortId, Known>,
    frontends: BTreeMap<Frontend, (PortId, Role)>,
    own: BTreeMap<IpAddr, usize>,
}

impl Index {
    /// Of all Service ports of a family.
    pub(super) fn of(view: &View, family: Family) -> Self {
        let mut index = Self::default();
        let ports = view.targets().map(|(id, _)| PortId::from(id)).filter(|port| port.family() == family);
        let ports: BTreeSet<PortId> = ports.collect();
        index.update(view, ports);
        index
    }

    /// Takes note of Service ports that may have changed. Returns the chains that may be different.
    pub(super) fn update(&mut self, view: &View, ports: impl IntoIterator<Item = PortId>) -> BTreeSet<Chain> {
        let mut touched = BTreeSet::new();
        let mut changed = Vec::new();
        // All that goes before all that comes: a frontend may go from one Service to another.
        for port in ports {
            let (old, new) = (self.known.remove(&port).unwrap_or_default(), known(view, port));
            for (frontend, _) in old.frontends.union(&new.frontends) {
                touched.insert(frontend.chain());
                if let Frontend::Vip(vip) = frontend {
                    touched.insert(Chain::Ranges(*vip));
                }
            }
            for (frontend, _) in &old.frontends {
                if self.frontends.get(frontend).is_some_and(|(owner, _)| *owner == port) {
                    self.frontends.remove(frontend);
                }
            }
            touched.extend([Chain::Cluster(port), Chain::Local(port), Chain::External(port)]);
            touched.extend(old.sticky.union(&new.sticky).map(|endpoint| Chain::Endpoint(port, *endpoint)));
            if old.own != new.own {
                touched.insert(Chain::Hairpin);
            }
            changed.push((port, old, new));
        }
        for (port, old, new) in changed {
            self.frontends.extend(new.frontends.iter().map(|(frontend, role)| (*frontend, (port, *role))));
            for addr in &new.own {
                *self.own.entry(*addr).or_default() += 1;
            }
            for addr in &old.own {
                if let Some(count) = self.own.get_mut(addr) {
                    *count -= 1;
                }
            }
            self.own.retain(|_, count| *count > 0);
            if new != Known::default() {
                self.known.insert(port, new);
            }
        }
        touched
    }

    /// The Service port that a frontend leads to.
    pub(super) fn get(&self, frontend: Frontend) -> Option<(PortId, Role)> {
        self.frontends.get(&frontend).copied()
    }

    /// The frontends of a range, ends included.
    pub(super) fn between(
        &self,
        first: Frontend,
        last: Frontend,
    ) -> impl Iterator<Item = (Frontend, PortId, Role)> {
        self.frontends.range(first..=last).map(|(frontend, (port, role))| (*frontend, *port, *role))
    }

    /// The addresses of endpoints on this node.
    pub(super) fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.own.keys().copied()
    }

    /// Whether some frontend of a Service port has this role.
    pub(super) fn has(&self, port: PortId, role: Role) -> bool {
        self.known.get(&port).is_some_and(|known| known.frontends.iter().any(|(_, r)| *r == role))
    }

    /// The chains that all of it may need.
    pub(super) fn chains(&self) -> BTreeSet<Chain> {
        let mut chains: BTreeSet<Chain> = self.frontends.keys().map(|frontend| frontend.chain()).collect();
        for (port, known) in &self.known {
            chains.extend([Chain::Cluster(*port), Chain::Local(*port), Chain::External(*port)]);
            chains.extend(known.sticky.iter().map(|endpoint| Chain::Endpoint(*port, *endpoint)));
        }
        chains
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn known(view: &View, port: PortId) -> Known {
    let mut known = Known::default();
    for kind in [GroupKind::Cluster, GroupKind::Local] {
        let Some(target) = view.target(&port.group(kind)) else { continue };
        let Some(shape) = target.shape() else { continue };
        let frontends = shape.keys.iter().filter_map(|key| {
            let role = Role::of(Lane::of(key.lane)?);
            let frontend = match key.addr {
                Some(addr) => Frontend::Vip(Vip { addr, proto: port.proto, port: key.port }),
                None => Frontend::NodePort(port.proto, key.port),
            };
            Some((frontend, role))
        });
        known.frontends.extend(frontends);
        known.own.extend(target.members().iter().filter(|m| m.own).map(|m| m.endpoint.addr));
        if shape.affinity.is_some() {
            known.sticky.extend(target.members().iter().map(|m| m.endpoint));
        }
    }
    known
}
