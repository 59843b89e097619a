//! A node moves to another pool.

use std::time::Duration;

use anyhow::ensure;
use rulecast_tests::cluster::POOL;
use rulecast_tests::objects::ready;
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::wait::{PATIENCE, holds_for, wait_for};
use serde_json::json;

use crate::kube_proxy::Mode;
use crate::modes::only;
use crate::site::{ENDPOINTS, IPTABLES, NFTABLES, Site};
use crate::take_over::changes_are_followed;
use crate::traffic::Traffic;

/// The other pool, of mode iptables.
const OTHER: &str = "older";

/// As when a node's label moves it from one DaemonSet to the other: one applier ends, then the other one starts.
pub(crate) fn a_node_moves_to_a_pool_of_another_mode_and_back(site: &mut Site) -> anyhow::Result<()> {
    start(site)?;
    let mut traffic = Traffic::start(site)?;
    for (pool, mode) in [(OTHER, IPTABLES), (POOL, NFTABLES)] {
        traffic.step("the applier is stopped");
        site.stop_applier()?;
        traffic.step(&format!("the applier of the pool {pool} is started"));
        site.start_applier(pool)?;
        only(mode, site.namespace())?;
        site.verify()?;
        traffic.step("an endpoint goes, and comes back");
        changes_are_followed(site)?;
    }
    traffic.end(2)
}

/// What the disk has of a pool that the node has left is out of date, and its next applier does not begin with it, not even while
/// the API server is away: the rules of the other pool are better.
pub(crate) fn old_rules_of_a_pool_do_not_come_back(site: &mut Site) -> anyhow::Result<()> {
    start(site)?;
    site.stop_applier()?;
    site.start_applier(OTHER)?;
    let (gone, others) = ENDPOINTS.split_last().expect("there are some");
    let left: Vec<_> = others.iter().map(|pod| ready(pod)).collect();
    site.cluster.set_endpoints("moving", 8080, &left)?;
    let pods = |site: &Site| {
        probe::pods(&site.network().pod("a3").namespace, Proto::Tcp, site.services.moving.cluster[0], 40)
    };
    wait_for("the endpoint to leave", PATIENCE, || {
        let seen = pods(site)?;
        ensure!(!seen.contains(*gone), "{seen:?}");
        Ok(())
    })?;
    site.wait_until_in_force(OTHER)?;
    site.stop_applier()?;
    site.cluster.control_plane.kill_api_server(&site.network().hub)?;
    let mut back = site.new_applier(POOL)?;
    back.start(site.namespace())?;
    let held = holds_for("the endpoint that left stays away", Duration::from_secs(2), || {
        let seen = pods(site)?;
        ensure!(!seen.contains(*gone), "{seen:?}");
        Ok(())
    });
    site.cluster.control_plane.start_api_server(&site.network().hub)?;
    held?;
    site.applier = Some(back);
    site.wait_until_in_force(POOL)?;
    only(NFTABLES, site.namespace())?;
    changes_are_followed(site)
}

/// What should not be: the next applier is started while the last one still runs. It waits.
pub(crate) fn two_appliers_at_once(site: &mut Site) -> anyhow::Result<()> {
    start(site)?;
    let mut traffic = Traffic::start(site)?;
    traffic.step("a second applier is started");
    let mut second = site.new_applier(OTHER)?;
    second.start(site.namespace())?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(second.is_running()?, "it waits");
    traffic.step("the first one is stopped");
    site.stop_applier()?;
    site.applier = Some(second);
    site.wait_until_in_force(OTHER)?;
    only(IPTABLES, site.namespace())?;
    site.verify()?;
    changes_are_followed(site)?;
    traffic.end(2)
}

/// Both pools are published, and the node runs the first one.
fn start(site: &mut Site) -> anyhow::Result<()> {
    site.empty()?;
    site.import_pool(Mode::Nftables, NFTABLES)?;
    let mut pool = site.cluster.get(&format!("/apis/rulecast.dev/v1alpha1/rulepools/{POOL}"))?;
    pool["spec"]["mode"] = json!(IPTABLES);
    site.cluster.apply(&[json!({
        "apiVersion": pool["apiVersion"], "kind": pool["kind"], "metadata": { "name": OTHER }, "spec": pool["spec"],
    })])?;
    // The nodes' ClusterRole names the bundles that they may watch.
    let names = json!({ "op": "add", "path": "/rules/0/resourceNames/-", "value": OTHER });
    let patch = json!([names]).to_string();
    site.cluster.kubectl(&["patch", "clusterrole", "rulecast-node", "--type=json", "-p", &patch])?;
    wait_for("the bundle of the other pool", PATIENCE, || site.cluster.head_of(OTHER))?;
    site.start_applier(POOL)
}
