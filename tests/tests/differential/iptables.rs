//! The scenarios that matter with iptables, in both worlds: what is compared is the same, and so is what has to come of it.

use anyhow::ensure;
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::config::Config;
use crate::worlds::Worlds;
use crate::{addresses, affinity, health, histories, matrix, sctp, sequences, shares};

/// Chains of ours.
const OURS: &str = ":RC-";
const VARIANTS: [&str; 2] = ["legacy", "nft"];

/// Runs a scenario with iptables where it would have the default configuration.
fn run(worlds: &mut Worlds, scenario: impl FnOnce(&mut Worlds) -> anyhow::Result<()>) -> anyhow::Result<()> {
    worlds.base = Config::iptables();
    let result = scenario(worlds);
    worlds.base = Config::default();
    result
}

pub(crate) fn base(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, |worlds| matrix::run(worlds, Config::iptables()))
}

pub(crate) fn no_local_detector(worlds: &mut Worlds) -> anyhow::Result<()> {
    let name = "iptables, no local detector";
    matrix::run(worlds, Config { name, detect_local: false, ..Config::iptables() })
}

pub(crate) fn masquerade_all(worlds: &mut Worlds) -> anyhow::Result<()> {
    matrix::run(
        worlds,
        Config { name: "iptables, masqueradeAll", masquerade_all: true, ..Config::iptables() },
    )
}

pub(crate) fn masquerade_all_and_no_local_detector(worlds: &mut Worlds) -> anyhow::Result<()> {
    let name = "iptables, masqueradeAll, no local detector";
    matrix::run(worlds, Config { name, detect_local: false, masquerade_all: true, ..Config::iptables() })
}

/// Where kubelet has its chains, there rulecast writes, and nothing is left in the other variant.
pub(crate) fn the_variant_is_kubelets(worlds: &mut Worlds) -> anyhow::Result<()> {
    let hinted = |name, hint| Config { name, hint, ..Config::iptables() };
    // Without a hint: legacy, where there are no rules.
    worlds.configure(Config::iptables())?;
    is_in(worlds, "legacy")?;
    matrix::run(worlds, hinted("iptables, variant nft", Some("nft")))?;
    is_in(worlds, "nft")?;
    worlds.configure(hinted("iptables, variant legacy", Some("legacy")))?;
    is_in(worlds, "legacy")?;
    worlds.configure(Config::iptables())
}

fn is_in(worlds: &Worlds, variant: &str) -> anyhow::Result<()> {
    wait_for(&format!("rules of variant {variant} alone"), PATIENCE, || {
        for node in &worlds.ours.network.nodes {
            for (family, of) in ["iptables", "ip6tables"].into_iter().flat_map(|f| VARIANTS.map(|v| (f, v))) {
                let saved = node.namespace.output(&format!("{family}-{of}-save"), &[])?;
                let count = saved.lines().filter(|line| line.starts_with(OURS)).count();
                ensure!((count > 0) == (of == variant), "{}: {count} chains in {family}-{of}", node.name);
            }
        }
        Ok(())
    })
}

pub(crate) fn shares_are_even(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, shares::are_even)
}

pub(crate) fn the_same_sctp_addresses_are_served(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, sctp::the_same_addresses_are_served)
}

pub(crate) fn endpoints_come_and_go(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, sequences::endpoints_come_and_go)
}

pub(crate) fn types_change(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, sequences::types_change)
}

pub(crate) fn ports_change(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, sequences::ports_change)
}

pub(crate) fn a_flow_waits_for_its_service(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, sequences::a_flow_waits_for_its_service)
}

pub(crate) fn clients_stay_until_their_endpoint_goes(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, affinity::clients_stay_until_their_endpoint_goes)
}

pub(crate) fn all_addresses_share_the_clients(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, affinity::all_addresses_share_the_clients)
}

pub(crate) fn clients_are_forgotten_in_time(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, affinity::clients_are_forgotten_in_time)
}

pub(crate) fn prefixes_choose_addresses(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, addresses::prefixes_choose_addresses)
}

pub(crate) fn addresses_come_and_go(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, addresses::addresses_come_and_go)
}

pub(crate) fn a_node_has_the_address_it_serves(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, addresses::a_node_has_the_address_it_serves)
}

pub(crate) fn health_ports_answer_alike(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, health::ports_answer_alike)
}

pub(crate) fn histories_end_alike(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, histories::one_ends_alike)
}
