//! What the kernel holds, as far as it is ours, and the steps that change it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_netlink::ipset::Entry;
use rulecast_netlink::ipvs::{Destination, VirtualServer};

use super::sets::Set;

/// IANA's number of UDP.
pub(super) const UDP: u8 = 17;

/// How connections of a virtual server are spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scheduling {
    pub(super) scheduler: Arc<str>,
    pub(super) persistence: Option<u32>,
    /// See [`rulecast_netlink::ipvs::Scheduling::fallback`].
    pub(super) fallback: bool,
}

impl Scheduling {
    /// `sh` and `mh` keep clients of destinations that take no connections, unless they are told to let them go.
    pub(super) fn new(scheduler: Arc<str>, persistence: Option<u32>) -> Self {
        let fallback = ["sh", "mh"].contains(&&*scheduler);
        Self { scheduler, persistence, fallback }
    }
}

/// Whether a scheduler passes over destinations of weight 0. `dh` refuses what falls to one (`ip_vs_dh_schedule`).
pub(super) fn passes_over(scheduler: &str) -> bool {
    scheduler != "dh"
}

/// A virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) scheduling: Scheduling,
    /// Their weights. One of weight 0 gets no new connections and stays for those that it has.
    pub(super) destinations: BTreeMap<Destination, u32>,
}

impl Server {
    /// Whether a destination waits for its connections to end.
    pub(super) fn drains(&self) -> bool {
        self.destinations.values().any(|weight| *weight == 0)
    }
}

/// The kernel's part that is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) servers: HashMap<VirtualServer, Server>,
    pub(super) entries: HashSet<(Set, Entry)>,
    /// Addresses on the device.
    pub(super) addrs: HashSet<IpAddr>,
    /// How many virtual servers an address has.
    servers_at: HashMap<IpAddr, usize>,
}

/// One change of the kernel: one message, but for entries of a set, which travel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    AddEntry(Set, Entry),
    RemoveEntry(Set, Entry),
    NewServer(VirtualServer, Scheduling),
    SetServer(VirtualServer, Scheduling),
    RemoveServer(VirtualServer),
    NewDestination(VirtualServer, Destination, u32),
    SetDestination(VirtualServer, Destination, u32),
    RemoveDestination(VirtualServer, Destination),
    AddAddr(IpAddr),
    RemoveAddr(IpAddr),
}

impl State {
    /// Takes a virtual server as the kernel has it.
    pub(super) fn insert(&mut self, at: VirtualServer, server: Server) {
        if self.servers.insert(at, server).is_none() {
            *self.servers_at.entry(at.addr).or_default() += 1;
        }
    }

    fn remove(&mut self, at: &VirtualServer) {
        if self.servers.remove(at).is_some()
            && let Some(count) = self.servers_at.get_mut(&at.addr)
        {
            *count -= 1;
            if *count == 0 {
                self.servers_at.remove(&at.addr);
            }
        }
    }

    /// How many virtual servers have this address.
    pub(super) fn servers_at(&self, addr: &IpAddr) -> usize {
        self.servers_at.get(addr).copied().unwrap_or(0)
    }

    /// Follows steps that the kernel carried out.
    pub(super) fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::AddEntry(set, entry) => drop(self.entries.insert((*set, *entry))),
                Step::RemoveEntry(set, entry) => drop(self.entries.remove(&(*set, *entry))),
                Step::NewServer(at, scheduling) => {
                    let scheduling = scheduling.clone();
                    self.insert(*at, Server { scheduling, destinations: BTreeMap::new() });
                }
                Step::SetServer(at, scheduling) => {
                    if let Some(server) = self.servers.get_mut(at) {
                        server.scheduling = scheduling.clone();
                    }
                }
                Step::RemoveServer(at) => self.remove(at),
                Step::NewDestination(at, to, weight) | Step::SetDestination(at, to, weight) => {
                    if let Some(server) = self.servers.get_mut(at) {
                        server.destinations.insert(*to, *weight);
                    }
                }
                Step::RemoveDestination(at, to) => {
                    if let Some(server) = self.servers.get_mut(at) {
                        server.destinations.remove(to);
                    }
                }
                Step::AddAddr(addr) => drop(self.addrs.insert(*addr)),
                Step::RemoveAddr(addr) => drop(self.addrs.remove(addr)),
            }
        }
    }
}
