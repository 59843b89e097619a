//! What Services contribute to what the kernel should hold, from a node's view. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Empty, GroupId, GroupKind, Lane, LaneKey, Name, Part, Proto, prefix_contains};
use rulecast_netlink::ipset::Entry;
use rulecast_netlink::ipvs::{Destination, VirtualServer};

use super::sets::Set;
use crate::view::{Element, Target, View};

/// The sets of elements in a bundle that say who may use a load balancer's address.
const FIREWALL: &str = "firewall-ips";
const RANGES: &str = "firewall-ranges";

/// Why traffic comes to a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    ClusterIp,
    /// Policy Cluster.
    Outside,
    /// Policy Local.
    Local,
}

/// Whom a frontend does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mute {
    Nobody,
    Outsiders,
    Everybody,
}

/// A frontend as it should be. Without destinations, IPVS refuses what is addressed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    pub(super) persistence: Option<u32>,
    /// Sorted.
    pub(super) destinations: Arc<[Destination]>,
    class: Class,
    mute: Mute,
}

impl Frontend {
    /// Whether the set has it, of those of frontends.
    pub(super) fn is_in(&self, set: Set) -> bool {
        match set {
            Set::Served => true,
            Set::ClusterIps => self.class == Class::ClusterIp,
            Set::Masquerade => self.class == Class::Outside,
            Set::NoLocal => self.mute == Mute::Outsiders,
            Set::Dropped => self.mute == Mute::Everybody,
            Set::Hairpin | Set::Ranges | Set::Firewall | Set::Vips => false,
        }
    }
}

/// Who contributes a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// A Service port, by its cluster IP.
    Port(IpAddr, u16, Proto),
    /// The source ranges of a load balancer's address and port.
    Firewall(IpAddr, u16, Proto),
}

impl Source {
    /// The Service port of a group.
    pub(super) fn of(id: &GroupId) -> Self {
        Self::Port(id.addr, id.port, id.proto)
    }

    /// Of an element that says who may use an address.
    pub(super) fn of_element((_, set, parts): &Element) -> Option<Self> {
        let ours = [FIREWALL, RANGES].contains(&set.as_str());
        match (ours, parts.as_slice()) {
            (true, [Part::Addr(addr), Part::Proto(proto), Part::Port(port), ..]) => {
                Some(Self::Firewall(*addr, *port, *proto))
            }
            _ => None,
        }
    }
}

/// What one of them contributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// At VIPs, and at the node's addresses: where both are the same, the VIP is meant.
    pub(super) frontends: [Vec<(VirtualServer, Frontend)>; 2],
    pub(super) entries: BTreeSet<(Set, Entry)>,
    pub(super) addrs: BTreeSet<IpAddr>,
}

/// The node's own addresses, on which much depends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// All.
    pub(super) addrs: BTreeSet<IpAddr>,
    /// Those that answer nodePorts.
    pub(super) answering: BTreeSet<IpAddr>,
}

impl Own {
    pub(super) fn new(view: &View, node_addrs: &[IpAddr]) -> Self {
        let usable =
            |a: &IpAddr| !a.is_loopback() && !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let addrs: BTreeSet<IpAddr> = node_addrs.iter().copied().filter(usable).collect();
        let answering = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            let all = || addrs.iter().copied().filter(|a| Family::of(*a) == family).collect();
            view.node_port_addrs(family, node_addrs).unwrap_or_else(all)
        });
        Self { answering: answering.filter(usable).collect(), addrs }
    }
}

impl Source {
    pub(super) fn family(self) -> Family {
        let (Self::Port(addr, ..) | Self::Firewall(addr, ..)) = self;
        Family::of(addr)
    }
}

#[cfg(test)]
impl Frontend {
    /// A frontend that is so or so by the lowest bits of a number.
    pub(super) fn any(destinations: impl Iterator<Item = Destination>, how: u8) -> Self {
        let destinations: Arc<[Destination]> = destinations.collect();
        let class = [Class::ClusterIp, Class::Outside, Class::Local, Class::Local][usize::from(how & 3)];
        let mute = match (destinations.is_empty(), how & 4) {
            (_, 0) => Mute::Nobody,
            (true, _) => Mute::Everybody,
            (false, _) if class == Class::Local => Mute::Outsiders,
            (false, _) => Mute::Nobody,
        };
        Self { persistence: (how & 8 != 0).then_some(60), destinations, class, mute }
    }
}

pub(super) fn all_sources(view: &View) -> Vec<Source> {
    let ports = view.targets().map(|(id, _)| Source::of(id));
    ports.chain(view.elements().iter().filter_map(Source::of_element)).collect()
}

pub(super) fn share(view: &View, source: Source, own: &Own) -> Share {
    match source {
        Source::Port(addr, port, proto) => port_share(view, own, (addr, port, proto)),
        Source::Firewall(addr, port, proto) => {
            Share { entries: firewall(view, own, (addr, port, proto)), ..Share::default() }
        }
    }
}

