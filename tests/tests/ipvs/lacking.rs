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

/// This kernel has nf_tables without the families of IP, and then not at all: what was in force stays, and nothing can be left of
/// that mode.
pub(crate) fn nf_tables(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    let [nftables, ipvs] = [Mode::Nftables, Mode::Ipvs].map(|mode| world.view_in(mode));
    let (nftables, ipvs) = (nftables?, ipvs?);
    let shared = &*world;
    let refuse = || -> anyhow::Result<()> {
        let mut modes = Modes::new(modes::open);
        let addrs = rulecast_node::addresses::of_this_node().unwrap_or_default();
        modes.rebuild(&ipvs, &addrs)?;
        lacks(modes.rebuild(&nftables, &addrs).map(drop), "MissingModule", "nf_tables")?;
        ensure!(tcp(shared.pod("a2"), at(VIP, 80))?.pod().is_ok(), "it does not answer any more");
        modes.clean_up()?;
        Ok(())
    };
    let refused = shared.node().run(refuse)?;
    let without =
        refused.and_then(|()| without_modules("nft_", "nf_tables", || shared.node().run(refuse)?));
    world.begin_anew()?;
    without
}

/// A kernel without IPVS.
pub(crate) fn ip_vs(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    let (node, backend) = (&world.network.nodes[0].namespace, &mut world.backend);
    node.run(|| backend.clean_up())??;
    let begin = || Ipvs::open()?.rebuild(&world.view, &[]).map(drop);
    let without = without_modules("ip_vs", "ip_vs", || {
        world.node().run(|| lacks(begin(), "MissingModule", "modprobe ip_vs"))?
    });
    world.begin_anew()?;
    without
}

/// Does something while a module is not there, nor those that need it, whose names begin with `prefix`; asking for it does not load
/// it.
fn without_modules(
    prefix: &str,
    name: &str,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let loader = fs::read_to_string(LOADER)?;
    fs::write(LOADER, "/nonexistent")?;
    let result = unload(prefix, name).and_then(|()| work());
    fs::write(LOADER, loader.trim())?;
    result
}

const LOADER: &str = "/proc/sys/kernel/modprobe";

fn unload(prefix: &str, name: &str) -> anyhow::Result<()> {
    // Each round takes what nothing needs any more.
    for _ in 0..8 {
        let loaded = fs::read_to_string("/proc/modules")?;
        let modules = loaded.lines().filter_map(|line| line.split(' ').next());
        if !modules.clone().any(|module| module == name) {
            return Ok(());
        }
        for module in modules.filter(|module| *module == name || module.starts_with(prefix)) {
            let _needed = Command::new("rmmod").arg(module).output().context("rmmod")?;
        }
    }
    anyhow::bail!("the module {name} cannot be unloaded")
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
