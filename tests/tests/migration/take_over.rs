//! From kube-proxy to rulecast and back, on a live node.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{bail, ensure};
use rulecast_tests::cluster::POOL;
use rulecast_tests::objects::ready;
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::kube_proxy::Mode;
use crate::rules;
use crate::site::{ENDPOINTS, IPTABLES, NFTABLES, Site};
use crate::traffic::Traffic;
use crate::who::{self, Proxy};

pub(crate) fn from_nftables_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::Nftables, NFTABLES)
}

pub(crate) fn from_iptables_legacy_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesLegacy, NFTABLES)
}

pub(crate) fn from_iptables_nft_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesNft, NFTABLES)
}

pub(crate) fn iptables_from_nftables_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::Nftables, IPTABLES)
}

pub(crate) fn iptables_from_iptables_legacy_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesLegacy, IPTABLES)
}

pub(crate) fn iptables_from_iptables_nft_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesNft, IPTABLES)
}

/// The other way round: had there been a gap, it would have been seen.
pub(crate) fn a_gap_is_noticed(site: &mut Site) -> anyhow::Result<()> {
    site.empty()?;
    site.start_kube_proxy(Mode::Nftables)?;
    let mut traffic = Traffic::start(site)?;
    traffic.step("nobody serves");
    site.stop_kube_proxy()?;
    site.clean_up_kube_proxy(Mode::Nftables)?;
    traffic.step("the applier is started");
    site.start_applier(POOL)?;
    let Err(error) = traffic.end(1) else { bail!("nobody served, and no connection failed") };
    let error = format!("{error:#}");
    // Who is refused at once fails again and again; who hears nothing waits, and is served when that is over.
    let refused = error.contains("outside to nodePort: ") || error.contains("outside to load balancer: ");
    ensure!(refused && error.contains("(nobody serves)"), "only this failed: {error}");
    Ok(())
}

/// From a kube-proxy of this mode to a pool of mode `ours`, and back.
fn there_and_back(site: &mut Site, mode: Mode, ours: &str) -> anyhow::Result<()> {
    site.empty()?;
    site.import_pool(mode, ours)?;
    site.start_kube_proxy(mode)?;
    ensure!(who::serves(site)? == mode.party(), "kube-proxy serves alone");
    let mut traffic = Traffic::start(site)?;
    begin_and_give_up(site, &mut traffic, mode)?;
    take_over(site, &mut traffic, mode, ours)?;
    go_back(site, &mut traffic, mode)?;
    traffic.end(4)
}

/// The first two steps, and back: kube-proxy is started again, should it be stopped already.
fn begin_and_give_up(site: &mut Site, traffic: &mut Traffic, mode: Mode) -> anyhow::Result<()> {
    traffic.step("the applier is started beside kube-proxy");
    site.start_applier(POOL)?;
    traffic.step("kube-proxy is stopped");
    site.stop_kube_proxy()?;
    traffic.step("second thoughts: kube-proxy is started again");
    site.start_kube_proxy(mode)?;
    traffic.step("the applier is stopped");
    site.stop_applier()?;
    traffic.step("rulecast-node cleanup");
    site.clean_up_rulecast()?;
    rules::without_rulecast(site.namespace())?;
    ensure!(who::serves(site)? == mode.party(), "kube-proxy serves alone again");
    Ok(())
}

/// Rulecast takes over from a kube-proxy that runs.
fn take_over(site: &mut Site, traffic: &mut Traffic, from: Mode, ours: &str) -> anyhow::Result<()> {
    traffic.step("the applier is started beside kube-proxy");
    site.start_applier(POOL)?;
    if ours == NFTABLES {
        // Whose chains came last is asked first.
        let party = who::serves(site)?;
        ensure!(party == Proxy::Rulecast, "{party:?} serves, beside rulecast that came last");
    }
    traffic.step("kube-proxy is stopped");
    site.stop_kube_proxy()?;
    if ours == NFTABLES {
        // kube-proxy's rules are still there, and nobody keeps them up to date.
        traffic.step("an endpoint goes, and comes back");
        changes_are_followed(site)?;
    }
    traffic.step("kube-proxy --cleanup");
    site.clean_up_kube_proxy(from)?;
    rules::without_kube_proxy(site.namespace())?;
    if from != Mode::Nftables {
        rules::loopback_stays_guarded(site.namespace())?;
    }
    site.verify()?;
    if ours != NFTABLES {
        traffic.step("an endpoint goes, and comes back");
        changes_are_followed(site)?;
        rules::without_nftables(site.namespace())?;
    }
    answers_for_itself(site)
}

/// kube-proxy takes over from rulecast.
fn go_back(site: &mut Site, traffic: &mut Traffic, to: Mode) -> anyhow::Result<()> {
    traffic.step("kube-proxy is started beside the applier");
    site.start_kube_proxy(to)?;
    traffic.step("the applier is stopped");
    site.stop_applier()?;
    traffic.step("rulecast-node cleanup");
    site.clean_up_rulecast()?;
    rules::without_rulecast(site.namespace())?;
    traffic.step("an endpoint goes, and comes back");
    changes_are_followed(site)?;
    let party = who::serves(site)?;
    ensure!(party == to.party(), "{party:?} serves");
    health_port_answers(site)
}

/// An endpoint that left gets no new connections, and one that comes gets some.
pub(crate) fn changes_are_followed(site: &Site) -> anyhow::Result<()> {
    let (last, others) = ENDPOINTS.split_last().expect("there are some");
    let all: Vec<_> = ENDPOINTS.iter().map(|pod| ready(pod)).collect();
    for (endpoints, wanted) in [(&all[..others.len()], others), (&all[..], ENDPOINTS)] {
        site.cluster.set_endpoints("moving", 8080, endpoints)?;
        let wanted: BTreeSet<String> = wanted.iter().map(|pod| (*pod).to_owned()).collect();
        let (network, moving) = (site.network(), &site.services.moving);
        let node_port = SocketAddr::new(site.node().v4, moving.node_port);
        let pod = &network.pod("a3").namespace;
        for (from, to) in [(pod, moving.cluster[0]), (&network.client.namespace, node_port)] {
            wait_for(&format!("the endpoints of {to} without or with {last}"), PATIENCE, || {
                let seen = probe::pods(from, Proto::Tcp, to, 40)?;
                ensure!(seen == wanted, "{seen:?} instead of {wanted:?}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// What load balancers and monitoring ask is answered by the applier now.
fn answers_for_itself(site: &Site) -> anyhow::Result<()> {
    let node = site.namespace();
    wait_for("/healthz of the applier", PATIENCE, || {
        let (code, body) =
            rulecast_tests::http::get(node, SocketAddr::from(([127, 0, 0, 1], 10256)), "/healthz")?;
        ensure!(code == 200 && body.contains("sequence"), "{code} {body}");
        Ok(())
    })?;
    health_port_answers(site)
}

/// The health check port, which only one of both can have, answers that there are local endpoints. Rulecast tries every five
/// seconds to get it, kube-proxy whenever it writes rules.
fn health_port_answers(site: &Site) -> anyhow::Result<()> {
    let port = site.health_port()?;
    let to = SocketAddr::new(site.node().v4, port);
    wait_for("the health check port", PATIENCE, || {
        let (code, body) = rulecast_tests::http::get(&site.network().client.namespace, to, "/")?;
        ensure!(code == 200 && body.contains("\"localEndpoints\": 2"), "{code} {body}");
        Ok(())
    })
}
