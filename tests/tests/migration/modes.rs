//! The mode of a live pool changes.

use anyhow::ensure;
use rulecast_tests::cluster::POOL;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::kube_proxy::Mode;
use crate::rules;
use crate::site::{IPTABLES, NFTABLES, Site};
use crate::take_over::changes_are_followed;
use crate::traffic::Traffic;
use crate::who::{self, Proxy};

pub(crate) fn a_live_pool_changes_its_mode_and_back(site: &mut Site) -> anyhow::Result<()> {
    site.empty()?;
    site.import_pool(Mode::Nftables, NFTABLES)?;
    site.start_applier(POOL)?;
    ensure!(who::serves(site)? == Proxy::Rulecast, "rulecast serves");
    let mut traffic = Traffic::start(site)?;
    for mode in [IPTABLES, NFTABLES] {
        traffic.step(&format!("the pool's mode becomes {mode}"));
        change(site, mode)?;
        traffic.step("an endpoint goes, and comes back");
        changes_are_followed(site)?;
    }
    traffic.end(2)
}

/// Patches the pool, waits until both nodes run it, and looks that nothing of the other mode is left.
fn change(site: &Site, mode: &str) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "mode": mode } }).to_string();
    site.cluster.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", &patch])?;
    for node in &site.network().nodes {
        wait_for(&format!("{} to run mode {mode}", node.name), PATIENCE, || {
            let status = site.cluster.node_status(&node.name)?;
            ensure!(status["mode"] == mode && status.get("error").is_none(), "{status}");
            Ok(())
        })?;
        only(mode, &node.namespace)?;
    }
    site.verify()
}

/// The rules of this mode are there, and of no other.
pub(crate) fn only(mode: &str, node: &rulecast_tests::namespace::Namespace) -> anyhow::Result<()> {
    let (nftables, iptables) = (rules::without_nftables(node), rules::without_iptables(node));
    let (gone, there) = if mode == NFTABLES { (iptables, nftables) } else { (nftables, iptables) };
    ensure!(there.is_err(), "nothing of mode {mode} is there");
    gone
}
