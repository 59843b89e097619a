//! `kubectl rulecast nodes`.

use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::fleet::{self, NodeRow, Tally, rows};
use crate::output::{Cell, OutputArgs, Page, Show, Table, print, since};

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast nodes
  kubectl rulecast nodes --pool default -o wide
  kubectl rulecast nodes -o json | jq -r '.nodes[] | select(.state == \"Failing\") | .node'

States: Current; Behind (BEHIND says how many versions; new versions are reported about once a second, of all nodes together);
Held (by rulecast-node hold or use-previous on the node); Restored (rules from its disk, the API server out of reach);
Failing (WHY has the error); Astray (runs what is not published); Missing (a Node that the pool's nodeSelector
matches and that never reported); Gone (its Node was deleted).
REVISION is found by the sequence in the pool's releases.";

/// The options of `nodes`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this RulePool's nodes.
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        if let Some(name) = &options.pool {
            // For its error, which names the pools that there are.
            let _pool: rulecast_api::RulePool = cluster.get(name).await?;
        }
        let fleet = fleet::read(&cluster).await?;
        let nodes = rows(&fleet, options.pool.as_deref());
        let list = Listing { summary: Tally::of(&nodes), nodes, now: fleet.now };
        print(&list, options.output.output)?;
        Ok(Outcome::Fine)
    })
}

/// What the command prints.
#[derive(Serialize)]
struct Listing {
    nodes: Vec<NodeRow>,
    summary: Tally,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for Listing {
    fn show(&self, page: &mut Page, wide: bool) {
        if self.nodes.is_empty() {
            page.line("No node has reported, and no Node matches a RulePool's nodeSelector.");
            return;
        }
        let mut headings = vec!["NODE", "POOL", "STATE", "SEQUENCE", "REVISION", "BEHIND", "APPLIED"];
        if wide {
            headings.extend(["DIGEST", "EPOCH", "HOLD", "WAVE", "MODE", "VERSION"]);
        }
        headings.push("WHY");
        let mut table = Table::new(&headings);
        for node in &self.nodes {
            let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
            let mut row: Vec<Cell> = vec![
                (&node.node).into(),
                (&node.pool).into(),
                Cell::new(node.state.tone(), node.state.as_str()),
                number(Some(node.sequence).filter(|s| *s > 0)).into(),
                number(node.revision).into(),
                number(node.lag).into(),
                since(node.applied_at, self.now).into(),
            ];
            if wide {
                row.extend([
                    (&node.digest).into(),
                    node.epoch.to_string().into(),
                    node.hold.clone().unwrap_or_default().into(),
                    if node.next { "next" } else { "" }.into(),
                    node.mode.clone().unwrap_or_default().into(),
                    Cell::from(&node.version),
                ]);
            }
            row.push((&node.why).into());
            table.row(row);
        }
        page.table(&table);
    }
}
