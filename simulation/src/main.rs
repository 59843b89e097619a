//! `rulecast-simulation`: random histories of the whole publication path; see the library's documentation.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use clap::{Parser, Subcommand};
use rulecast_simulation::{run, run_all};

/// Runs random histories of rulecast's whole publication path (controllers, API server, nodes) on a virtual clock, with
/// faults, and checks what is promised at every step.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  rulecast-simulation run --histories 100000
  rulecast-simulation replay 4711 --trace | less

Exit codes: 0, every promise was kept; 1, one was not; 2, wrong arguments."
)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs many histories, each of another seed, until one fails.
    Run {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        histories: u64,
        /// The first seed; the others follow.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
        /// How many at a time. [default: one for each core]
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Runs the history of one seed again.
    Replay {
        /// The seed.
        seed: u64,
        /// Prints what happens, with the virtual time in seconds.
        #[arg(long)]
        trace: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        What::Run { histories, first_seed, jobs } => {
            let jobs = jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
            many(first_seed, histories, jobs)
        }
        What::Replay { seed, trace } => one(seed, trace),
    }
}

fn many(first: u64, histories: u64, jobs: usize) -> ExitCode {
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let result = run_all(first, histories, jobs, |done| {
        if terminal && done.is_multiple_of(100) {
            eprint!("\r{done} of {histories} histories");
        }
    });
    if terminal {
        eprint!("\r");
    }
    match result {
        Ok(events) => {
            println!(
                "{histories} histories, {events} events, {:.1} s: every promise was kept",
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("seed {}: {}", failure.seed, failure.violation);
            eprintln!("See it again with: rulecast-simulation replay {} --trace", failure.seed);
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let story = run(seed, trace);
    for line in &story.lines {
        // A closed pipe is the reader's choice.
        let _closed = writeln!(std::io::stdout(), "{line}");
    }
    match story.violation {
        None => {
            println!(
                "seed {seed}: {} events, hash {:016x}: every promise was kept",
                story.events, story.hash
            );
            ExitCode::SUCCESS
        }
        Some(violation) => {
            eprintln!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}
