//! From what the kernel holds to what it should hold, in an order that is right after every single step. Pure.
//!
//! IPVS has no transactions. So what makes a frontend answer comes before what makes another answer no more: first the
//! entries that let traffic through, then virtual servers, destinations, addresses; only then destinations are told to take
//! no more connections, and the rest goes. At every moment a frontend that had an endpoint before and has one after has one.
//!
//! A destination that leaves gets weight 0 and stays until its connections ended ([`super::drain`]), and so does its virtual
//! server with its address when the Service is gone. Not with UDP, which knows no end: there flows move at once. And not with
//! the scheduler `dh`, which would refuse what falls to such a destination.
//!
//! One thing is the kernel's: while a virtual server changes its scheduler it has none for a moment.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_netlink::ipset::Entry;
use rulecast_netlink::ipvs::VirtualServer;

use super::sets::{Set, entry};
use super::state::{Scheduling, State, Step, UDP, passes_over};
use super::wanted::Wanted;

/// The weight of destinations that take connections.
const WEIGHT: u32 = 1;

/// What may differ.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) servers: BTreeSet<VirtualServer>,
    pub(super) entries: BTreeSet<(Set, Entry)>,
    pub(super) addrs: BTreeSet<IpAddr>,
}

impl Touched {
    /// All that is there or should be.
    pub(super) fn everything(state: &State, wanted: &Wanted) -> Self {
        let mut touched = Self::default();
        touched.servers.extend(state.servers.keys().copied());
        touched.addrs.extend(state.addrs.iter().copied());
        for (set, entry) in &state.entries {
            match (set, entry.port) {
                (Set::Vips, _) => drop(touched.addrs.insert(entry.addr)),
                (set, Some((proto, port))) if Set::OF_FRONTENDS.contains(set) => {
                    touched.servers.insert(VirtualServer { addr: entry.addr, proto, port });
                }
                _ => drop(touched.entries.insert((*set, *entry))),
            }
        }
        wanted.touch_all(&mut touched);
        touched
    }
}

/// Steps in two halves: nothing of the second is begun before all of the first is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Makes frontends answer as they should.
    pub(super) make: Vec<Step>,
    /// Removes what is not wanted any more.
    pub(super) remove: Vec<Step>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.make.is_empty() && self.remove.is_empty()
    }
}

/// By the order in which they are due.
#[derive(Default)]
struct Phases {
    admit: Vec<Step>,
    restrict: Vec<Step>,
    servers: Vec<Step>,
    destinations: Vec<Step>,
    change: Vec<Step>,
    addrs: Vec<Step>,
    free: Vec<Step>,
    drop: Vec<Step>,
    quiet: Vec<Step>,
    remove_servers: Vec<Step>,
    remove_addrs: Vec<Step>,
    forget: Vec<Step>,
}

/// What is to be done about what may differ.
pub(super) fn plan(state: &State, wanted: &Wanted, touched: &Touched) -> Plan {
    let mut phases = Phases::default();
    let mut addrs = touched.addrs.clone();
    // In the order of their addresses, as servers are.
    let mut gone = Vec::new();
    for at in &touched.servers {
        phases.server(state, wanted, at, &mut gone);
        addrs.insert(at.addr);
    }
    for (set, entry) in &touched.entries {
        phases.entry(*set, *entry, state, wanted.has_entry(*set, entry));
    }
    for addr in addrs {
        let going = gone.partition_point(|a| *a <= addr) - gone.partition_point(|a| *a < addr);
        let drains = state.addrs.contains(&addr) && state.servers_at(&addr) > going;
        phases.addr(addr, state, wanted.has_addr(&addr) || (drains && !wanted.is_own(&addr)));
    }
    let Phases { admit, restrict, servers, destinations, change, addrs, free, .. } = phases;
    let make = [admit, restrict, servers, destinations, change, addrs, free].concat();
    let Phases { drop, quiet, remove_servers, remove_addrs, forget, .. } = phases;
    Plan { make, remove: [drop, quiet, remove_servers, remove_addrs, forget].concat() }
}

