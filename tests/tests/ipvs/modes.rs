//! Into IPVS mode and out of it, from and to the other mode that this kernel can run.

use std::process::Command;

use anyhow::ensure;
use rulecast_bundle::Mode;
use rulecast_node::addresses;
use rulecast_node::backend::Backend as _;
use rulecast_node::modes::{self, Modes};

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
        views.push((mode, world.view_in(mode)?));
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
        modes.clean_up()?;
        let rules = listed("iptables-legacy-save")?;
        ensure!(!rules.contains("RC"), "{rules}");
        Ok(())
    })??;
    world.begin_anew()
}
