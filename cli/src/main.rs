//! `kubectl rulecast`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod demo;
mod diff;
mod export;
mod import;
mod render;
mod side;

/// Kubernetes Service rules as reviewed, versioned bundles.
#[derive(Parser)]
#[command(name = "kubectl-rulecast", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole path on this machine: manifests, bundle, kernel, real connections. No cluster is needed.
    #[command(
        after_help = "Examples:\n  kubectl-rulecast demo\n  kubectl-rulecast demo --manifests manifests/samples/demo --keep ./demo-bundles"
    )]
    Demo(demo::Options),
    /// Compare what two directories of manifests compile to: the Services, their addresses, ports and policies.
    #[command(after_help = diff::HELP)]
    Diff(diff::Options),
    /// Write what a directory of manifests compiles to as a tree of small files, for Git.
    #[command(after_help = export::HELP)]
    Export(export::Options),
    /// Print the nftables rules that a node would have.
    #[command(after_help = render::HELP)]
    Render(render::Options),
    /// Make rulecast's resources from another proxy's configuration.
    #[command(subcommand)]
    Import(import::Command),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Examples:\n  source <(kubectl-rulecast completion bash)\n  kubectl-rulecast completion fish > ~/.config/fish/completions/kubectl-rulecast.fish"
    )]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Diff(options) => diff::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Render(options) => render::run(&options),
        Command::Import(command) => import::run(&command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-rulecast", &mut script);
            let _closed_pipe = std::io::stdout().write_all(&script);
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _closed_pipe = writeln!(std::io::stderr(), "kubectl-rulecast: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
