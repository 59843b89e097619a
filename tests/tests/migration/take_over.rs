//! From kube-proxy to rulecast and back, on a live node.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::ensure;
use rulecast_tests::cluster::POOL;
use rulecast_tests::objects::ready;
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::kube_proxy::Mode;
use crate::rules;
use crate::site::{ENDPOINTS, Site};
use crate::traffic::Traffic;

pub(crate) fn from_nftables_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::Nftables)
}

pub(crate) fn from_iptables_legacy_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesLegacy)
}

pub(crate) fn from_iptables_nft_and_back(site: &mut Site) -> anyhow::Result<()> {
    there_and_back(site, Mode::IptablesNft)
}

fn there_and_back(site: &mut Site, from: Mode) -> anyhow::Result<()> {
    site.empty()?;
    site.start_kube_proxy(from)?;
    let mut traffic = Traffic::start(site)?;
    take_over(site, &mut traffic, from)?;
    go_back(site, &mut traffic, from)?;
    traffic.end(2)
}

/// Rulecast takes over from a kube-proxy that runs.
fn take_over(site: &mut Site, traffic: &mut Traffic, from: Mode) -> anyhow::Result<()> {
    traffic.step("the applier is started beside kube-proxy");
    site.start_applier(POOL)?;
    traffic.step("kube-proxy is stopped");
    site.stop_kube_proxy()?;
    // Its rules are still there, and nobody keeps them up to date.
    traffic.step("an endpoint goes");
    changes_are_followed(site)?;
    traffic.step("kube-proxy --cleanup");
    site.clean_up_kube_proxy(from)?;
    rules::without_kube_proxy(site.namespace())?;
    site.verify()?;
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
    rules::without_rulecast(site.namespace())
}

/// An endpoint that left gets no new connections, and one that comes gets some.
fn changes_are_followed(site: &Site) -> anyhow::Result<()> {
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
    })
}
