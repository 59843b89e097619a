//! Nodes that lack what a mode needs: each says what, and what to do.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use rulecast_bundle::Mode;
use rulecast_node::backend::{Backend as _, BackendError};
use rulecast_node::ipvs::Ipvs;
use rulecast_node::modes::{self, Modes};
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};

use crate::whole::manifests;
use crate::world::{VIP, World, at, service, tcp};

/// That this is missing, and the message says so.
fn lacks(result: Result<(), BackendError>, reason: &str, word: &str) -> anyhow::Result<()> {
    let error = result.err().with_context(|| format!("without {word} it goes on"))?;
    ensure!(error.reason() == reason && error.to_string().contains(word), "{}: {error}", error.reason());
    Ok(())
}

/// This kernel refuses tables of nf_tables: what was in force stays, and nothing can be left of that mode.
pub(crate) fn nf_tables(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    let [nftables, ipvs] = [Mode::Nftables, Mode::Ipvs].map(|mode| world.view_in(mode));
    let (nftables, ipvs) = (nftables?, ipvs?);
    let shared = &*world;
    shared.node().run(|| -> anyhow::Result<()> {
        let mut modes = Modes::new(modes::open);
        let addrs = rulecast_node::addresses::of_this_node().unwrap_or_default();
        modes.rebuild(&ipvs, &addrs)?;
        lacks(modes.rebuild(&nftables, &addrs).map(drop), "MissingModule", "nf_tables")?;
        ensure!(tcp(shared.pod("a2"), at(VIP, 80))?.pod().is_ok(), "it does not answer any more");
        modes.clean_up()?;
        Ok(())
    })??;
    world.begin_anew()
}

/// A kernel without IPVS.
pub(crate) fn ip_vs(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    let (node, backend) = (&world.network.nodes[0].namespace, &mut world.backend);
    node.run(|| backend.clean_up())??;
    // So that asking does not load it.
    let loader = fs::read_to_string("/proc/sys/kernel/modprobe")?;
    fs::write("/proc/sys/kernel/modprobe", "/nonexistent")?;
    let loaded = fs::read_to_string("/proc/modules")?;
    let names = loaded.lines().filter_map(|line| line.split(' ').next());
    // Schedulers first.
    let (mut schedulers, ip_vs): (Vec<_>, Vec<_>) =
        names.filter(|name| name.starts_with("ip_vs")).partition(|name| *name != "ip_vs");
    schedulers.extend(ip_vs);
    for module in &schedulers {
        let removed = Command::new("rmmod").arg(module).output()?;
        ensure!(removed.status.success(), "{module}: {}", String::from_utf8_lossy(&removed.stderr));
    }
    let begin = || Ipvs::open()?.rebuild(&world.view, &[]).map(drop);
    let without = world.node().run(|| lacks(begin(), "MissingModule", "modprobe ip_vs"))?;
    fs::write("/proc/sys/kernel/modprobe", loader.trim())?;
    without?;
    world.begin_anew()
}

/// A node without the tools of iptables.
pub(crate) fn iptables_tools(world: &mut World) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("manifests"))?;
    fs::write(path("manifests") + "/all.yaml", manifests(world, "rr"))?;
    let (from, to, state) = (path("manifests"), path("bundles"), path("state"));
    let run = |program: &str, args: &[&str]| -> anyhow::Result<Output> {
        let mut command = programs::command(program)?;
        Ok(world.node().run(|| command.args(args).env("PATH", folder.path()).output())??)
    };
    let compiled = run(CONTROLLER, &["run", "--manifests", &from, "--output", &to, "--once", "--strict"])?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let args = ["run", "--bundle-dir", &to, "--state-dir", &state, "--hostname-override", "node-a", "--once"];
    let applied = run(APPLIER, &[&args[..], &["--healthz-bind-address", ""]].concat())?;
    let log = String::from_utf8_lossy(&applied.stderr);
    ensure!(!applied.status.success() && log.contains("install the package iptables"), "{log}");
    Ok(())
}
