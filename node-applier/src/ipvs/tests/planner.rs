//! The planner against random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use rulecast_bundle::Proto;
use rulecast_netlink::ipset::Entry;
use rulecast_netlink::ipvs::{Destination, VirtualServer};

use super::super::plan::{Plan, Touched, plan};
use super::super::sets::{Set, entry};
use super::super::share::{Frontend, Share, Source};
use super::super::state::{State, Step, UDP, passes_over};
use super::super::wanted::Wanted;

/// The kernel as its sources describe it: what is not there cannot be changed, and what is there cannot be made.
#[derive(Debug, Clone, Default)]
struct Kernel {
    schedulers: BTreeMap<VirtualServer, String>,
    servers: BTreeMap<VirtualServer, BTreeMap<Destination, u32>>,
    entries: BTreeSet<(Set, Entry)>,
    addrs: BTreeSet<IpAddr>,
}

impl Kernel {
    /// One step; whether the kernel takes it.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::AddEntry(set, entry) => self.entries.insert((*set, *entry)),
            Step::RemoveEntry(set, entry) => self.entries.remove(&(*set, *entry)),
            Step::NewServer(at, how) => {
                self.schedulers.insert(*at, how.scheduler.to_string());
                self.servers.insert(*at, BTreeMap::new()).is_none()
            }
            Step::SetServer(at, how) => {
                self.schedulers.insert(*at, how.scheduler.to_string());
                self.servers.contains_key(at)
            }
            Step::RemoveServer(at) => self.servers.remove(at).is_some(),
            Step::NewDestination(at, to, weight) => {
                self.servers.get_mut(at).is_some_and(|all| all.insert(*to, *weight).is_none())
            }
            Step::SetDestination(at, to, weight) => {
                self.servers.get_mut(at).is_some_and(|all| all.insert(*to, *weight).is_some())
            }
            Step::RemoveDestination(at, to) => {
                self.servers.get_mut(at).is_some_and(|all| all.remove(to).is_some())
            }
            Step::AddAddr(addr) => self.addrs.insert(*addr),
            Step::RemoveAddr(addr) => self.addrs.remove(addr),
        }
    }

    /// The destinations that new connections from somewhere go to.
    fn usable(&self, at: &VirtualServer) -> BTreeSet<Destination> {
        let all = self.servers.get(at).into_iter().flatten();
        all.filter(|(_, weight)| **weight > 0).map(|(to, _)| *to).collect()
    }

    fn has(&self, set: Set, entry: Entry) -> bool {
        self.entries.contains(&(set, entry))
    }
}

/// What a frontend may be in a history: a number for its address and port, its protocol, destinations by number, and how it
/// is to be.
type Seed = (u8, bool, BTreeSet<u8>, u8);

fn destination(n: u8) -> Destination {
    Destination { addr: [10, 1, 0, n].into(), port: 8080 }
}

fn server(n: u8, udp: bool) -> VirtualServer {
    // Two frontends share an address.
    VirtualServer {
        addr: [10, 96, 0, n / 2].into(),
        proto: if udp { UDP } else { 6 },
        port: 80 + u16::from(n % 2),
    }
}

fn share((n, udp, destinations, how): &Seed) -> (Source, Share) {
    let at = server(*n, *udp);
    let frontend = Frontend::any(destinations.iter().map(|n| destination(*n)), *how);
    let source = Source::Port(at.addr, at.port, if *udp { Proto::Udp } else { Proto::Tcp });
    let mut share = Share::default();
    // Some are at the node's own address, which is on no device of ours.
    if how & 32 == 0 {
        share.addrs.insert(at.addr);
    }
    share.frontends[usize::from(how & 32 != 0)].push((at, frontend));
    for n in destinations.iter().filter(|n| **n % 2 == 0) {
        let to = destination(*n);
        share.entries.insert((Set::Hairpin, Entry::port(to.addr, at.proto, to.port).with((to.addr, 32))));
    }
    if how & 16 != 0 {
        share.entries.insert((Set::Firewall, entry(&at)));
        share.entries.insert((Set::Ranges, entry(&at).with(([192, 0, 2, 0].into(), 24))));
        if how & 64 != 0 {
            share.entries.insert((Set::Ranges, entry(&at).with(([198, 51, 100, 0].into(), 24))));
        }
    }
    (source, share)
}

fn wanted(seeds: &[Seed], scheduler: &str) -> Wanted {
    let mut wanted = Wanted::empty(scheduler);
    let by_server: BTreeMap<_, _> = seeds.iter().map(|seed| ((seed.0, seed.1), seed)).collect();
    for seed in by_server.values() {
        let (source, share) = share(seed);
        wanted.put(source, share, &mut Touched::default());
    }
    wanted
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let one = (0..6_u8, any::<bool>(), prop::collection::btree_set(0..5_u8, 0..4), any::<u8>());
    prop::collection::vec(one, 0..6)
}

