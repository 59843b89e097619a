//! The command line of `rulecast-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  # In a cluster, as its service account (what the Deployment does):
  rulecast-controller run

  # From a laptop, against a cluster:
  rulecast-controller run --kubeconfig ~/.kube/config --context staging

  # Without any cluster: compile a directory of manifests into a directory, and follow changes:
  rulecast-controller run --manifests ./manifests --output ./bundles

  # In CI: compile what is reviewed, once, and fail when anything cannot be used:
  rulecast-controller run --manifests ./manifests --output ./bundles --once --strict

  # What a live cluster would be compiled to, without writing to it:
  rulecast-controller run --output /tmp/bundles --once";

/// Compiles Services and EndpointSlices to rule bundles and publishes them to the nodes.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compile and publish, and go on as things change.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// Print the completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The options of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Read manifests (YAML, JSON) from this directory instead of watching a cluster.
    #[arg(long, value_name = "DIR", env = "RULECAST_MANIFESTS")]
    pub manifests: Option<PathBuf>,
    /// Publish into this directory instead of into the cluster's RuleBundles.
    #[arg(long, value_name = "DIR", env = "RULECAST_OUTPUT")]
    pub output: Option<PathBuf>,
    /// How to reach the cluster. Without it: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Compile this RulePool only; may be given several times. Without it: all.
    #[arg(long = "pool", value_name = "NAME")]
    pub pools: Vec<String>,
    /// The shortest time between two publications of a pool, from 100ms to 10s, instead of the RulePools' own
    /// publishInterval.
    #[arg(long, value_name = "DURATION", value_parser = publish_interval)]
    pub publish_interval: Option<Duration>,
    /// Publish even if most Services are gone. Without it nothing is published that serves none of the Services served
    /// before, or over 20 % fewer.
    #[arg(long)]
    pub allow_shrink: bool,
    /// How long chunks are kept that no bundle leads to any more, for nodes that are still reading them.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub keep_chunks: Duration,
    /// Compile and publish once, then exit.
    #[arg(long)]
    pub once: bool,
    /// With --once: exit with status 2 when anything could not be used.
    #[arg(long, requires = "once")]
    pub strict: bool,
    /// Publish only while holding the Lease `rulecast-controller` in this namespace, so that others can stand by; not with
    /// --once or --output. Without it, two controllers do no harm, but read each other's work over and over.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// The name to hold the Lease by.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,
    /// Where /livez, /readyz and /metrics are served; with --once they are not.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10266", env = "RULECAST_BIND")]
    pub bind: SocketAddr,
    /// The form of the log, which goes to standard error.
    #[arg(long, value_enum, default_value_t, env = "RULECAST_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// The least important messages to log.
    #[arg(long, value_enum, default_value_t, env = "RULECAST_LOG_LEVEL")]
    pub log_level: LogLevel,
}

/// How messages are written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

/// How important messages are.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<rulecast_api::Duration>().map(rulecast_api::Duration::get).map_err(|e| e.to_string())
}

fn publish_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(10);
    if range.contains(&interval) { Ok(interval) } else { Err("it must be from 100ms to 10s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn intervals_have_bounds() {
        for (text, wanted) in [
            ("100ms", Some(100)),
            ("1.5s", Some(1500)),
            ("10s", Some(10_000)),
            ("99ms", None),
            ("11s", None),
            ("1", None),
        ] {
            assert_eq!(publish_interval(text).ok(), wanted.map(Duration::from_millis), "{text}");
        }
    }
}
