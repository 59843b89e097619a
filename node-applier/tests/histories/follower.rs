//! A node that follows what is published. In iptables mode it writes it, too, to tables in memory.

use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Bundle, Change, Mode};
use rulecast_node::backend::{Backend as _, BackendError};
use rulecast_node::iptables::Iptables;
use rulecast_node::view::{Touched, View};

use crate::netfilter::Netfilter;
use crate::packet::{Machine, Outcome, Packet, Verdict};
use crate::rng::Rng;
use crate::xtables::{Fake, Tables};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// One write in so many fails half way.
const FAILS: usize = 40;

/// The node.
pub(crate) struct Follower {
    pub(crate) machine: Machine,
    pub(crate) view: View,
    backend: Iptables,
    kernel: Fake,
    /// What the kernel held before the last write, and after each commit of it; none if it was tried twice.
    before: [Tables; 2],
    moments: Vec<(Family, Tables)>,
}

impl Follower {
    pub(crate) fn new(machine: Machine, published: &Bundle) -> Self {
        let kernel = Fake::beside_others();
        Self {
            view: View::new(&machine.name, published),
            machine,
            backend: Iptables::with(kernel.clone()),
            kernel,
            before: [Tables::new(), Tables::new()],
            moments: Vec::new(),
        }
    }

    /// Addresses come and go.
    pub(crate) fn move_about(&mut self) {
        let Machine { addrs, second, .. } = &mut self.machine;
        match addrs.iter().position(|addr| addr == second) {
            Some(at) => drop(addrs.remove(at)),
            None => addrs.push(*second),
        }
    }

    fn addrs(&self) -> Vec<IpAddr> {
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        loopback.into_iter().chain(self.machine.addrs.iter().copied()).collect()
    }

    /// Follows changes; what went wrong is told.
    pub(crate) fn follow(
        &mut self,
        changes: &[Change],
        published: &Bundle,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let touched = self.view.apply(changes);
        if touched.everything {
            self.view = View::new(&self.machine.name, published);
        }
        if self.view.mode() == Some(Mode::Iptables) {
            self.write(&touched, rng).map_err(|e| format!("{}: {e}", self.machine.name))?;
        }
        Ok(())
    }

    fn write(&mut self, touched: &Touched, rng: &mut Rng) -> Result<(), BackendError> {
        let addrs = self.addrs();
        self.before = FAMILIES.map(|family| self.kernel.tables(family));
        let fails = rng.one_in(FAILS).then(|| rng.below(3));
        self.kernel.set_patience(fails);
        let result = if touched.everything {
            self.backend.rebuild(&self.view, &addrs)
        } else {
            self.backend.update(&self.view, touched, &addrs)
        };
        self.kernel.set_patience(None);
        self.moments = self.kernel.take_moments();
        match result {
            Ok(_) => {}
            Err(_) if fails.is_some() => {
                self.backend.rebuild(&self.view, &addrs)?;
                drop(self.kernel.take_moments());
                self.moments.clear();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The kernel of a family, as the last write left it.
    pub(crate) fn tables(&self, family: Family) -> Tables {
        self.kernel.tables(family)
    }

    /// How the tables differ from what a node writes that begins with this view.
    pub(crate) fn difference(&mut self, new: &View) -> Option<String> {
        let fresh = Fake::beside_others();
        if let Err(error) = Iptables::with(fresh.clone()).rebuild(new, &self.addrs()) {
            return Some(format!("a new node cannot write it: {error}"));
        }
        for family in FAMILIES {
            let (is, wanted) = (self.kernel.tables(family), fresh.tables(family));
            let difference = is.iter().find_map(|(name, table)| table.difference(&wanted[name]));
            if let Some(difference) = difference {
                return Some(format!("{family:?}: {difference}"));
            }
        }
        match self.backend.verify(&self.view) {
            Ok(verified) if verified.is_same() => None,
            other => Some(format!("it does not find itself what it wrote: {other:?}")),
        }
    }

    /// What became of a packet between two commits of the last write, if it should not have.
    ///
    /// It is what became of it before, or what does after it; or it is refused, unless it has usable endpoints before and after.
    /// So none that has endpoints all the time is refused, none is sent to the dead, and none that is refused leaves the node.
    pub(crate) fn in_between(&self, packet: &Packet) -> Option<String> {
        let family = Family::of(packet.dst);
        let verdict = |tables: &Tables| Some(Netfilter::new(tables, &self.machine)?.verdict(packet));
        let mut moments = self.moments.iter().filter(|(of, _)| *of == family).map(|(_, tables)| tables);
        let after = moments.next_back()?;
        let mut moments = moments.peekable();
        moments.peek()?;
        let (before, after) = (verdict(&self.before[usize::from(family == Family::V6)])?, verdict(after)?);
        let either: Verdict = before.union(&after).copied().collect();
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Rejected | Outcome::Dropped);
        let may_be_refused = !either.iter().all(|outcome| matches!(outcome, Outcome::To { .. }));
        moments.enumerate().find_map(|(commit, tables)| {
            let meanwhile = verdict(tables)?;
            let fits = |outcome| either.contains(outcome) || (may_be_refused && refused(outcome));
            (!meanwhile.iter().all(fits)).then(|| {
                format!("{packet}: {before:?}, after commit {} {meanwhile:?}, then {after:?}", commit + 1)
            })
        })
    }
}
