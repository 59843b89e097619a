//! Every fixture from every source, with every configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::ensure;
use rulecast_tests::probe::Proto;
use serde_json::Value;

use crate::compare::{Comparison, compare};
use crate::config::{Config, IPTABLES, IPVS, NFTABLES};
use crate::fixture::Fixture;
use crate::fixtures;
use crate::outcome::Outcome;
use crate::probes::{self, Probe, Source};
use crate::targets;
use crate::worlds::Worlds;

/// Connections that miss nobody.
const MANY: usize = 100;

pub(crate) fn base(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, Config::default())
}

pub(crate) fn no_local_detector(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, Config { name: "no local detector", detect_local: false, ..Config::default() })
}

pub(crate) fn masquerade_all(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, Config { name: "masqueradeAll", masquerade_all: true, ..Config::default() })
}

pub(crate) fn masquerade_all_and_no_local_detector(worlds: &mut Worlds) -> anyhow::Result<()> {
    let name = "masqueradeAll, no local detector";
    run(worlds, Config { name, detect_local: false, masquerade_all: true, ..Config::default() })
}

/// rulecast's nftables mode beside kube-proxy's older mode: where they differ, that differs from kube-proxy's newer mode, too.
pub(crate) fn iptables_mode_of_kube_proxy(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, Config { name: "kube-proxy's iptables mode", peer_mode: IPTABLES, ..Config::default() })
}

/// Compares all fixtures.
pub(crate) fn run(worlds: &mut Worlds, config: Config) -> anyhow::Result<()> {
    if worlds.config != config {
        worlds.configure(config)?;
    }
    let fixtures = fixtures::all(&worlds.peer.network);
    write(worlds, &fixtures)?;
    worlds.fixtures = true;
    worlds.settle()?;
    let services = worlds.services()?;
    let mut probes = targets::of_nobody();
    for service in &services {
        probes.extend(targets::of_service(&worlds.peer, service));
    }
    let every_protocol = worlds.config == worlds.base;
    probes.retain(|probe| is_worth_it(worlds, every_protocol, probe));
    let start = Instant::now();
    let comparison = compare(worlds, &probes)?;
    let took = start.elapsed().as_secs_f64();
    println!("  {} probes in {took:.1} s, {} differ on purpose", probes.len(), comparison.deliberate);
    comparison.check(worlds)?;
    if every_protocol { expectations(worlds, &fixtures, &probes, &comparison) } else { Ok(()) }
}

/// Configurations do not tell protocols apart; UDP is refused at once, where TCP takes a second. With iptables two sources show
/// that TCP is served and refused alike.
fn is_worth_it(worlds: &Worlds, every_protocol: bool, probe: &Probe) -> bool {
    match (worlds.config.mode, probe.target.proto) {
        (IPVS, _) => is_worth_it_inside(every_protocol, probe),
        (_, Proto::Udp) => true,
        (NFTABLES, Proto::Tcp) => every_protocol,
        (_, Proto::Tcp) => every_protocol && [Source::Pod("a3"), Source::Node(0)].contains(&probe.source),
    }
}

/// In user-mode Linux, where IPVS is, a connection takes milliseconds: what leads to both nodes is tried at one, over IPv4 at the
/// first and over IPv6 at the second.
fn is_worth_it_inside(every_protocol: bool, Probe { source, target }: &Probe) -> bool {
    let at = |what: &str| target.what.contains(what);
    let is_odd = at("second") || at("loopback");
    let is_double = match target.to.ip() {
        IpAddr::V4(ip) => at("node-b") || ip.octets()[0] == 203 && ip.octets()[3] >= 128,
        IpAddr::V6(ip) => at("node-a") || ip.segments()[0] == 0x2001 && ip.segments()[4] == 0,
    };
    if (is_odd || is_double) && target.fixture != "default" {
        return false;
    }
    match (target.proto, source) {
        // What `expectations` looks at.
        (Proto::Tcp, Source::Pod("a3")) => {
            let first = target.to.is_ipv4() || target.fixture == "only-v6";
            every_protocol && first && target.what == "clusterIP"
        }
        (Proto::Tcp, _) => every_protocol && *source == Source::Client && target.fixture == "default",
        (Proto::Udp, Source::Pod("a1")) => target.what == "clusterIP",
        (Proto::Udp, Source::Pod("a3")) => !at("nodePort"),
        (Proto::Udp, Source::Blocked) => target.has_ranges && at("load balancer"),
        (Proto::Udp, _) => [Source::Node(0), Source::Client].contains(source),
    }
}

impl Worlds {
    /// Makes it as it was at the start, for what comes after the matrix.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        let other_config = self.config != self.base;
        if other_config {
            self.configure(self.base.clone())?;
        }
        let had_fixtures = std::mem::take(&mut self.fixtures);
        if had_fixtures {
            let fixtures = fixtures::all(&self.peer.network);
            self.delete_all(&fixtures.iter().map(|f| f.name.as_str()).collect::<Vec<_>>())?;
        }
        if other_config || had_fixtures {
            self.settle()?;
        }
        Ok(())
    }
}

/// Writes Services and slices.
pub(crate) fn write(worlds: &mut Worlds, fixtures: &[Fixture]) -> anyhow::Result<()> {
    let objects = fixtures.iter().flat_map(|f| [&f.service].into_iter().chain(&f.slices).cloned());
    worlds.apply(&objects.collect::<Vec<_>>())?;
    let with_ingress = fixtures.iter().filter(|f| f.service["spec"]["type"] == "LoadBalancer");
    let statuses: Vec<Value> = with_ingress.map(Fixture::status).collect();
    if statuses.is_empty() { Ok(()) } else { worlds.set_statuses(&statuses) }
}

/// That both do the same says little if it is not what the fixtures are for.
fn expectations(
    worlds: &Worlds,
    fixtures: &[Fixture],
    probes: &[Probe],
    comparison: &Comparison,
) -> anyhow::Result<()> {
    for fixture in fixtures.iter().filter(|f| !f.expected.is_empty()) {
        let is_its = |probe: &Probe| {
            let of_pod = probe.source == Source::Pod("a3") && probe.target.proto == Proto::Tcp;
            of_pod && probe.target.fixture == fixture.name && probe.target.what == "clusterIP"
        };
        let index = probes.iter().position(is_its);
        let Some(index) = index else { anyhow::bail!("{} has no cluster IP", fixture.name) };
        if seen(&comparison.peer[index]) != wanted(fixture) {
            let again = probes::run(&worlds.peer, &probes[index..=index], MANY)?;
            let (seen, wanted) = (seen(&again[0]), wanted(fixture));
            // With iptables a cluster IP that nobody serves leaves the node; the switch says so, or does not.
            let left = worlds.config.peer_mode == IPTABLES
                && fixture.expected == "no answer"
                && seen == BTreeSet::from(["unreachable"]);
            ensure!(
                seen == wanted || left,
                "{}: wanted {wanted:?} of the peer, got {}",
                fixture.name,
                again[0]
            );
        }
    }
    Ok(())
}

fn wanted(fixture: &Fixture) -> BTreeSet<&str> {
    match fixture.expected {
        words @ ("refused" | "no answer" | "one pod") => [words].into(),
        _ if fixture.is_sticky() => ["one pod"].into(),
        pods => pods.split(' ').collect(),
    }
}

/// Who answered, or how it ended.
fn seen(outcome: &Outcome) -> BTreeSet<&str> {
    let until = |text: &'_ str, end: &str| text.find(end).unwrap_or(text.len());
    let keys = outcome.counts().keys().map(|key| &key[..until(key, ",").min(until(key, " port"))]);
    keys.collect()
}
