//! `kubectl rulecast show`.

use std::str::FromStr;

use clap::Args;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rulecast_api::{LastBundle, Origin, RulePool};
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::fleet::{RevisionRow, revisions};
use crate::lookup;
use crate::output::{Format, OutputArgs, Page, Show, age, now, print};
use crate::status;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast show default         # the pool: its spec, and its state
  kubectl rulecast show default/7       # revision 7: where it comes from and what is different in it
  kubectl rulecast show default/7 -o yaml";

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    pool: String,
    revision: Option<u64>,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((pool, number)) = text.split_once('/') else {
            return Ok(Self { pool: text.to_owned(), revision: None });
        };
        let number =
            number.parse().map_err(|_| format!("POOL/NUMBER is wanted, such as default/7, not {text:?}"))?;
        Ok(Self { pool: pool.to_owned(), revision: Some(number) })
    }
}

/// The options of `show`.
#[derive(Args)]
pub(crate) struct Options {
    /// A RulePool, or one of its revisions.
    #[arg(value_name = "POOL[/REVISION]")]
    subject: Subject,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let Subject { pool: name, revision } = &options.subject;
    let format = options.output.output;
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        match revision {
            Some(number) => print(&read_revision(&cluster, name, *number).await?, format)?,
            None => show_pool(&cluster, name, format).await?,
        }
        Ok(Outcome::Fine)
    })
}

async fn read_revision(cluster: &Cluster, pool: &str, number: u64) -> anyhow::Result<Revision> {
    let pool: RulePool = cluster.get(pool).await?;
    let revision = lookup::revision(cluster, &pool, number).await?;
    let all = revisions(&pool, std::slice::from_ref(&revision));
    let row = all.into_iter().find(|row| row.number == number).expect("it is among its own");
    let spec = revision.spec;
    Ok(Revision {
        pool: spec.pool,
        mode: spec.mode.to_string(),
        row,
        summary: spec.summary,
        origin: spec.origin,
        last_bundle: revision.status.and_then(|status| status.last_bundle),
        chunks: spec.chunks.len(),
        size_bytes: spec.size_bytes,
        now: now(),
    })
}

/// A pool: its spec as it was written, then what `status` says.
async fn show_pool(cluster: &Cluster, name: &str, format: Format) -> anyhow::Result<()> {
    let pool: RulePool = cluster.get(name).await?;
    if !format.is_text() {
        return print(&Pool { name: pool.name_any(), spec: serde_json::to_value(&pool.spec)? }, format);
    }
    print(&Pool { name: pool.name_any(), spec: differing(&pool)? }, format)?;
    print(&status::read(cluster, Some(name)).await?, format)
}

/// The fields of a spec that are not what an empty one means.
fn differing(pool: &RulePool) -> anyhow::Result<serde_json::Value> {
    let defaults = serde_json::to_value(rulecast_api::RulePoolSpec::default())?;
    let mut spec = serde_json::to_value(&pool.spec)?;
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|key, value| defaults.get(key) != Some(value));
    }
    Ok(spec)
}

/// A pool's spec.
#[derive(Serialize)]
struct Pool {
    name: String,
    spec: serde_json::Value,
}

impl Show for Pool {
    fn show(&self, page: &mut Page, _wide: bool) {
        let fields = self.spec.as_object();
        if fields.is_none_or(serde_json::Map::is_empty) {
            page.field("Spec", "all defaults");
        }
        for (key, value) in fields.into_iter().flatten() {
            page.field("Spec", &format!("{key}: {value}"));
        }
    }
}

/// A revision.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    pool: String,
    mode: String,
    #[serde(flatten)]
    row: RevisionRow,
    summary: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_bundle: Option<LastBundle>,
    chunks: usize,
    size_bytes: u64,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for Revision {
    fn show(&self, page: &mut Page, _wide: bool) {
        let row = &self.row;
        let marks = row.marks.join(", ");
        let state = if marks.is_empty() { "neither live nor pending" } else { &marks };
        page.field("Revision", &format!("{} of the pool {} ({})", row.number, self.pool, self.mode));
        page.field("State", state);
        page.field("Digest", &row.digest);
        if let Some(created) = row.created {
            page.field("Created", &format!("{created} ({} ago)", age(created, self.now)));
        }
        if let Some(parent) = row.parent {
            page.field("Parent", &parent.to_string());
        }
        if let Some(Origin { pool, revision }) = &self.origin {
            let revision = revision.map(|r| format!("/{r}")).unwrap_or_default();
            page.field("Promoted", &format!("from {pool}{revision}"));
        }
        if let (Some(sequence), Some(at)) = (row.live_since_sequence, row.live_since) {
            let by = row.live_by.as_deref().unwrap_or_default();
            page.field("Went live", &format!("{} ago at sequence {sequence} ({by})", age(at, self.now)));
        }
        if let Some(LastBundle { sequence, .. }) = &self.last_bundle {
            page.field(
                "Exact",
                &format!("sequence {sequence} is kept: undo --exact can put it back, endpoints included"),
            );
        }
        page.field("Services", &row.services.unwrap_or_default().to_string());
        page.field("Size", &format!("{} bytes in {} chunks", self.size_bytes, self.chunks));
        for (name, lines) in [("Cause", &row.cause), ("Summary", &self.summary)] {
            if !lines.is_empty() {
                page.gap();
                page.line(&format!("{name}:"));
                for line in lines {
                    page.line(&format!("  {line}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_pool_or_a_revision() {
        assert_eq!("default".parse(), Ok(Subject { pool: "default".into(), revision: None }));
        assert_eq!("default/7".parse(), Ok(Subject { pool: "default".into(), revision: Some(7) }));
        assert!("default/x".parse::<Subject>().is_err());
    }
}
