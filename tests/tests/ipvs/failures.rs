//! What goes wrong on nodes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rulecast_node::backend::BackendError;

use crate::world::{VIP, World, at, ip, service, tcp};

pub(crate) fn a_missing_scheduler_keeps_what_is_there(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1", "b1"])?;
    let before = world.node().output("ipvsadm", &["-Sn"])?;
    let mut options = world.options.clone();
    "twos".clone_into(&mut options.ipvs.scheduler);
    let error = world.try_options(options.clone())?.err().context("there is no such scheduler")?;
    ensure!(
        matches!(error, BackendError::Unsupported { .. }) && error.reason() == "UnknownScheduler",
        "{error:?}"
    );
    ensure!(error.to_string().contains("ip_vs_twos"), "{error}");
    ensure!(world.node().output("ipvsadm", &["-Sn"])? == before, "something changed");
    ensure!(tcp(world.pod("a2"), at(VIP, 80))?.pod().is_ok(), "it does not answer any more");
    // With a word that is right, all goes on.
    "wrr".clone_into(&mut options.ipvs.scheduler);
    world.set_options(options)?;
    ensure!(tcp(world.pod("a2"), at(VIP, 80))?.pod().is_ok(), "it does not answer with wrr");
    Ok(())
}

/// Looks until something is noticed; looks are some seconds apart.
fn notice(world: &mut World) -> anyhow::Result<String> {
    for _ in 0..40 {
        if let Some(what) = world.tick()? {
            return Ok(what);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    anyhow::bail!("nothing was noticed")
}

pub(crate) fn what_others_remove_comes_back(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1", "b1"])?;
    ensure!(world.tick()?.is_none(), "nobody was here yet");
    let server = format!("{VIP}:80");
    let addr = format!("{VIP}/32");
    let entry = format!("{VIP},tcp:80");
    for (tool, args, word) in [
        ("ipvsadm", &["-D", "-t", &server][..], "virtual server"),
        ("ip", &["address", "del", &addr, "dev", "rulecast0"], "address"),
        ("ipset", &["del", "RC-SERVED", &entry], "ipset RC-SERVED"),
    ] {
        world.node().output(tool, args)?;
        let what = notice(world)?;
        ensure!(what.contains(word), "{tool} {args:?}: {what}");
        world.rebuild()??;
        ensure!(tcp(world.pod("a2"), at(VIP, 80))?.pod().is_ok(), "{what}: not repaired");
    }
    Ok(())
}

pub(crate) fn excluded_virtual_servers_stay(world: &mut World) -> anyhow::Result<()> {
    for addr in ["192.0.2.1:80", "198.51.100.1:80"] {
        world.node().output("ipvsadm", &["-A", "-t", addr, "-s", "rr"])?;
    }
    let mut options = world.options.clone();
    options.ipvs.exclude = vec![(ip("192.0.2.0"), 24)];
    world.set_options(options)?;
    world.serve(service(), &["a1"])?;
    let listed = world.node().output("ipvsadm", &["-Sn"])?;
    ensure!(listed.contains("192.0.2.1:80") && !listed.contains("198.51.100.1"), "{listed}");
    world.node().output("ipvsadm", &["-D", "-t", "192.0.2.1:80"])?;
    Ok(())
}
