//! The IPVS backend: virtual servers for frontends, ipsets and a few iptables rules around them, VIPs on a device.
//!
//! What should be there is worked out from the view ([`wanted`]), what is there is remembered ([`state`]), and a change is
//! compared for what it touches only ([`plan`]). Nothing of it is a transaction, so each step leaves all frontends answering
//! that had an endpoint before and have one after. A rebuild reads the kernel first and then does the same, so connections
//! survive it, and so do those of kube-proxy in IPVS mode, whose virtual servers it takes over.

mod drain;
mod filter;
mod kernel;
mod plan;
mod rules;
mod sets;
mod share;
mod state;
mod sysctls;
pub mod text;
mod verify;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rulecast_bundle::nft::Family;
use rulecast_bundle::{FamilyOptions, IpvsOptions};
use rulecast_netlink::Device;
use rulecast_netlink::ipvs::{Timeouts, VirtualServer};
use tracing::warn;

use crate::backend::{Applied, Backend, BackendError, Verified};
use crate::view::{Touched, View};
use drain::Drain;
use filter::PacketFilter;
use kernel::{Kernel, excluded};
use plan::{Plan, plan};
use share::{Own, Source};
use state::{State, Step};
use wanted::Wanted;

/// The device that has the VIPs: what is on it is none of the node's own addresses. It is there as long as something of this
/// mode is.
pub const DEVICE: &str = "rulecast0";

/// Between two looks at what others did, and longer for each virtual server, since all of them are listed.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_EACH: Duration = Duration::from_millis(1);
/// The iptables rules are looked at less often, since that takes a process.
const LOOK_AT_RULES: Duration = Duration::from_secs(30);

/// Services in IPVS.
pub struct Ipvs {
    /// None before the first rebuild.
    kernel: Option<Kernel>,
    filter: PacketFilter,
    state: State,
    wanted: Wanted,
    drain: Drain,
    /// Virtual servers in these ranges are other people's.
    exclude: Vec<(IpAddr, u8)>,
    /// What the kernel holds is known. Not after a step that failed, until the next rebuild.
    known: bool,
    next_look: Instant,
    next_look_at_rules: Instant,
}

impl Ipvs {
    /// Asks nothing of the kernel yet: its IPVS is opened, and its modules are loaded, by the first rebuild.
    pub fn open() -> Result<Self, BackendError> {
        Ok(Self {
            kernel: None,
            filter: PacketFilter::default(),
            state: State::default(),
            wanted: Wanted::empty(""),
            drain: Drain::default(),
            exclude: Vec::new(),
            known: false,
            next_look: Instant::now(),
            next_look_at_rules: Instant::now(),
        })
    }

    fn kernel(&mut self) -> Result<&mut Kernel, BackendError> {
        match self.kernel.take() {
            Some(kernel) => Ok(self.kernel.insert(kernel)),
            None => Ok(self.kernel.insert(Kernel::open()?)),
        }
    }

