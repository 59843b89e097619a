//! `kubectl rulecast render`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use rulecast_bundle::{Bundle, Key, Mode, Tag, Value};
use rulecast_node::render;
use rulecast_node::view::View;

use crate::cluster::ClusterArgs;
use crate::side::{self, Compiled, Side, Wanted};

pub(crate) const HELP: &str = "\
Examples:
  # The rules that a node of the cluster has, or would have with the shape that waits:
  kubectl-rulecast render --node worker-1
  kubectl-rulecast render pending --node worker-1

  # The rules of a node, in the words of its mode's tools (nft list ruleset, iptables-save, ipvsadm -Sn and ipset save):
  kubectl-rulecast render manifests --node worker-1

  # What they would be in another mode:
  kubectl-rulecast render manifests --node worker-1 --mode iptables

  # What a change of manifests changes in the kernel:
  diff <(kubectl-rulecast render before --node worker-1) <(kubectl-rulecast render after --node worker-1)

It is the state after a start of the applier. Later, members may have other numbers, sets other sizes, and chains that
are of no use at the moment are kept. The output is the same on every run.

Exit codes:
  0 the rules are printed   2 an error; with --strict also: something could not be used";

/// The options of `render`.
#[derive(Args)]
pub(crate) struct Options {
    /// A directory of manifests; or of the cluster: live, pending or the number of a RuleRevision, with the endpoints that are
    /// published now.
    #[arg(value_name = "FROM", default_value = "live")]
    from: Side,
    /// The pool; may be left out when there is only one.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// The node, whose Node should be among the manifests. Left out: a node in no zone, with no endpoints of its own.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// An address of the node, instead of those of its Node object; may be given several times. Those that answer nodePorts
    /// are chosen among them.
    #[arg(long = "node-address", value_name = "ADDRESS")]
    node_addresses: Vec<IpAddr>,
    /// The mode, instead of the RulePool's: what the nodes would have if it were changed. For directories only.
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<RenderMode>,
    /// The form: what the tools of the mode print and read (nft; iptables-restore; ipvsadm and ipset), or the same lines in
    /// JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Print nothing when an object could not be used.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(ValueEnum, Clone, Copy)]
enum RenderMode {
    Nftables,
    Iptables,
    Ipvs,
}

impl From<RenderMode> for Mode {
    fn from(mode: RenderMode) -> Self {
        match mode {
            RenderMode::Nftables => Self::Nftables,
            RenderMode::Iptables => Self::Iptables,
            RenderMode::Ipvs => Self::Ipvs,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Default)]
enum Output {
    /// As the mode's own tools print and read it.
    #[default]
    #[value(alias = "nft")]
    Text,
    /// The same lines.
    Json,
}

/// Prints the rules.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mode = options.mode.map(Mode::from);
    let wanted =
        Wanted { pool: options.pool.clone(), membership: true, mode, cluster: options.cluster.clone() };
    let loaded = side::load_one(&options.from, &wanted, options.strict)?;
    let mut pools = loaded.pools.iter();
    let (Some((pool, compiled)), None) = (pools.next(), pools.next()) else {
        let names: Vec<&str> = loaded.pools.keys().map(String::as_str).collect();
        bail!("--pool: which of the RulePools {}?", names.join(", "));
    };
    let text = render(options, pool, compiled)?;
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn render(options: &Options, pool: &str, compiled: &Compiled) -> anyhow::Result<String> {
    let name = options.node.as_deref().unwrap_or_default();
    let view = View::new(name, &compiled.bundle);
    let addresses =
        if options.node_addresses.is_empty() { &view.fact().addrs } else { &options.node_addresses };
    let rules = render::render(&view, addresses)?;
    Ok(match options.output {
        Output::Text => format!("{}{rules}", comments(options, pool, &compiled.bundle)),
        Output::Json => serde_json::to_string_pretty(&rules)? + "\n",
    })
}

/// What the rules are of.
fn comments(options: &Options, pool: &str, bundle: &Bundle) -> String {
    let mut out = String::new();
    let Some(node) = &options.node else {
        let _ = writeln!(out, "# RulePool {pool}, a node without endpoints of its own");
        return out;
    };
    let known =
        matches!(bundle.get(&Key::Node(Tag::of(node))), Some(Value::Node(fact)) if fact.name == *node);
    let fact = if known { "" } else { ", of which the pool has no Node: no zone, addresses and pod CIDRs" };
    let _ = writeln!(out, "# RulePool {pool}, node {}{fact}", node.escape_debug());
    out
}
