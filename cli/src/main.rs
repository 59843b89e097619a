//! `kubectl rulecast`.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod act;
mod check;
mod cluster;
mod demo;
mod diff;
mod exit;
mod export;
mod fleet;
mod history;
mod import;
mod lookup;
mod man;
mod nodes;
mod output;
mod render;
mod show;
mod side;
mod status;
mod waiting;

/// Kubernetes Service rules as reviewed, versioned bundles.
#[derive(Parser)]
#[command(name = "kubectl-rulecast", version, arg_required_else_help = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what each pool serves, what holds it or waits, and how its nodes stand.
    #[command(after_help = status::HELP)]
    Status(status::Options),
    /// List a pool's revisions: what is live, pinned, approved and pending, and since when.
    #[command(after_help = history::HELP)]
    History(history::Options),
    /// Show a pool, or one revision of it: where it comes from and what is different.
    #[command(after_help = show::HELP)]
    Show(show::Options),
    /// List nodes: what each of them runs, and why not something newer.
    #[command(after_help = nodes::HELP)]
    Nodes(nodes::Options),
    /// Let a shape go live that waits for approval.
    #[command(after_help = act::approve::HELP)]
    Approve(act::approve::Options),
    /// Stop new shapes from going live.
    #[command(after_help = act::hold::HELP)]
    Hold(act::hold::Options),
    /// End a hold, a rollback and an exact replay.
    #[command(after_help = act::resume::HELP)]
    Resume(act::resume::Options),
    /// Go back to an older revision: its Services, ports, policies and options, with the endpoints of today.
    #[command(after_help = act::undo::HELP)]
    Undo(act::undo::Options),
    /// Check an installation, or with --pre whether a cluster is ready for one; each failure comes with a next step.
    #[command(after_help = check::HELP)]
    Check(check::Options),
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
    /// Print the manual page, or write those of all commands into a folder.
    #[command(after_help = man::HELP)]
    Man(man::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("kubectl-rulecast: {error:#}"));
            ExitCode::from(exit::ERROR)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let outcome = match command {
        Command::Status(options) => status::run(&options),
        Command::History(options) => history::run(&options),
        Command::Show(options) => show::run(&options),
        Command::Nodes(options) => nodes::run(&options),
        Command::Approve(options) => act::approve::run(&options),
        Command::Hold(options) => act::hold::run(&options),
        Command::Resume(options) => act::resume::run(&options),
        Command::Undo(options) => act::undo::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Demo(options) => demo::run(&options).map(|()| exit::Outcome::Fine),
        Command::Diff(options) => return diff::run(&options),
        Command::Export(options) => return export::run(&options),
        Command::Render(options) => return render::run(&options),
        Command::Import(command) => return import::run(&command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-rulecast", &mut script);
            output::write(&String::from_utf8(script)?).map(|()| exit::Outcome::Fine)
        }
        Command::Man(options) => man::run(&options, Cli::command()),
    };
    outcome.map(ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