    /// All that can be missing is looked for before anything that serves is touched.
    fn prepare(&mut self, families: &[Served<'_>]) -> Result<Vec<(Family, String)>, BackendError> {
        let saved = self.filter.save(families.iter().map(|served| served.family))?;
        let kernel = self.kernel()?;
        let schedulers: BTreeSet<&str> = families.iter().map(|f| f.ipvs.scheduler.as_str()).collect();
        for scheduler in schedulers {
            kernel.check_scheduler(scheduler)?;
        }
        for (family, _) in &saved {
            kernel.create_sets(*family)?;
        }
        for problem in sysctls::apply(families.iter().any(|f| f.ipvs.strict_arp)) {
            warn!("{problem}");
        }
        Ok(saved)
    }

    /// Carries out a plan and takes note of what is to be waited for.
    fn carry_out(&mut self, plan: &Plan) -> Result<Applied, BackendError> {
        self.known = false;
        let kernel = self.kernel()?;
        let mut applied = kernel.execute(&plan.make)?;
        let removed = kernel.execute(&plan.remove)?;
        applied.kernel += removed.kernel;
        applied.bytes += removed.bytes;
        applied.messages += removed.messages;
        self.state.apply(&plan.make);
        self.state.apply(&plan.remove);
        self.known = true;
        let now = Instant::now();
        for step in &plan.remove {
            if let Step::SetDestination(at, _, 0) = step {
                self.drain.begin(*at, now);
            }
        }
        Ok(applied)
    }

    /// Removes destinations that have no connection left, and virtual servers that nobody wants any more with the last.
    fn drain(&mut self) -> Result<(), BackendError> {
        let now = Instant::now();
        for at in self.drain.take_due(now) {
            let Some(server) = self.state.servers.get(&at) else { continue };
            let waiting: BTreeSet<_> =
                server.destinations.iter().filter(|d| *d.1 == 0).map(|d| *d.0).collect();
            if waiting.is_empty() {
                continue;
            }
            let found = self.kernel()?.destinations(&at)?;
            let idle = |d: &&rulecast_netlink::ipvs::DestinationState| {
                waiting.contains(&d.destination) && d.active == 0 && d.inactive == 0
            };
            let steps: Vec<Step> =
                found.iter().filter(idle).map(|d| Step::RemoveDestination(at, d.destination)).collect();
            if steps.len() < waiting.len() {
                self.drain.again(at, now);
            }
            self.carry_out(&Plan { make: Vec::new(), remove: steps })?;
            if self.wanted.frontend(&at).is_none() {
                let mut touched = plan::Touched::default();
                touched.servers.insert(at);
                let rest = plan(&self.state, &self.wanted, &touched);
                self.carry_out(&rest)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Option<String>, BackendError> {
        let now = Instant::now();
        if self.kernel.is_none() || now < self.next_look {
            return Ok(None);
        }
        let servers = u32::try_from(self.state.servers.len()).unwrap_or(u32::MAX);
        self.next_look = now + LOOK + LOOK_EACH * servers;
        let look = self.kernel()?.look()?;
        if let Some(what) =
            verify::first_difference(&self.state, &look, &self.exclude, self.filter.families())
        {
            return Ok(Some(what));
        }
        if now < self.next_look_at_rules {
            return Ok(None);
        }
        self.next_look_at_rules = now + LOOK_AT_RULES;
        self.filter.first_difference()
    }
}

/// A family that is served.
struct Served<'a> {
    family: Family,
    options: &'a FamilyOptions,
    ipvs: &'a IpvsOptions,
}

/// The families of which the bundle says something, and which this kernel has.
fn families(view: &View) -> Vec<Served<'_>> {
    let both = [Family::V4, Family::V6].into_iter().filter_map(|family| {
        let options = view.options(family)?;
        Some(Served { family, options, ipvs: options.ipvs.as_ref()? })
    });
    both.filter(|served| served.family == Family::V4 || has_ipv6()).collect()
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").is_dir()
}

impl Backend for Ipvs {
    fn rebuild(&mut self, view: &View, node_addrs: &[IpAddr]) -> Result<Applied, BackendError> {
        let families = families(view);
        let Some(first) = families.first() else {
            return Err(BackendError::Rules("it has no options for IPVS".to_owned()));
        };
        self.known = false;
        let saved = self.prepare(&families)?;
        let served: Vec<Family> = families.iter().map(|f| f.family).collect();
        let exclude: Vec<_> = families.iter().flat_map(|f| f.ipvs.exclude.iter().copied()).collect();
        let wanted = Wanted::new(view, node_addrs, &served, &first.ipvs.scheduler);
        let foreign = |at: &VirtualServer| excluded(&exclude, at) && wanted.frontend(at).is_none();
        let state = self.kernel()?.read(foreign)?;
        let table = |f: &Served<'_>| (f.family, rules::tables(f.family, f.options, &view.fact().pod_cidrs));
        // Before the rest: they ask sets, which are there, and what is in them stays right meanwhile.
        self.filter.write(families.iter().map(table).collect(), &saved)?;
        (self.state, self.wanted, self.exclude) = (state, wanted, exclude);
        self.drain.clear();
        let draining = self.state.servers.iter().filter(|(_, server)| server.drains());
        let draining: Vec<VirtualServer> = draining.map(|(at, _)| *at).collect();
        for at in draining {
            self.drain.begin(at, Instant::now());
        }
        let touched = plan::Touched::everything(&self.state, &self.wanted);
        let plan = plan(&self.state, &self.wanted, &touched);
        let applied = self.carry_out(&plan)?;
        let ipvs = first.ipvs;
        let timeouts =
            Timeouts { tcp: ipvs.tcp_timeout, tcp_fin: ipvs.tcp_fin_timeout, udp: ipvs.udp_timeout };
        self.kernel()?.set_timeouts(timeouts)?;
        Ok(applied)
    }

    fn update(
        &mut self,
        view: &View,
        touched: &Touched,
        node_addrs: &[IpAddr],
    ) -> Result<Applied, BackendError> {
        if !self.known {
            return Err(BackendError::not_known());
        }
        let served: Vec<Family> = self.filter.families().collect();
        let mut sources: BTreeSet<Source> = touched.targets.iter().map(Source::of).collect();
        sources.extend(touched.added.iter().chain(&touched.removed).filter_map(Source::of_element));
        if touched.fact && self.wanted.set_own(Own::new(view, node_addrs)) {
            sources.extend(self.wanted.sources(view));
        }
        sources.retain(|source| served.contains(&source.family()));
        let touched = self.wanted.update(view, &sources);
        let plan = plan(&self.state, &self.wanted, &touched);
        if plan.is_empty() {
            return Ok(Applied::default());
        }
        self.carry_out(&plan)
    }

    fn verify(&mut self, _view: &View) -> Result<Verified, BackendError> {
        verify::verify(self)
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        if self.kernel.is_none() {
            return Ok(None);
        }
        if !self.known {
            return Ok(Some("a change of our own failed".to_owned()));
        }
        if let Err(error) = self.drain() {
            self.known = false;
            return Ok(Some(format!("destinations that left could not be removed ({error})")));
        }
        self.look()
    }

    /// The device is there for as long as something else of this mode is; nothing is asked of IPVS where it is not.
    fn clean_up(&mut self) -> Result<(), BackendError> {
        if self.kernel.is_none() && Device::open(DEVICE)?.is_none() {
            return Ok(());
        }
        self.filter.remove()?;
        self.kernel()?;
        let kernel = self.kernel.take().expect("opened above");
        self.known = false;
        self.wanted = Wanted::empty("");
        self.drain.clear();
        kernel.clean_up(&std::mem::take(&mut self.state))
    }
}
