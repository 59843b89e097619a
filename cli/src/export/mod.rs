//! `kubectl rulecast export`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use rulecast_review::{ShapeDescription, describe};
use serde::Serialize;

use crate::cluster::ClusterArgs;
use crate::side::{self, Side, Wanted};

mod names;
mod tree;

use tree::Tree;

pub(crate) const HELP: &str = "\
Examples:
  # What the manifests compile to, next to them in Git:
  kubectl-rulecast export manifests --output compiled && git diff compiled

  # What nodes run now:
  kubectl-rulecast export live --output compiled

The tree: POOL/services/NAMESPACE/NAME.yaml, POOL/pool.yaml and POOL/digest. Files that are the same are not written, and
files of Services that are gone are removed; what is not from an export is never touched.

Exit codes:
  0 the tree is written   2 an error; with --strict also: something could not be used";

/// The options of `export`.
#[derive(Args)]
pub(crate) struct Options {
    /// A directory of manifests; or of the cluster: live, pending or the number of a RuleRevision.
    #[arg(value_name = "FROM")]
    from: Side,
    /// Where the tree is, or shall be: an empty directory, an earlier export, or nothing yet.
    #[arg(short, long, value_name = "TREE")]
    output: PathBuf,
    /// Only this pool. Others that are in the tree stay as they are.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Write nothing when an object could not be used.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Writes the tree. Nothing is written unless everything can be named.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        pool: options.pool.clone(),
        membership: false,
        mode: None,
        cluster: options.cluster.clone(),
    };
    let loaded = side::load_one(&options.from, &wanted, options.strict)?;
    let mut pools = BTreeMap::new();
    for (name, compiled) in &loaded.pools {
        pools.insert(name.clone(), files(&describe(&compiled.shape))?);
    }
    let mut tree = Tree::open(&options.output)?;
    if options.pool.is_none() {
        for gone in tree.pools()?.into_iter().filter(|pool| !pools.contains_key(pool)) {
            tree.write_pool(&gone, &BTreeMap::new())?;
        }
    }
    for (pool, files) in &pools {
        tree.write_pool(pool, files)?;
    }
    let counts = tree.counts;
    let text = format!(
        "{}: {} written, {} removed, {} the same\n",
        options.output.display(),
        counts.written,
        counts.removed,
        counts.same
    );
    let _closed_pipe = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// A pool's files, by their paths in the pool's folder.
fn files(description: &ShapeDescription) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    files.insert("digest".into(), format!("{}\n", description.digest));
    files.insert("pool.yaml".into(), yaml(&description.pool)?);
    for (service, described) in &description.services {
        let path = names::path(service).with_context(|| format!("Service {service:?}"))?;
        files.insert(path, yaml(described)?);
    }
    Ok(files)
}

fn yaml(content: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n{}", tree::MARK, serde_saphyr::to_string(content)?))
}
