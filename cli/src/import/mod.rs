//! `kubectl rulecast import`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use rulecast_api::{Mode, RulePoolSpec};
use serde_json::{Map, Value, json};

mod cidr;
mod convert;
mod elsewhere;
mod input;
mod leaves;
mod report;

/// What to import.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print the RulePool that does what a kube-proxy configuration does.
    ///
    /// The RulePool goes to standard output; a list of what was carried over, what is not needed and what has no
    /// counterpart goes to standard error.
    #[command(after_help = HELP)]
    KubeProxyConfig(Options),
}

const HELP: &str = "\
Examples:
  # From a cluster:
  kubectl get configmap kube-proxy -n kube-system -o yaml | kubectl-rulecast import kube-proxy-config - > pool.yaml

  # From a file that kube-proxy --config reads, for nodes that shall run the nftables rules:
  kubectl-rulecast import kube-proxy-config /var/lib/kube-proxy/config.conf --mode nftables --name workers

Exit codes:
  0 the RulePool is printed   1 it is printed, but the file has fields that are not understood   2 nothing is printed";

/// The options of `import kube-proxy-config`.
#[derive(Args)]
pub(crate) struct Options {
    /// A KubeProxyConfiguration, or the ConfigMap that holds one (YAML or JSON, as kubectl prints it); - reads standard
    /// input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The RulePool's name.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = pool_name)]
    name: String,
    /// The RulePool's mode, instead of kube-proxy's own. Where the modes differ, options are written that keep the
    /// behaviour; what cannot be kept is listed.
    #[arg(long, value_enum)]
    mode: Option<TargetMode>,
    /// The form of the RulePool.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A RulePool's form.
#[derive(ValueEnum, Clone, Copy, Default)]
enum Output {
    #[default]
    Yaml,
    Json,
}

/// A RulePool's mode.
#[derive(ValueEnum, Clone, Copy)]
enum TargetMode {
    Nftables,
    Iptables,
    Ipvs,
}

impl From<TargetMode> for Mode {
    fn from(mode: TargetMode) -> Self {
        match mode {
            TargetMode::Nftables => Self::Nftables,
            TargetMode::Iptables => Self::Iptables,
            TargetMode::Ipvs => Self::Ipvs,
        }
    }
}

/// A RulePool's name is that of a folder, and of a label's value.
fn pool_name(name: &str) -> Result<String, String> {
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(label)
        && !name.starts_with('-')
        && !name.ends_with('-');
    good.then(|| name.to_owned())
        .ok_or_else(|| "a DNS label is wanted: at most 63 of a-z, 0-9 and '-'".into())
}

/// Runs an import. Nothing is written to standard output unless all of it can be.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::KubeProxyConfig(options) = command;
    let found = input::read(&options.file)?;
    let converted =
        convert::convert(found.leaves, options.mode.map(Mode::from)).with_context(|| found.place.clone())?;
    let pool = manifest(&options.name, &converted.spec)?;
    let text = match options.output {
        Output::Yaml => serde_saphyr::to_string(&pool)?,
        Output::Json => serde_json::to_string_pretty(&pool)? + "\n",
    };
    let report = converted.report.text(&found.place, &options.name);
    let _closed_pipe = std::io::stderr().write_all(report.as_bytes());
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(if converted.report.all_understood() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The RulePool as a person would write it: what the API server adds of itself is left out, except the mode.
fn manifest(name: &str, spec: &RulePoolSpec) -> anyhow::Result<Value> {
    let defaults = serde_json::to_value(RulePoolSpec::default())?;
    let Value::Object(fields) = serde_json::to_value(spec)? else { unreachable!("a struct is an object") };
    let written = fields.into_iter().filter(|(key, value)| key == "mode" || defaults.get(key) != Some(value));
    let mut written: Vec<_> = written.collect();
    // In one order, whatever features of serde_json somebody else in the build turns on.
    written.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(json!({
        "apiVersion": format!("{}/{}", rulecast_api::GROUP, rulecast_api::VERSION),
        "kind": "RulePool",
        "metadata": { "name": name },
        "spec": written.into_iter().collect::<Map<_, _>>(),
    }))
}
