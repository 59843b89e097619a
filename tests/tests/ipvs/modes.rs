//! Into IPVS mode and out of it, from and to the other mode that this kernel can run.

use std::process::Command;

use anyhow::{Context as _, ensure};
use rulecast_bundle::Mode;
use rulecast_compiler::model::Pool;
use rulecast_node::backend::{Backend as _, BackendError};
use rulecast_node::modes::{self, Modes};
use rulecast_node::view::View;
use rulecast_node::{addresses, ipvs};

use crate::world::{VIP, World, at, service, tcp};

/// What the tools list of a mode.
fn listed(tool: &str) -> anyhow::Result<String> {
    let output = Command::new(tool).args(if tool == "ipvsadm" { &["-Sn"][..] } else { &[] }).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn modes_take_over_from_each_other(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1", "b1"])?;
    let (node, backend) = (&world.network.nodes[0].namespace, &mut world.backend);
    node.run(|| backend.clean_up())??;
    let mut views = Vec::new();
    for mode in [Mode::Iptables, Mode::Ipvs] {
        let mut options = world.options.clone();
        options.mode = mode;
        world.compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        world.compiler.compile();
        let bundle = world.compiler.pools().next().context("the pool")?.1.bundle();
        views.push((mode, View::new("node-a", bundle)));
    }
    let shared = &*world;
    shared.node().run(|| -> anyhow::Result<()> {
        let mut modes = Modes::new(modes::open);
        for round in 0..4 {
            let (mode, view) = &views[round % 2];
            modes.rebuild(view, &addresses::of_this_node().unwrap_or_default())?;
            let answer = tcp(shared.pod("a2"), at(VIP, 80))?;
            ensure!(answer.pod().is_ok(), "mode {mode}: {answer:?}");
            let (rules, servers) = (listed("iptables-legacy-save")?, listed("ipvsadm")?);
            let ipvs = *mode == Mode::Ipvs;
            ensure!(
                rules.contains("RCV-") == ipvs && rules.contains(":RC-SERVICES") != ipvs,
                "{mode}: {rules}"
            );
            ensure!(servers.contains(VIP) == ipvs, "{mode}: {servers}");
        }
        match modes.clean_up() {
            // What this kernel does not have.
            Ok(()) | Err(BackendError::Netlink(_) | BackendError::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let rules = listed("iptables-legacy-save")?;
        ensure!(!rules.contains("RC"), "{rules}");
        Ok(())
    })??;
    // As the other scenarios expect it.
    world.backend = world.node().run(ipvs::Ipvs::open)??;
    let _begun_anew = world.try_options(world.options.clone())?;
    world.rebuild()??;
    Ok(())
}
