//! The same objects and the same packets through the real kube-proxy and through rulecast, side by side, in nftables mode and in
//! iptables mode; and in user-mode Linux, where IPVS is, through rulecast's IPVS mode beside its iptables mode:
//! `cargo test -p rulecast-tests --test differential [-- NAME...]`.
//!
//! One API server serves two worlds whose nodes, pods and clients have the same addresses; in one the nodes run kube-proxy, in
//! the other rulecast. Every change is made once, and every probe is made in both at the same time. They have to agree; the
//! few differences that are meant to be are in `deliberate`. Only where kube-proxy is known to do worse (UDP flows that have
//! nowhere to go, addresses that a node gets at run time) rulecast is held to what is right instead.
//!
//! `RULECAST_SEED=N` repeats a random history.
//!
//! SCTP: the kernels at hand have no SCTP sockets, so its packets cannot be compared; that its ports do not disturb the
//! others, and what is written to the kernel for them, is.

use std::process::ExitCode;

use rulecast_tests::runner::{self, Scenario};
use rulecast_tests::uml::{self, Machine};

use crate::worlds::Worlds;

mod addresses;
mod affinity;
mod api_server;
mod compare;
mod config;
mod connect;
mod deliberate;
mod fixture;
mod fixtures;
mod flows;
mod generator;
mod health;
mod histories;
mod iptables;
mod ipvs;
mod manifests;
mod matrix;
mod objects;
mod outcome;
mod probes;
mod random;
mod sctp;
mod sequence;
mod sequences;
mod settle;
mod shares;
mod targets;
mod world;
mod worlds;

/// Of user-mode Linux, in MiB.
const MEMORY: u32 = 1024;

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

const SCENARIOS: &[Scenario<Worlds>] = scenarios![
    matrix::base,
    matrix::no_local_detector,
    matrix::masquerade_all,
    matrix::masquerade_all_and_no_local_detector,
    matrix::iptables_mode_of_kube_proxy,
    shares::are_even,
    sctp::the_same_addresses_are_served,
    sequences::endpoints_come_and_go,
    sequences::types_change,
    sequences::ports_change,
    sequences::an_address_is_used_again,
    sequences::an_address_is_in_two_slices,
    sequences::labels_are_toggled,
    sequences::a_flow_waits_for_its_service,
    sequences::what_was_refused_may_try_again_from_its_port,
    affinity::clients_stay_until_their_endpoint_goes,
    affinity::all_addresses_share_the_clients,
    affinity::clients_are_forgotten_in_time,
    addresses::prefixes_choose_addresses,
    addresses::addresses_come_and_go,
    addresses::a_node_has_the_address_it_serves,
    health::ports_answer_alike,
    health::ports_answer_in_both_families,
    health::nodes_that_go_say_so,
    histories::end_alike,
    iptables::base,
    iptables::no_local_detector,
    iptables::masquerade_all,
    iptables::masquerade_all_and_no_local_detector,
    iptables::the_variant_is_kubelets,
    iptables::shares_are_even,
    iptables::the_same_sctp_addresses_are_served,
    iptables::endpoints_come_and_go,
    iptables::types_change,
    iptables::ports_change,
    iptables::a_flow_waits_for_its_service,
    iptables::clients_stay_until_their_endpoint_goes,
    iptables::all_addresses_share_the_clients,
    iptables::clients_are_forgotten_in_time,
    iptables::a_node_has_the_address_it_serves,
    iptables::health_ports_answer_alike,
    iptables::histories_end_alike,
    iptables::prefixes_choose_addresses,
    iptables::addresses_come_and_go,
];

/// In user-mode Linux.
const IPVS: &[Scenario<Worlds>] = scenarios![
    ipvs::base,
    ipvs::masquerade_all_and_no_local_detector,
    ipvs::endpoints_come_and_go,
    ipvs::clients_stay_until_their_endpoint_goes,
];

fn main() -> ExitCode {
    let ipvs = || runner::run(IPVS, Worlds::with_iptables, Worlds::print_complaints);
    if uml::is_inside() {
        return uml::inside(ipvs);
    }
    let here = runner::run(SCENARIOS, Worlds::with_kube_proxy, Worlds::print_complaints);
    let there = if runner::lists() || !runner::wants_any(IPVS) {
        ipvs()
    } else {
        uml::boot(Machine { modules: uml::OF_IPVS, memory: MEMORY })
    };
    if here == ExitCode::SUCCESS { there } else { here }
}
