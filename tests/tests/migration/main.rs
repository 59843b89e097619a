//! `docs/migration.md`, run: one node changes hands between the real kube-proxy and rulecast, there and back, while connections
//! are made without end and others stay open: `cargo test -p rulecast-tests --test migration [-- NAME...]`.
//!
//! Not one new connection may fail or need a second SYN, and none that is open may break or see another address.

use std::process::ExitCode;

use rulecast_tests::runner::{self, Scenario};

use crate::site::Site;

mod callers;
mod commands;
mod kept;
mod kube_proxy;
mod modes;
mod pools;
mod rules;
mod site;
mod sticky;
mod take_over;
mod traffic;
mod who;

const SCENARIOS: &[Scenario<Site>] = &[
    ("take_over::a_gap_is_noticed", take_over::a_gap_is_noticed),
    ("take_over::from_nftables_and_back", take_over::from_nftables_and_back),
    ("take_over::from_iptables_legacy_and_back", take_over::from_iptables_legacy_and_back),
    ("take_over::from_iptables_nft_and_back", take_over::from_iptables_nft_and_back),
    ("take_over::iptables_from_nftables_and_back", take_over::iptables_from_nftables_and_back),
    ("take_over::iptables_from_iptables_legacy_and_back", take_over::iptables_from_iptables_legacy_and_back),
    ("take_over::iptables_from_iptables_nft_and_back", take_over::iptables_from_iptables_nft_and_back),
    ("modes::a_live_pool_changes_its_mode_and_back", modes::a_live_pool_changes_its_mode_and_back),
    (
        "pools::a_node_moves_to_a_pool_of_another_mode_and_back",
        pools::a_node_moves_to_a_pool_of_another_mode_and_back,
    ),
    ("pools::old_rules_of_a_pool_do_not_come_back", pools::old_rules_of_a_pool_do_not_come_back),
    ("pools::two_appliers_at_once", pools::two_appliers_at_once),
    ("commands::of_the_page_are_taken", commands::of_the_page_are_taken),
];

fn main() -> ExitCode {
    runner::run(SCENARIOS, Site::start, Site::print_logs)
}
