//! What a node does for its Services beside rules: UDP flows, health checks, settings of the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant as Clock;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Change, Key, Settings};
use rulecast_netlink::AddressMonitor;
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use crate::applier::Applier;
use crate::backend::Backend;
use crate::flows::FlowTable;
use crate::health_checks::{HealthCheck, HealthChecks, Listen};
use crate::status::Shared;
use crate::sysctl::{ConntrackSettings, Sysctls};
use crate::view::View;

/// UDP flows are looked at once in this time at most: conntrack goes through its whole table for it.
const SETTLE_FLOWS: Duration = Duration::from_secs(1);
/// What fails is tried again after twice the time it was before, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The parts that are there; without one, what it does is left undone.
#[derive(Default)]
pub struct Edges {
    /// Where UDP flows are forgotten.
    flows: Option<Box<dyn FlowTable>>,
    /// Who tells that the node's addresses changed.
    addresses: Option<AddressMonitor>,
    /// The servers of healthCheckNodePorts.
    health_checks: Option<HealthChecks>,
    /// Where settings are written.
    sysctls: Option<Sysctls>,
    /// When flows may be looked at again.
    next_settle: Option<Instant>,
    /// How long to wait after a failure.
    pause: Duration,
    /// What was asked for when settings were written last.
    settings: Settings,
    /// What was told last that could not be done.
    told: Vec<String>,
}

impl Edges {
    /// With a conntrack table and a way to hear of changed addresses, where there are such, and with servers for health
    /// checks, unless the program ends before somebody could ask.
    #[must_use]
    pub fn new(
        flows: Option<Box<dyn FlowTable>>,
        addresses: Option<AddressMonitor>,
        health_checks: Option<HealthChecks>,
    ) -> Self {
        Self { flows, addresses, health_checks, sysctls: Some(Sysctls::default()), ..Self::default() }
    }

    /// Follows a version that came into force.
    pub(super) fn follow<B: Backend>(&mut self, applier: &mut Applier<B>, shared: &Shared) {
        self.settle_flows(applier, shared);
        if applier.take_counts_changed() {
            self.serve_health_checks(applier);
        }
        let settings = *applier.view().settings();
        if std::mem::replace(&mut self.settings, settings) != settings
            && let Some(sysctls) = &self.sysctls
        {
            for problem in sysctls.apply(&conntrack(&settings)) {
                warn!("{problem}");
            }
        }
        count_without_local(applier.view(), shared);
    }

    /// What is to be done now and then. Returns whether the node's addresses may have changed. A monitor that fails is no
    /// loss: addresses are looked at from time to time all the same.
    pub(super) fn tick<B: Backend>(&mut self, applier: &mut Applier<B>, shared: &Shared) -> bool {
        self.settle_flows(applier, shared);
        if let Some(checks) = &mut self.health_checks {
            checks.retry();
        }
        self.addresses.as_mut().is_some_and(|monitor| monitor.changed().unwrap_or(true))
    }

    fn settle_flows<B: Backend>(&mut self, applier: &mut Applier<B>, shared: &Shared) {
        if !applier.flows_mut().is_due() {
            return;
        }
        let addrs = [Family::V4, Family::V6].map(|family| {
            let answering = applier.view().node_port_addrs(family, applier.node_addrs());
            answering.map_or_else(|| applier.node_addrs().to_vec(), |addrs| addrs.into_iter().collect())
        });
        let flows = applier.flows_mut();
        let Some(table) = &mut self.flows else {
            flows.overlook();
            return;
        };
        let now = Instant::now();
        if self.next_settle.is_some_and(|at| now < at) {
            return;
        }
        self.next_settle = Some(now + SETTLE_FLOWS);
        for (family, addrs) in [Family::V4, Family::V6].into_iter().zip(&addrs) {
            let start = Clock::now();
            match flows.settle(&mut **table, family, addrs) {
                Ok(None) => {}
                Ok(Some(forgotten)) => {
                    self.pause = SETTLE_FLOWS;
                    debug!(?family, forgotten, "looked at UDP flows");
                    shared.lock().1.conntrack_reconciled(family, start.elapsed(), forgotten);
                }
                Err(error) => {
                    warn!(%error, "UDP flows to endpoints that are gone may stay there; trying again");
                    self.pause = (self.pause * 2).clamp(SETTLE_FLOWS, LONGEST_PAUSE);
                    self.next_settle = Some(now + self.pause);
                }
            }
        }
    }

    /// Also when the node's addresses changed.
    pub(super) fn serve_health_checks<B: Backend>(&mut self, applier: &Applier<B>) {
        let Some(checks) = &mut self.health_checks else { return };
        let view = applier.view();
        let wanted = view.health_checks().map(|(port, owner, local_endpoints)| {
            let (namespace, name) = owner.split_once('/').unwrap_or(("", owner));
            HealthCheck { port, namespace: namespace.to_owned(), name: name.to_owned(), local_endpoints }
        });
        checks.set(wanted.collect(), &listen(view, applier.node_addrs()));
        let problems = checks.problems();
        if self.told != problems {
            problems.iter().filter(|p| !self.told.contains(p)).for_each(|problem| warn!("{problem}"));
            self.told = problems;
        }
    }
}

/// Health checks listen where nodePorts are answered, in both families whatever that of the Service: a load balancer may
/// ask over either.
fn listen(view: &View, node_addrs: &[IpAddr]) -> Listen {
    let mut addrs = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        match view.node_port_addrs(family, node_addrs) {
            None => return Listen::All,
            Some(of_family) => addrs.extend(of_family),
        }
    }
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    Listen::Addrs(addrs.into_iter().filter(|a| node_addrs.contains(a) && !link_local(a)).collect())
}

fn conntrack(settings: &Settings) -> ConntrackSettings {
    let timeout = |seconds: Option<u32>| seconds.map(|s| std::time::Duration::from_secs(s.into()));
    ConntrackSettings {
        max_per_core: settings.conntrack_max_per_core,
        min: settings.conntrack_min,
        tcp_established_timeout: timeout(settings.tcp_established_timeout),
        tcp_close_wait_timeout: timeout(settings.tcp_close_wait_timeout),
        udp_timeout: timeout(settings.udp_timeout),
        udp_stream_timeout: timeout(settings.udp_stream_timeout),
        tcp_be_liberal: settings.tcp_be_liberal,
    }
}

fn count_without_local(view: &View, shared: &Shared) {
    let (_, metrics) = &mut *shared.lock();
    for (family, count) in [Family::V4, Family::V6].into_iter().zip(view.counts().no_local) {
        metrics.no_local_endpoints(family, count.internal, count.external);
    }
}

/// Changes of endpoints and of Services.
pub(super) fn count(changes: &[Change]) -> (usize, usize) {
    let of = |is: fn(&Key) -> bool| changes.iter().filter(|change| is(&change.key)).count();
    (of(|key| matches!(key, Key::Member { .. })), of(|key| matches!(key, Key::Group(_))))
}