/// At no moment of an update does a frontend that answers before and after it not answer.
fn holds(kernel: &Kernel, before: &Wanted, after: &Wanted) -> Result<(), TestCaseError> {
    for n in 0..6 {
        for udp in [false, true] {
            let at = server(n, udp);
            let (Some(old), Some(new)) = (before.frontend(&at), after.frontend(&at)) else { continue };
            let usable = kernel.usable(&at);
            if kernel.schedulers.get(&at).is_some_and(|scheduler| !passes_over(scheduler)) {
                let quiet = kernel.servers[&at].values().filter(|weight| **weight == 0).count();
                prop_assert_eq!(quiet, 0, "{} gives connections to destinations that take none", at);
            }
            let known = |to: &Destination| old.destinations.contains(to) || new.destinations.contains(to);
            prop_assert!(usable.iter().all(known), "{at} goes to strangers: {usable:?}");
            if !old.destinations.is_empty() && !new.destinations.is_empty() {
                prop_assert!(!usable.is_empty(), "{at} has no destination");
                prop_assert!(!kernel.has(Set::Dropped, entry(&at)), "{at} is dropped");
            }
            for set in [Set::Served, Set::ClusterIps, Set::Masquerade, Set::NoLocal] {
                if old.is_in(set) && new.is_in(set) {
                    prop_assert!(kernel.has(set, entry(&at)), "{at} is not in {set:?}");
                }
            }
            // Who may come before and after may come; and while only some may, not everybody may.
            let in_both = |set, entry: &Entry| before.has_entry(set, entry) && after.has_entry(set, entry);
            for range in [[192, 0, 2, 0], [198, 51, 100, 0]] {
                let range = entry(&at).with((range.into(), 24));
                if in_both(Set::Ranges, &range) {
                    prop_assert!(kernel.has(Set::Ranges, range), "{at} is closed to {range:?}");
                }
            }
            if in_both(Set::Firewall, &entry(&at)) {
                prop_assert!(kernel.has(Set::Firewall, entry(&at)), "{at} is open to all");
            }
            if !old.is_in(Set::NoLocal) && !new.is_in(Set::NoLocal) {
                prop_assert!(!kernel.has(Set::NoLocal, entry(&at)), "{at} is closed to the outside");
            }
            if before.has_addr(&at.addr) && after.has_addr(&at.addr) {
                prop_assert!(kernel.addrs.contains(&at.addr), "{} is not on the device", at.addr);
            }
        }
    }
    // What is on the device belongs to Services alone, at every moment.
    for addr in &kernel.addrs {
        prop_assert!(kernel.has(Set::Vips, Entry::addr(*addr)), "{addr} is open");
    }
    // A firewall without its ranges would close a frontend that was open.
    for (set, at) in &kernel.entries {
        let ranges = |(set, range): &&(Set, Entry)| {
            *set == Set::Ranges && range.addr == at.addr && range.port == at.port
        };
        prop_assert!(*set != Set::Firewall || kernel.entries.iter().any(|e| ranges(&e)), "{at:?} is closed");
    }
    Ok(())
}

/// Nothing but what is wanted takes new connections, and what is left of the rest is on its way out.
fn settled(kernel: &Kernel, wanted: &Wanted) -> Result<(), TestCaseError> {
    for (at, destinations) in &kernel.servers {
        let all: BTreeSet<_> =
            wanted.frontend(at).into_iter().flat_map(|f| f.destinations.iter().copied()).collect();
        prop_assert_eq!(kernel.usable(at), all);
        if at.proto == UDP {
            prop_assert!(destinations.values().all(|weight| *weight > 0) && wanted.frontend(at).is_some());
        }
        let waits = destinations.values().any(|weight| *weight == 0);
        prop_assert!(waits || wanted.frontend(at).is_some(), "{} is nobody's", at);
    }
    let mut expected = Touched::default();
    wanted.touch_all(&mut expected);
    for at in &expected.servers {
        prop_assert!(kernel.servers.contains_key(at), "{} is missing", at);
        for set in Set::OF_FRONTENDS {
            let frontend = wanted.frontend(at).expect("touched because it is there");
            prop_assert_eq!(kernel.has(set, entry(at)), frontend.is_in(set), "{} in {:?}", at, set);
        }
    }
    let shared =
        kernel.entries.iter().filter(|(set, _)| [Set::Hairpin, Set::Ranges, Set::Firewall].contains(set));
    prop_assert_eq!(shared.copied().collect::<BTreeSet<_>>(), expected.entries);
    for addr in &kernel.addrs {
        let waits = kernel.servers.keys().any(|at| at.addr == *addr);
        prop_assert!(expected.addrs.contains(addr) || waits, "{} is nobody's", addr);
    }
    prop_assert!(expected.addrs.iter().all(|addr| kernel.addrs.contains(addr)), "an address is missing");
    Ok(())
}

