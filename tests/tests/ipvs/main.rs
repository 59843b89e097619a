//! IPVS mode with real connections: `cargo test -p rulecast-tests --test ipvs [-- NAME...]`.
//!
//! This program boots user-mode Linux, which has IPVS, and runs itself there; what follows is one small cluster of network
//! namespaces inside it. Records come from the compiler and go through the backend of the applier, in this process.

use std::process::ExitCode;

use rulecast_tests::control_plane;
use rulecast_tests::runner::{self, Scenario};
use rulecast_tests::uml::{self, Machine};

mod behaviour;
mod failures;
mod keeping;
mod lacking;
mod listing;
mod modes;
mod outside;
mod schedulers;
mod take_over;
mod whole;
mod world;

use world::World;

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |world| {
            world.clear()?;
            $module::$name(world)
        })),*]
    };
}

const SCENARIOS: &[Scenario<World>] = scenarios![
    behaviour::cluster_ips_answer_over_tcp_and_udp,
    behaviour::a_pod_reaches_itself_through_its_service,
    behaviour::without_endpoints_it_is_refused,
    behaviour::policy_local_inside_drops_where_there_is_none,
    behaviour::clients_stick_to_their_endpoint,
    behaviour::ports_that_are_not_served_are_refused,
    behaviour::timeouts_and_strict_arp_are_set,
    outside::external_addresses_and_node_ports_answer,
    outside::policy_local_keeps_the_client_address,
    outside::source_ranges_let_only_some_in,
    schedulers::each_keeps_its_contract,
    keeping::a_connection_outlives_its_endpoints_removal,
    keeping::udp_flows_move_at_once,
    keeping::fifty_updates_refuse_nobody,
    keeping::a_restart_breaks_no_connection,
    failures::a_missing_scheduler_keeps_what_is_there,
    failures::what_others_remove_comes_back,
    failures::excluded_virtual_servers_stay,
    listing::a_change_costs_the_same_with_many_services,
    listing::what_is_written_is_what_is_there,
    listing::nothing_is_left,
    lacking::nf_tables,
    lacking::ip_vs,
    lacking::iptables_tools,
    modes::modes_take_over_from_each_other,
    whole::from_manifests_to_packets,
    take_over::from_kube_proxy,
];

/// For a control plane, too, in MiB.
const MEMORY: u32 = 3072;

fn main() -> ExitCode {
    if uml::is_inside() {
        uml::inside(|| runner::run(SCENARIOS, World::new, World::print))
    } else if runner::lists() || !runner::wants_any(SCENARIOS) {
        runner::run(SCENARIOS, World::new, World::print)
    } else {
        // Inside nothing can be built.
        if let Err(error) = control_plane::peers() {
            println!("{error:#}");
            return ExitCode::FAILURE;
        }
        uml::boot(Machine { modules: uml::OF_IPVS, memory: MEMORY })
    }
}