/// A Service port's share: both of its lists are looked at, since IPVS has one list for a frontend.
fn port_share(view: &View, own: &Own, (addr, port, proto): (IpAddr, u16, Proto)) -> Share {
    let target = |kind| view.target(&GroupId { addr, port, proto, kind });
    let (cluster, local) = (target(GroupKind::Cluster), target(GroupKind::Local));
    let mut share = Share::default();
    for (mine, other) in [(cluster, local), (local, cluster)] {
        let Some(shape) = mine.and_then(Target::shape) else { continue };
        for key in shape.keys.iter() {
            // Of the two lists with policy Local, the one for traffic from inside names the frontend.
            let outside = matches!(Lane::of(key.lane), Some(Lane::ExternalOutside | Lane::NodePortOutside));
            if outside && other.and_then(Target::shape).is_some_and(|other| has_inside(&other.keys, key)) {
                continue;
            }
            if let Some(frontend) = frontend(*key, cluster, local) {
                share.add(key, (Family::of(addr), u8_of(proto)), &frontend, own);
            }
        }
    }
    for member in [cluster, local].into_iter().flatten().flat_map(Target::members).filter(|m| m.own) {
        let at = member.endpoint;
        let itself = (at.addr, if at.addr.is_ipv4() { 32 } else { 128 });
        let entry = Entry::port(at.addr, u8_of(proto), at.port).with(itself);
        share.entries.insert((Set::Hairpin, entry));
    }
    share
}

impl Share {
    fn add(&mut self, key: &LaneKey, (family, proto): (Family, u8), frontend: &Frontend, own: &Own) {
        let at = |addr| VirtualServer { addr, proto, port: key.port };
        let Some(addr) = key.addr else {
            let answering = own.answering.iter().filter(|addr| Family::of(**addr) == family);
            self.frontends[1].extend(answering.map(|addr| (at(*addr), frontend.clone())));
            return;
        };
        self.frontends[0].push((at(addr), frontend.clone()));
        // What the node has anyway is not taken over: other ports of it are the node's.
        if !own.addrs.contains(&addr) {
            self.addrs.insert(addr);
        }
    }
}

fn has_inside(keys: &[LaneKey], outside: &LaneKey) -> bool {
    let inside = |lane| matches!(Lane::of(lane), Some(Lane::ExternalInside | Lane::NodePortInside));
    keys.iter().any(|key| inside(key.lane) && (key.addr, key.port) == (outside.addr, outside.port))
}

/// A frontend for one kernel key; none for a lane that a later version may have.
fn frontend(key: LaneKey, cluster: Option<&Target>, local: Option<&Target>) -> Option<Frontend> {
    let lane = Lane::of(key.lane)?;
    let (list, class) = match lane {
        Lane::ClusterIp => (cluster, Class::ClusterIp),
        Lane::ClusterIpLocal => (local, Class::ClusterIp),
        Lane::External | Lane::NodePort => (cluster, Class::Outside),
        Lane::ExternalInside | Lane::NodePortInside | Lane::ExternalOutside | Lane::NodePortOutside => {
            // For traffic from inside, every endpoint would do; IPVS has one list, so the local one is for all.
            let here = local.filter(|local| !local.members().is_empty());
            (here.or(cluster).or(local), Class::Local)
        }
    };
    let list = list?;
    let shape = list.shape()?;
    let mut destinations: Vec<Destination> =
        list.members().iter().map(|m| Destination { addr: m.endpoint.addr, port: m.endpoint.port }).collect();
    destinations.sort_unstable();
    let no_local = || {
        let local = local?;
        Some(local.members().is_empty() && local.shape()?.empty == Empty::Drop)
    };
    let mute = match (class, destinations.is_empty()) {
        (Class::Local, false) if no_local().unwrap_or(false) => Mute::Outsiders,
        (_, true) if shape.empty == Empty::Drop => Mute::Everybody,
        _ => Mute::Nobody,
    };
    Some(Frontend { persistence: shape.affinity, destinations: destinations.into(), class, mute })
}

/// The entries that let only some clients to a load balancer's address.
fn firewall(view: &View, own: &Own, (addr, port, proto): (IpAddr, u16, Proto)) -> BTreeSet<(Set, Entry)> {
    let family = Family::of(addr);
    let vip = vec![Part::Addr(addr), Part::Proto(proto), Part::Port(port)];
    let named = |set: &str| Name::new(set).expect("a name of a set");
    let entry = Entry::port(addr, u8_of(proto), port);
    let mut entries = BTreeSet::new();
    if view.elements().contains(&(family, named(FIREWALL), vip.clone())) {
        entries.insert((Set::Firewall, entry));
    }
    let from = (family, named(RANGES), vip.clone());
    let ranges = view.elements().range(from..).map_while(|(f, set, parts)| {
        let ours = *f == family && set.as_str() == RANGES && parts.starts_with(&vip);
        ours.then(|| parts.get(vip.len()))
    });
    let mut this_node = false;
    for part in ranges.flatten() {
        let Part::Prefix(net, len) = part else { continue };
        this_node |= own.addrs.iter().any(|addr| prefix_contains((*net, *len), *addr));
        entries.extend(nets((*net, *len)).into_iter().map(|net| (Set::Ranges, entry.with(net))));
    }
    // What this node sends to an address on its own device comes from that very address.
    if this_node {
        entries.insert((Set::Ranges, entry.with((addr, if addr.is_ipv4() { 32 } else { 128 }))));
    }
    entries
}

/// An ipset takes no prefix of length 0, but its halves.
fn nets((net, len): (IpAddr, u8)) -> Vec<(IpAddr, u8)> {
    if len > 0 {
        return vec![(net, len)];
    }
    match net {
        IpAddr::V4(_) => vec![([0; 4].into(), 1), ([128, 0, 0, 0].into(), 1)],
        IpAddr::V6(_) => {
            let mut upper = [0; 16];
            upper[0] = 128;
            vec![([0_u8; 16].into(), 1), (upper.into(), 1)]
        }
    }
}

pub(super) fn u8_of(proto: Proto) -> u8 {
    proto as u8
}
