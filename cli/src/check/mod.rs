//! `kubectl rulecast check`.

mod crds;
mod installed;
mod kube_proxy;
mod nodes;
mod pools;
mod pre;
mod report;

use clap::Args;

use crate::cluster::{Cluster, ClusterArgs, Problem, block_on};
use crate::exit::Outcome;
use crate::output::{OutputArgs, print};
use crate::waiting::{WaitArgs, wait};

pub(crate) use report::{Report, Section};

pub(crate) const HELP: &str = "\
Examples:
  # Before an installation: is this cluster ready for it, and may I do it?
  kubectl rulecast check --pre

  # After it, and whenever something looks wrong:
  kubectl rulecast check

  # In a script:
  kubectl rulecast check --wait --timeout 3m -o json

Exit code 1: a check failed, or could not be made for want of rights (marked ?). Notes (marked -) are no failures.";

/// Where the manifests install the controller.
pub(crate) const SYSTEM: &str = "rulecast-system";

/// The options of `check`.
#[derive(Args)]
pub(crate) struct Options {
    /// Look whether a cluster is ready for an installation.
    #[arg(long)]
    pre: bool,
    /// The namespace of the controller.
    #[arg(long, value_name = "NAMESPACE", default_value = SYSTEM)]
    system_namespace: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        let look = async || {
            let report = if options.pre {
                pre::check(&cluster, &options.system_namespace).await?
            } else {
                check(&cluster, &options.system_namespace).await?
            };
            let (passed, summary) = (report.passed(), report.summary());
            Ok((report, passed, summary))
        };
        let (report, outcome) = wait(&options.wait, look).await?;
        print(&report, options.output.output)?;
        Ok(if outcome == Outcome::Fine && !report.passed() { Outcome::Different } else { outcome })
    })
}

/// All checks of an installation.
pub(crate) async fn check(cluster: &Cluster, system: &str) -> Result<Report, Problem> {
    let mut report = Report::default();
    report.add(crds::established(cluster).await?);
    report.add(installed::controller(cluster, system).await?);
    let mut section = Section::new("pools");
    let fleet = crate::fleet::read(cluster).await;
    let fleet = section.take("pools and nodes", fleet)?;
    if let Some(fleet) = &fleet {
        pools::check(&mut section, fleet);
    }
    report.add(section);
    if let Some(fleet) = &fleet {
        report.add(nodes::check(fleet));
        report.add(kube_proxy::beside(cluster, fleet).await?);
    }
    Ok(report)
}
