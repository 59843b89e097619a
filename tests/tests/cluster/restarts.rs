//! What happens when a part is gone for a while.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::Cluster;
use rulecast_tests::nft::{nft, state};
use rulecast_tests::objects::ready;
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::wait::{holds_for, wait_for};

use crate::traffic::{answered_by, inside, plain};

/// A leader that was killed is replaced when its lease has run out.
const LEASE: Duration = Duration::from_mins(1);

/// Watches are made anew after a while that doubles with every failure, to 30 s and some jitter.
const RECONNECT: Duration = Duration::from_mins(2);

fn wait_until_ready(c: &Cluster) -> anyhow::Result<()> {
    wait_for("the controller to be ready", LEASE, || {
        let (code, body) = c.ask_controller("/readyz")?;
        ensure!(code == 200, "{code} {body}");
        Ok(())
    })
}

pub(crate) fn the_controller_is_killed(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    let before = c.wait_until_in_force()?;

    c.controller.kill()?;
    c.controller.start(&c.network.hub)?;
    wait_until_ready(c)?;
    holds_for("nothing is published without a change", Duration::from_secs(4), || {
        let now = c.head()?;
        ensure!(now == before, "{before:?} became {now:?}");
        Ok(())
    })?;

    c.controller.kill()?;
    c.set_endpoints("kept", 8080, &[ready("a2")])?;
    holds_for("what is in force stays", Duration::from_secs(1), || {
        ensure!(c.head()? == before, "somebody has published");
        ensure!(probe::connect(inside(c)[1], Proto::Tcp, web.cluster[0])?.pod()? != "a2", "how?");
        Ok(())
    })?;
    c.controller.start(&c.network.hub)?;
    wait_until_ready(c)?;
    answered_by(&inside(c), &web.cluster, &["a2"])?;
    let after = c.wait_until_in_force()?;
    ensure!(after.sequence > before.sequence, "{before:?} {after:?}");
    c.delete_service("kept")
}

pub(crate) fn the_applier_is_killed_while_the_api_server_is_away(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    let from = [&c.network.pod("a3").namespace];
    answered_by(&from, &web.cluster, &["a1", "b1"])?;
    c.wait_until_in_force()?;
    let node = &c.network.nodes[0].namespace;
    let before = state(node)?;

    // Killed: one that is told to end takes itself out of the Service `kubernetes` first, and the rules follow.
    c.control_plane.kill_api_server(&c.network.hub)?;
    c.appliers[0].kill()?;
    ensure!(state(node)? == before, "the rules outlive the applier");
    nft(node, &["flush", "ruleset"])?;
    ensure!(
        probe::connect(from[0], Proto::Tcp, web.cluster[0])?.pod().is_err(),
        "rules are gone, yet it is served"
    );
    c.appliers[0].start(node)?;
    c.wait_for_applier(0)?;
    let from = [&c.network.pod("a3").namespace];
    answered_by(&from, &web.cluster, &["a1", "b1"])?;
    ensure!(state(&c.network.nodes[0].namespace)? == before, "the rules are not what they were");
    let (_, body) = c.ask_applier(0, "/healthz")?;
    ensure!(body.contains("\"restored\":true"), "{body}");

    c.control_plane.start_api_server(&c.network.hub)?;
    wait_for("the node to report that the API server has been heard", RECONNECT, || {
        let status = c.node_status("node-a")?;
        ensure!(status.get("restored").is_none_or(|restored| restored == false), "{status}");
        let (_, body) = c.ask_applier(0, "/healthz")?;
        ensure!(body.contains("\"restored\":false"), "{body}");
        Ok(())
    })?;
    c.set_endpoints("kept", 8080, &[ready("b2")])?;
    wait_for("a change to arrive", RECONNECT, || answered_by(&inside(c), &web.cluster, &["b2"]))?;
    c.delete_service("kept")
}

pub(crate) fn the_api_server_is_restarted(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    let mut before = c.wait_until_in_force()?;
    for (round, endpoint) in ["a2", "b2"].iter().enumerate() {
        let rules: Vec<_> = c.network.nodes.iter().map(|n| state(&n.namespace)).collect::<Result<_, _>>()?;
        if round == 0 {
            c.control_plane.stop_api_server(&c.network.hub)?;
        } else {
            c.control_plane.kill_api_server(&c.network.hub)?;
        }
        std::thread::sleep(Duration::from_secs(2));
        answered_by(&inside(c), &web.cluster, if round == 0 { &["a1", "b1"] } else { &["a2"] })?;
        for (number, node) in c.network.nodes.iter().enumerate() {
            ensure!(
                // One that is told to end takes itself out of the Service `kubernetes` first, and the rules follow.
                round == 0 || state(&node.namespace)? == rules[number],
                "{}: the rules changed",
                node.name
            );
            ensure!(c.ask_applier(number, "/healthz")?.0 == 200, "{} is not well", node.name);
            ensure!(c.ask_applier(number, "/livez")?.0 == 200, "{} is not alive", node.name);
        }
        c.control_plane.start_api_server(&c.network.hub)?;
        c.set_endpoints("kept", 8080, &[ready(endpoint)])?;
        wait_for("a change to arrive", RECONNECT, || answered_by(&inside(c), &web.cluster, &[endpoint]))
            .context("after the API server came back")?;
        let after = c.wait_until_in_force()?;
        ensure!(after.sequence > before.sequence, "{before:?} {after:?}");
        before = after;
    }
    c.delete_service("kept")
}
