//! Rules that somebody else removes come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::Cluster;
use rulecast_tests::nft::{nft, state};
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::traffic::{answered_by, plain};

/// What is promised, and as much again for looking.
const LIMIT: Duration = Duration::from_secs(4);

pub(crate) fn what_others_remove_comes_back(c: &mut Cluster) -> anyhow::Result<()> {
    let repaired = plain(c, "repaired", &["a1", "b1", "b2"])?;
    answered_by(&[&c.network.pod("a3").namespace], &repaired.cluster, &["a1", "b1", "b2"])?;
    c.wait_until_in_force()?;
    let node = &c.network.nodes[0].namespace;
    let before = state(node)?;
    let vip = repaired.cluster[0].ip();
    let commands = [
        "flush ruleset".to_owned(),
        "delete table ip rulecast".to_owned(),
        "delete table ip6 rulecast".to_owned(),
        format!("delete element ip rulecast service-ips {{ {vip} . tcp . 80 }}"),
        format!("delete element ip rulecast endpoints {{ {vip} . tcp . 80 . 0 }}"),
        "flush chain ip rulecast services".to_owned(),
        "add rule ip rulecast services drop".to_owned(),
    ];
    for (number, command) in commands.iter().enumerate() {
        let repairs = c.applier_metric(0, "rulecast_node_repairs_total")?;
        nft(node, &command.split(' ').collect::<Vec<_>>())?;
        let start = Instant::now();
        ensure!(state(node)? != before || number > 0, "{command} has changed nothing");
        let what = format!("the rules to be back after {command}");
        wait_for(&what, PATIENCE, || {
            let now = state(node)?;
            let missing: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
            let added: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
            ensure!(missing.is_empty() && added.is_empty(), "missing: {missing:#?}\nadded: {added:#?}");
            Ok(())
        })?;
        let took = start.elapsed();
        ensure!(took < LIMIT, "{command}: the rules came back only after {took:?}");
        wait_for("the repair to be counted", PATIENCE, || {
            let now = c.applier_metric(0, "rulecast_node_repairs_total")?;
            ensure!(now > repairs, "{now}");
            Ok(())
        })?;
        let log = c.appliers[0].log();
        let told =
            log.lines().rev().find(|line| line.contains("repaired")).context("no repair in the log")?;
        ensure!(told.contains("by nft"), "the log does not tell who did it: {told}");
    }
    answered_by(&[&c.network.pod("a3").namespace], &repaired.cluster, &["a1", "b1", "b2"])?;
    // Other people's tables are theirs.
    nft(node, &["add", "table", "ip", "other"])?;
    let repairs = c.applier_metric(0, "rulecast_node_repairs_total")?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(c.applier_metric(0, "rulecast_node_repairs_total")? <= repairs, "a foreign table is no reason");
    nft(node, &["delete", "table", "ip", "other"])?;
    c.delete_service("repaired")
}
