//! `docs/gitops.md` as a test, on a real API server and real kernels: `cargo test -p rulecast-tests --test gitops`.

use std::process::ExitCode;

use rulecast_tests::cluster::Cluster;
use rulecast_tests::namespace::{remove_leftovers, require};
use rulecast_tests::runner::{self, Scenario};

mod document;
mod example;
mod health;

const PREFIX: &str = "rc-git";

const SCENARIOS: &[Scenario<Cluster>] = &[
    ("example::the_document_does_what_it_says", example::the_document_does_what_it_says),
    ("health::argo_cd_and_flux_read_the_status", health::argo_cd_and_flux_read_the_status),
];

fn main() -> ExitCode {
    let start = || {
        require(&["git", "bash"])?;
        remove_leftovers(PREFIX)?;
        Cluster::start(PREFIX, 1)
    };
    runner::run(SCENARIOS, start, Cluster::print_logs)
}