impl Phases {
    fn server(&mut self, state: &State, wanted: &Wanted, at: &VirtualServer, gone: &mut Vec<IpAddr>) {
        let frontend = wanted.frontend(at);
        for set in Set::OF_FRONTENDS {
            self.entry(set, entry(at), state, frontend.is_some_and(|frontend| frontend.is_in(set)));
        }
        let Some(frontend) = frontend else {
            if state.servers.contains_key(at) {
                self.retire(state, at, gone);
            }
            return;
        };
        let persistence = frontend.persistence;
        let scheduling = || Scheduling::new(wanted.scheduler.clone(), persistence);
        let graceful = at.proto != UDP && passes_over(&wanted.scheduler);
        let server = state.servers.get(at);
        match server {
            None => self.servers.push(Step::NewServer(*at, scheduling())),
            Some(server) if server.scheduling != scheduling() => {
                self.change.push(Step::SetServer(*at, scheduling()));
            }
            Some(_) => {}
        }
        for to in frontend.destinations.iter() {
            match server.and_then(|server| server.destinations.get(to)) {
                None => self.destinations.push(Step::NewDestination(*at, *to, WEIGHT)),
                Some(&WEIGHT) => {}
                Some(_) => self.destinations.push(Step::SetDestination(*at, *to, WEIGHT)),
            }
        }
        for (to, weight) in server.iter().flat_map(|server| &server.destinations) {
            if frontend.destinations.binary_search(to).is_ok() {
                continue;
            }
            match (graceful, weight) {
                (true, 0) => {}
                (true, _) => self.quiet.push(Step::SetDestination(*at, *to, 0)),
                // It takes no connections, and the scheduler may be about to give it some.
                (false, 0) => self.destinations.push(Step::RemoveDestination(*at, *to)),
                (false, _) => self.quiet.push(Step::RemoveDestination(*at, *to)),
            }
        }
    }

    /// A virtual server that is wanted no more stays as long as a connection may need it.
    fn retire(&mut self, state: &State, at: &VirtualServer, gone: &mut Vec<IpAddr>) {
        let server = &state.servers[at];
        if at.proto == UDP || server.destinations.is_empty() {
            self.remove_servers.push(Step::RemoveServer(*at));
            gone.push(at.addr);
            return;
        }
        let used = server.destinations.iter().filter(|(_, weight)| **weight > 0);
        self.quiet.extend(used.map(|(to, _)| Step::SetDestination(*at, *to, 0)));
    }

    fn entry(&mut self, set: Set, entry: Entry, state: &State, wanted: bool) {
        let there = state.entries.contains(&(set, entry));
        let (add, remove) = match set {
            Set::Served | Set::ClusterIps | Set::Masquerade | Set::Hairpin | Set::Ranges => {
                (&mut self.admit, &mut self.forget)
            }
            // Nobody may slip through while a frontend is made; and it is let go before its ranges are.
            Set::Firewall => (&mut self.restrict, &mut self.free),
            // Nobody from outside may come to an endpoint elsewhere.
            Set::NoLocal => (&mut self.restrict, &mut self.forget),
            // Of a frontend without endpoints.
            Set::Dropped => (&mut self.drop, &mut self.free),
            Set::Vips => (&mut self.addrs, &mut self.remove_addrs),
        };
        match (there, wanted) {
            (false, true) => add.push(Step::AddEntry(set, entry)),
            (true, false) => remove.push(Step::RemoveEntry(set, entry)),
            _ => {}
        }
    }

    /// An address comes when what is served there is ready. As long as it is there, what is not served is refused.
    fn addr(&mut self, addr: IpAddr, state: &State, wanted: bool) {
        if state.addrs.contains(&addr) && !wanted {
            self.remove_addrs.push(Step::RemoveAddr(addr));
        }
        self.entry(Set::Vips, Entry::addr(addr), state, wanted);
        if wanted && !state.addrs.contains(&addr) {
            self.addrs.push(Step::AddAddr(addr));
        }
    }
}