fn carry_out(
    kernel: &mut Kernel,
    state: &mut State,
    steps: &Plan,
    mut after_each: impl FnMut(&Kernel) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    for step in steps.make.iter().chain(&steps.remove) {
        prop_assert!(kernel.step(step), "the kernel refuses {:?}", step);
        after_each(kernel)?;
    }
    state.apply(&steps.make);
    state.apply(&steps.remove);
    Ok(())
}

/// Connections end, so what waits for them goes.
fn end_connections(
    kernel: &mut Kernel,
    state: &mut State,
    wanted: &Wanted,
    of: u8,
) -> Result<(), TestCaseError> {
    let drained: Vec<Step> = state
        .servers
        .iter()
        .filter(|(at, _)| at.port % 2 == u16::from(of % 2))
        .flat_map(|(at, s)| {
            s.destinations.iter().filter(|d| *d.1 == 0).map(|d| Step::RemoveDestination(*at, *d.0))
        })
        .collect();
    let touched = Touched { servers: state.servers.keys().copied().collect(), ..Touched::default() };
    carry_out(kernel, state, &Plan { make: Vec::new(), remove: drained }, |_| Ok(()))?;
    let rest = plan(state, wanted, &touched);
    carry_out(kernel, state, &rest, |_| Ok(()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_step_all_answer_that_did_and_will(
        history in prop::collection::vec((seeds(), any::<u8>()), 2..6),
    ) {
        let (mut kernel, mut state) = (Kernel::default(), State::default());
        let mut before = wanted(&[], "rr");
        for (seeds, chance) in &history {
            let after = wanted(seeds, ["rr", "dh", "sh", "rr"][usize::from(chance & 3)]);
            let steps = plan(&state, &after, &Touched::everything(&state, &after));
            carry_out(&mut kernel, &mut state, &steps, |kernel| holds(kernel, &before, &after))?;
            settled(&kernel, &after)?;
            prop_assert!(plan(&state, &after, &Touched::everything(&state, &after)).is_empty(), "it is done");
            end_connections(&mut kernel, &mut state, &after, *chance)?;
            settled(&kernel, &after)?;
            before = after;
        }
        let touched = Touched::everything(&state, &before);
        prop_assert!(plan(&state, &before, &touched).is_empty());
    }

    /// What is compared for a change alone is what is compared for everything.
    #[test]
    fn what_was_touched_is_enough(first in seeds(), second in seeds()) {
        let (mut state, mut other) = (State::default(), State::default());
        let mut followed = wanted(&first, "rr");
        for state in [&mut state, &mut other] {
            let steps = plan(state, &followed, &Touched::everything(state, &followed));
            state.apply(&steps.make);
            state.apply(&steps.remove);
        }
        let after = wanted(&second, "rr");
        let mut touched = Touched::default();
        for source in followed.shares().chain(after.shares()).collect::<BTreeSet<_>>() {
            followed.put(source, after.share_of(source), &mut touched);
        }
        let steps = plan(&state, &followed, &touched);
        let all = plan(&other, &after, &Touched::everything(&other, &after));
        prop_assert_eq!(&steps, &all);
    }
}

#[test]
fn one_endpoint_is_one_step_or_two() {
    let seed = |destinations: &[u8]| vec![(0, false, destinations.iter().copied().collect(), 0)];
    let (mut state, first) = (State::default(), wanted(&seed(&[1, 3]), "rr"));
    let steps = plan(&state, &first, &Touched::everything(&state, &first));
    state.apply(&steps.make);
    let at = server(0, false);
    for (destinations, make, remove) in [
        (&[1, 3, 5][..], vec![Step::NewDestination(at, destination(5), 1)], vec![]),
        (&[1], vec![], vec![Step::SetDestination(at, destination(3), 0)]),
        (
            &[3, 5],
            vec![Step::NewDestination(at, destination(5), 1)],
            vec![Step::SetDestination(at, destination(1), 0)],
        ),
    ] {
        let after = wanted(&seed(destinations), "rr");
        assert_eq!(plan(&state, &after, &Touched::everything(&state, &after)), Plan { make, remove });
    }
}
