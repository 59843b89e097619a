//! Scenarios on a real API server and real kernels: `cargo test -p rulecast-tests --test cluster [-- NAME...]`.
//!
//! They share a cluster and run one after the other, so each of them begins with what the one before left behind, which
//! has to work: `recover` starts what is not running and waits until both nodes are up to date.

use std::process::ExitCode;

use rulecast_tests::cluster::Cluster;
use rulecast_tests::runner::{self, Scenario};

mod bad_input;
mod flow_control;
mod guards;
mod leaders;
mod privileges;
mod releases;
mod repair;
mod reports;
mod restarts;
mod silence;
mod tampering;
mod traffic;
mod traffic_outside;

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |cluster| {
            cluster.recover()?;
            $module::$name(cluster)
        })),*]
    };
}

const SCENARIOS: &[Scenario<Cluster>] = scenarios![
    reports::both_nodes_report_what_is_published,
    reports::a_held_node_reports_it,
    privileges::the_programs_can_do_their_work_and_nothing_else,
    privileges::without_net_admin_the_applier_says_so,
    traffic::endpoints_and_ports_are_followed,
    traffic::a_pod_reaches_itself_through_its_service,
    traffic::clients_stick_to_their_endpoint,
    traffic_outside::node_ports_answer_on_every_node,
    traffic_outside::load_balancer_addresses_come_and_go,
    traffic_outside::policy_local_keeps_the_client_address,
    repair::what_others_remove_comes_back,
    bad_input::one_bad_object_holds_up_nobody,
    flow_control::requests_have_levels_of_their_own,
    guards::losing_the_services_needs_a_word,
    releases::a_new_shape_waits_for_approval,
    releases::an_undo_brings_the_old_shape_with_todays_endpoints,
    releases::a_hold_is_for_shapes_and_not_for_endpoints,
    releases::a_new_shape_comes_in_waves,
    leaders::a_killed_leader_is_replaced,
    leaders::a_leader_that_ends_hands_over,
    leaders::a_leader_that_hung_does_no_harm,
    silence::a_dead_connection_is_noticed,
    restarts::the_controller_is_killed,
    restarts::the_applier_is_killed_while_the_api_server_is_away,
    restarts::the_api_server_is_restarted,
    tampering::altered_bundles_are_refused,
    tampering::another_pools_bundle_is_refused,
    tampering::a_deleted_bundle_is_made_again,
    tampering::a_lower_sequence_is_refused,
    tampering::a_restored_cluster_is_accepted_by_its_epoch,
];

fn main() -> ExitCode {
    runner::run(SCENARIOS, || Cluster::start("rc-test", 3), Cluster::print_logs)
}
