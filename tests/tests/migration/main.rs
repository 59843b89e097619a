//! `docs/migration.md`, run: one node changes hands between the real kube-proxy and rulecast, there and back, while connections
//! are made without end and others stay open: `cargo test -p rulecast-tests --test migration [-- NAME...]`.
//!
//! Not one new connection may fail or need a second SYN, and none that is open may break or see another address.

use std::process::ExitCode;

use rulecast_tests::runner::{self, Scenario};

use crate::site::Site;

mod callers;
mod kept;
mod kube_proxy;
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
];

fn main() -> ExitCode {
    runner::run(SCENARIOS, Site::start, Site::print_logs)
}
