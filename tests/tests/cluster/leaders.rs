//! Two controllers, of which one publishes.
//!
//! How long a change of leaders took is printed; that it is short is not asserted to the second, as machines differ.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::{Cluster, Head};
use rulecast_tests::http;
use rulecast_tests::objects::ready;
use rulecast_tests::process::Process;
use rulecast_tests::wait::{PATIENCE, holds_for, wait_for};

use crate::traffic::{answered_by, inside, plain};

/// Leads by its own account.
fn leads(page: &str) -> anyhow::Result<bool> {
    Ok(http::metric(page, "rulecast_controller_leader")? > 0.0)
}

/// A second controller that has everything compiled and does not lead.
fn standby(c: &Cluster) -> anyhow::Result<Process> {
    let mut second = c.second_controller()?;
    second.start(&c.network.hub)?;
    wait_for("the second controller to be ready", PATIENCE, || {
        let (code, body) = c.ask_second_controller("/readyz")?;
        ensure!(code == 200, "{code} {body}");
        Ok(())
    })?;
    ensure!(!leads(&c.ask_second_controller("/metrics")?.1)?, "both lead");
    wait_for("the first controller to lead", PATIENCE, || {
        ensure!(leads(&c.ask_controller("/metrics")?.1)?, "it does not");
        Ok(())
    })?;
    Ok(second)
}

fn wait_for_head_after(c: &Cluster, before: &Head) -> anyhow::Result<Head> {
    wait_for("a publication", PATIENCE, || {
        let head = c.head()?;
        ensure!(head.sequence > before.sequence, "{head:?}");
        Ok(head)
    })
}

pub(crate) fn a_killed_leader_is_replaced(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    let before = c.wait_until_in_force()?;
    let mut second = standby(c)?;
    let killed = Instant::now();
    c.controller.kill()?;
    c.set_endpoints("kept", 8080, &[ready("a2")])?;
    let after = wait_for_head_after(c, &before)?;
    println!(
        "    from the kill to the first publication of another: {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    // Both families' slices may have come one after the other.
    ensure!(after.sequence <= before.sequence + 2, "a gap: {before:?} {after:?}");
    answered_by(&inside(c), &web.cluster, &["a2"])?;
    let now = c.wait_until_in_force()?;
    c.controller.start(&c.network.hub)?;
    holds_for("nobody publishes without a change", Duration::from_secs(3), || {
        ensure!(c.head()? == now, "{now:?} became {:?}", c.head()?);
        Ok(())
    })?;
    second.terminate()?;
    c.delete_service("kept")
}

pub(crate) fn a_leader_that_ends_hands_over(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    let mut second = standby(c)?;
    c.wait_until_in_force()?;
    let mark = second.log_mark();
    let asked = Instant::now();
    c.controller.terminate()?;
    let ended = asked.elapsed();
    // By its log: asking takes longer than the change.
    wait_for("the second controller to lead", PATIENCE, || {
        let log = second.log_since(mark);
        ensure!(log.contains("leading: this process publishes"), "{log}");
        Ok(())
    })?;
    let led = asked.elapsed();
    println!(
        "    ended after {:.2} s, another one led after {:.2} s",
        ended.as_secs_f64(),
        led.as_secs_f64()
    );
    ensure!(led < Duration::from_secs(3), "{led:?}: the Lease was not given back, or that was not heard");
    let before = c.head()?;
    c.set_endpoints("kept", 8080, &[ready("b2")])?;
    wait_for_head_after(c, &before)?;
    answered_by(&inside(c), &web.cluster, &["b2"])?;
    c.controller.start(&c.network.hub)?;
    second.terminate()?;
    c.delete_service("kept")
}

/// It stands still while it leads, another one publishes, and it goes on as if nothing had happened.
pub(crate) fn a_leader_that_hung_does_no_harm(c: &mut Cluster) -> anyhow::Result<()> {
    let web = plain(c, "kept", &["a1", "b1"])?;
    answered_by(&inside(c), &web.cluster, &["a1", "b1"])?;
    let mut second = standby(c)?;
    let mut before = c.wait_until_in_force()?;
    for endpoint in ["a2", "b2", "a1"] {
        // In the middle of something, perhaps.
        c.set_endpoints("kept", 8080, &[ready("b1")])?;
        c.controller.freeze()?;
        wait_for("the second controller to lead", PATIENCE, || {
            ensure!(leads(&c.ask_second_controller("/metrics")?.1)?, "it does not");
            Ok(())
        })?;
        c.set_endpoints("kept", 8080, &[ready(endpoint)])?;
        wait_for("what the second one publishes", PATIENCE, || {
            answered_by(&inside(c), &web.cluster, &[endpoint])
        })?;
        c.controller.thaw()?;
        let now = wait_for_head_after(c, &before)?;
        holds_for("the first one changes nothing", Duration::from_secs(2), || {
            let head = c.head()?;
            ensure!(head.sequence >= now.sequence, "{now:?} became {head:?}");
            answered_by(&inside(c)[..1], &web.cluster[..1], &[endpoint])
        })?;
        wait_for("one leader", PATIENCE, || {
            let both =
                [leads(&c.ask_controller("/metrics")?.1)?, leads(&c.ask_second_controller("/metrics")?.1)?];
            ensure!(both == [false, true], "{both:?}");
            Ok(())
        })?;
        before = c.wait_until_in_force()?;
        // The next round begins with the first one again.
        second.terminate()?;
        second = standby(c).context("the first one leads again")?;
    }
    second.terminate()?;
    c.delete_service("kept")
}
