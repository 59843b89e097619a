//! `kubectl rulecast diff`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use rulecast_bundle::Shape;
use rulecast_review::{Difference, MembershipDifference, membership};
use serde::Serialize;

use crate::cluster::ClusterArgs;
use crate::side::{self, Compiled, Loaded, Side, Wanted};

pub(crate) const HELP: &str = "\
Examples:
  # What waits in the cluster to go live:
  kubectl-rulecast diff

  # Between two revisions; between manifests and what nodes run:
  kubectl-rulecast diff 7 9 --pool default
  kubectl-rulecast diff live ./manifests --pool default

  # What a pull request changes:
  kubectl-rulecast diff main/manifests branch/manifests

  # The same as a review comment, and as data:
  kubectl-rulecast diff main/manifests branch/manifests -o markdown
  kubectl-rulecast diff main/manifests branch/manifests -o json | jq '.pools[].services[].service'

Exit codes:
  0 no difference   1 a difference   2 an error; with --strict also: something could not be used";

/// The options of `diff`.
#[derive(Args)]
pub(crate) struct Options {
    /// Before: a directory of manifests; or of the cluster: live, pending or the number of a RuleRevision.
    #[arg(value_name = "FROM", default_value = "live")]
    from: Side,
    /// After, in the same way.
    #[arg(value_name = "TO", default_value = "pending")]
    to: Side,
    /// Only this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Compare endpoints, too. They are no part of what is reviewed: they change all the time.
    #[arg(long)]
    membership: bool,
    /// Refuse to compare when an object could not be used.
    #[arg(long)]
    strict: bool,
    /// The form of the difference.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Colour the text; without it, on a terminal.
    #[arg(long)]
    color: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(ValueEnum, Clone, Copy, Default)]
enum Output {
    #[default]
    Text,
    Markdown,
    Json,
    Yaml,
}

/// All pools that differ.
#[derive(Serialize)]
struct Pools {
    pools: Vec<PoolDifference>,
}

#[derive(Serialize)]
struct PoolDifference {
    pool: String,
    /// Whether the whole pool came or went.
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<Only>,
    /// The digest of the shape on either side: what an approval names.
    digests: Digests,
    #[serde(flatten)]
    shape: Difference,
    /// With `--membership`.
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipDifference>,
}

#[derive(Serialize)]
struct Digests {
    from: String,
    to: String,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
enum Only {
    Added,
    Removed,
}

/// Runs a comparison.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        pool: options.pool.clone(),
        membership: options.membership,
        mode: None,
        cluster: options.cluster.clone(),
    };
    let sides = side::load(&[&options.from, &options.to], &wanted)?;
    let mut problems: Vec<String> = sides.iter().flat_map(|side| side.problems.clone()).collect();
    problems.dedup();
    side::report(&problems, options.strict)?;
    let [from, to] = sides.as_slice() else { unreachable!("two sides were asked for") };
    let difference = compare(from, to, options)?;
    let text = match options.output {
        Output::Text => difference.text(options.color || on_terminal()),
        Output::Markdown => difference.markdown(),
        Output::Json => serde_json::to_string_pretty(&difference)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&difference)?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(if difference.pools.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Colours are for people who look.
fn on_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn compare(from: &Loaded, to: &Loaded, options: &Options) -> anyhow::Result<Pools> {
    let names: BTreeSet<&String> = from.pools.keys().chain(to.pools.keys()).collect();
    ensure!(
        !names.is_empty(),
        "{}",
        match &options.pool {
            Some(pool) => format!("there is no RulePool {pool} on either side"),
            None => "there is no RulePool that can be used".to_owned(),
        }
    );
    let pools = names
        .into_iter()
        .filter_map(|name| compare_pool(name, from.pools.get(name), to.pools.get(name), options.membership));
    Ok(Pools { pools: pools.collect() })
}

/// None: there is no difference.
fn compare_pool(
    name: &str,
    from: Option<&Compiled>,
    to: Option<&Compiled>,
    with_membership: bool,
) -> Option<PoolDifference> {
    let only = match (from, to) {
        (None, _) => Some(Only::Added),
        (_, None) => Some(Only::Removed),
        _ => None,
    };
    let mode = from.or(to)?.shape.mode();
    let nothing = Shape::new(mode);
    let [before, after] = [from, to].map(|side| side.map_or(&nothing, |compiled| &compiled.shape));
    let shape = rulecast_review::diff(before, after);
    let membership = match (from, to) {
        (Some(from), Some(to)) if with_membership => Some(membership(&from.bundle, &to.bundle)),
        _ => None,
    };
    let same =
        only.is_none() && shape.is_empty() && membership.as_ref().is_none_or(MembershipDifference::is_empty);
    let digests = Digests { from: before.digest().to_string(), to: after.digest().to_string() };
    (!same).then(|| PoolDifference { pool: name.to_owned(), only, digests, shape, membership })
}

impl Pools {
    fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        if self.pools.is_empty() {
            out.push_str("no difference\n");
        }
        for pool in &self.pools {
            if let Some(only) = pool.whole() {
                let _ = writeln!(out, "{only}");
                continue;
            }
            let _ = write!(out, "RulePool {}: {}", pool.pool, pool.shape.text(colour));
            if let Some(membership) = pool.membership.as_ref().filter(|m| !m.is_empty()) {
                let _ = write!(out, "endpoints\n{}", membership.text(colour));
            }
        }
        out
    }

    fn markdown(&self) -> String {
        let mut out = String::new();
        if self.pools.is_empty() {
            out.push_str(&Difference::default().markdown());
        }
        for pool in &self.pools {
            if let Some(only) = pool.whole() {
                let _ = writeln!(out, "### {only}\n");
                continue;
            }
            let _ = writeln!(out, "## RulePool {}\n\n{}", pool.pool, pool.shape.markdown());
            if !pool.shape.is_empty() {
                let _ = writeln!(out, "Digest of the new shape, for its approval: `{}`\n", pool.digests.to);
            }
            if let Some(membership) = pool.membership.as_ref().filter(|m| !m.is_empty()) {
                let _ = writeln!(out, "{}", membership.markdown());
            }
        }
        out
    }
}

impl PoolDifference {
    /// A pool that is on one side only, in one line: each of its Services would say the same.
    fn whole(&self) -> Option<String> {
        let what = match self.only? {
            Only::Added => "added",
            Only::Removed => "removed",
        };
        let services = self.shape.services.len();
        Some(format!(
            "RulePool {} {what}, with {services} Service{}",
            self.pool,
            if services == 1 { "" } else { "s" }
        ))
    }
}
