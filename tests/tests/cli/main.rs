//! The command line against a real API server: `cargo test -p rulecast-tests --test cli [-- NAME...]`.
//!
//! The scenarios share an API server on a loopback address of its own network namespace. Objects that the controller and the
//! nodes would write are written by hand, so that each state can be had at once.

use std::process::ExitCode;

use rulecast_tests::runner::{self, Scenario};

use server::Server;

mod acting;
mod objects;
mod reading;
mod sentences;
mod server;

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |server| {
            $module::$name(server)
        })),*]
    };
}

const SCENARIOS: &[Scenario<Server>] = scenarios![
    // Before anything is installed.
    sentences::without_crds_it_says_how_to_install_them,
    sentences::a_server_that_cannot_be_reached_is_named,
    sentences::a_missing_right_is_named_with_its_rule,
    sentences::an_unknown_token_is_not_a_missing_right,
    sentences::a_pool_that_does_not_exist_is_offered_by_others,
    reading::an_empty_cluster_is_no_error,
    reading::pools_and_what_holds_them,
    reading::waiting_ends_with_the_nodes_or_the_time,
    reading::nodes_and_why_they_are_not_current,
    reading::the_history_of_a_pool,
    reading::one_revision_and_those_that_are_gone,
    reading::a_closed_pipe_is_no_failure,
    acting::a_revision_is_approved_by_what_was_reviewed,
    acting::a_shape_is_approved_before_the_cluster_has_it,
    acting::an_approval_waits_for_the_nodes,
    acting::approving_what_is_held_says_so,
    acting::what_cannot_be_approved_is_explained,
    acting::a_hold_keeps_its_reason_as_data,
    acting::resume_says_what_goes_live,
    acting::undo_goes_to_the_revision_before,
    acting::an_exact_undo_warns_and_ends,
    acting::nothing_is_written_on_top_of_somebody_elses_change,
];

fn main() -> ExitCode {
    runner::run(SCENARIOS, Server::start, Server::print_logs)
}
