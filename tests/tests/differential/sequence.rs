//! Steps one after the other, each made once and compared in both worlds.

use std::time::{Duration, Instant};

use rulecast_tests::probe::Proto;
use serde_json::Value;

use crate::compare::compare_for;
use crate::config::IPVS;
use crate::fixture::Fixture;
use crate::flows::{Flows, Wanted};
use crate::matrix::write;
use crate::probes::{Probe, Source};
use crate::settle::wait;
use crate::targets;
use crate::worlds::Worlds;

/// How long a change may take to be in force with rulecast, from when the API server has it. It takes a fraction of a second
/// where the machine is idle; how long the slowest took is printed. This much means that something waits to be tried again.
const LIMIT: Duration = Duration::from_secs(5);
const SOURCES: [Source; 4] = [Source::Pod("a3"), Source::Pod("b3"), Source::Node(0), Source::Client];

/// A sequence of changes of some Services.
pub(crate) struct Sequence<'w> {
    pub(crate) worlds: &'w mut Worlds,
    services: Vec<String>,
    /// All probes so far: what a Service had must be gone, too.
    probes: Vec<Probe>,
    problems: Vec<String>,
    flows: Vec<Flows>,
    slowest: Duration,
}

impl<'w> Sequence<'w> {
    /// Of these Services; they are removed first if they are there.
    pub(crate) fn new(worlds: &'w mut Worlds, services: &[&str]) -> anyhow::Result<Self> {
        let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
        for service in &services {
            worlds.delete(service)?;
        }
        let slowest = Duration::ZERO;
        Ok(Self { worlds, services, probes: Vec::new(), problems: Vec::new(), flows: Vec::new(), slowest })
    }

    /// Changes something, waits until it is in force and compares.
    pub(crate) fn step(
        &mut self,
        what: &str,
        change: impl FnOnce(&mut Worlds) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        change(self.worlds)?;
        let wanted = self.worlds.write_last()?;
        let start = Instant::now();
        wait(&self.worlds.ours, wanted)?;
        let took = start.elapsed();
        self.slowest = self.slowest.max(took);
        if took > LIMIT {
            self.problems.push(format!("{what}: rulecast took {took:?}"));
        }
        wait(&self.worlds.peer, wanted)?;
        for service in self.worlds.services()? {
            if self.services.iter().any(|name| service["metadata"]["name"] == name.as_str()) {
                self.add_probes(&service);
            }
        }
        let comparison = compare_for(self.worlds, &self.probes, LIMIT)?;
        if let Err(error) = comparison.check(self.worlds) {
            self.problems.push(format!("{what}: {error}"));
        }
        Ok(())
    }

    /// The same, and what becomes of the flows.
    pub(crate) fn step_with_flows(
        &mut self,
        what: &str,
        wanted: Wanted<'_>,
        change: impl FnOnce(&mut Worlds) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.step(what, change)?;
        let ipvs = self.worlds.config.mode == IPVS;
        for flows in &mut self.flows {
            // IPVS, kube-proxy's too, forgets the UDP flows of an endpoint as soon as that gets no new ones.
            let early = ipvs && flows.is_ours();
            let wanted = if early { Wanted { serving: wanted.usable, ..wanted } } else { wanted };
            self.problems.extend(flows.problems(what, wanted));
        }
        Ok(())
    }

    /// Opens flows in both worlds.
    pub(crate) fn open_flows(
        &mut self,
        from: Source,
        udp: std::net::SocketAddr,
        tcp: Option<std::net::SocketAddr>,
    ) -> anyhow::Result<()> {
        for (world, is_ours) in [(&self.worlds.peer, false), (&self.worlds.ours, true)] {
            self.flows.push(Flows::open(world, is_ours, from.namespace(world), udp, tcp)?);
        }
        Ok(())
    }

    fn add_probes(&mut self, service: &Value) {
        for probe in targets::of_service(&self.worlds.peer, service) {
            let same = |p: &&mut Probe| p.source == probe.source && p.target.is_at(&probe.target);
            // TCP waits a second for each refusal: one source does for it.
            let quick = probe.target.proto == Proto::Udp || probe.source == Source::Client;
            match self.probes.iter_mut().find(same) {
                Some(known) => *known = probe,
                None if quick && SOURCES.contains(&probe.source) => self.probes.push(probe),
                None => {}
            }
        }
    }

    /// Fails with what was wrong after any step, and removes the Services.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        for service in &self.services {
            self.worlds.delete(service)?;
        }
        println!("  the slowest step was in force after {} ms", self.slowest.as_millis());
        anyhow::ensure!(self.problems.is_empty(), "{}", self.problems.join("\n"));
        Ok(())
    }
}

impl Worlds {
    /// Writes Services and slices as they are described.
    pub(crate) fn set(&mut self, fixture: &Fixture) -> anyhow::Result<()> {
        write(self, std::slice::from_ref(fixture))
    }
}
