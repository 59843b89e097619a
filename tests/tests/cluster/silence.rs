//! An API server that vanishes without a word: packets are dropped, and nothing is closed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rulecast_tests::cluster::Cluster;
use rulecast_tests::nft::nft;
use rulecast_tests::objects::ready;
use rulecast_tests::wait::wait_for;

use crate::traffic::{answered_by, inside, plain};

/// What `rulecast_connect::NOTICED` promises.
const NOTICED: Duration = Duration::from_secs(30);
const RECONNECT: Duration = Duration::from_mins(1);

pub(crate) fn a_dead_connection_is_noticed(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    let failures = |c: &Cluster| c.applier_metric(0, "rulecast_node_source_errors_total");
    let before = failures(c)?;
    let hub = &c.network.hub;
    let node = c.network.nodes[0].v4;
    let rules = format!(
        "add table inet silence; add chain inet silence in {{ type filter hook input priority -300; }}; \
         add rule inet silence in ip saddr {node} meta l4proto tcp drop"
    );
    nft(hub, &[&rules])?;
    let cut = Instant::now();
    let noticed = wait_for("the node to notice", NOTICED, || {
        let failures = failures(c)?;
        ensure!(failures > before, "{failures} failures");
        Ok(cut.elapsed())
    });
    // It lives on with what it has, and hears of what it missed.
    let served = answered_by(&inside(c), &web.cluster, &["a1", "b1"]);
    let changed = c.set_endpoints("kept", 8080, &[ready("a2")]);
    nft(hub, &["delete table inet silence"])?;
    println!("    noticed after {:.0} s", noticed?.as_secs_f64());
    served.and(changed)?;
    wait_for("the change to arrive", RECONNECT, || answered_by(&inside(c), &web.cluster, &["a2"]))?;
    c.delete_service("kept")
}
