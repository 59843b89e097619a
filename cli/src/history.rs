//! `kubectl rulecast history`.

use clap::Args;
use k8s_openapi::jiff::Timestamp;
use rulecast_api::{RulePool, RuleRevision};
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::fleet::{RevisionRow, revisions};
use crate::output::{Cell, OutputArgs, Page, Show, Table, Tone, now, print, since};

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast history default
  kubectl rulecast history default -o wide      # with whole digests

The column STATE: Live (in force now), Pinned (spec.pinnedRevision), Approved (spec.approved), Pending (waits to go live),
Deleted (was live and has been cleaned up since: spec.revisionHistoryLimit). SINCE is the sequence that had it first, when it
went live last.";

/// The options of `history`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool.
    #[arg(value_name = "POOL")]
    pool: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        let pool: RulePool = cluster.get(&options.pool).await?;
        let existing: Vec<RuleRevision> = cluster.list_where("spec.pool", &options.pool).await?;
        let history =
            History { pool: options.pool.clone(), revisions: revisions(&pool, &existing), now: now() };
        print(&history, options.output.output)?;
        Ok(Outcome::Fine)
    })
}

/// What the command prints.
#[derive(Serialize)]
struct History {
    pool: String,
    revisions: Vec<RevisionRow>,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for History {
    fn show(&self, page: &mut Page, wide: bool) {
        if self.revisions.is_empty() {
            page.line(&format!(
                "The pool {} has no revisions yet: its first one comes when it is published.",
                self.pool
            ));
            return;
        }
        let mut headings = vec!["REVISION", "STATE", "AGE", "DIGEST", "PARENT", "SERVICES", "SINCE"];
        if wide {
            headings.extend(["LIVE", "BY"]);
        }
        headings.push("CAUSE");
        let mut table = Table::new(&headings);
        for revision in &self.revisions {
            let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
            let digest = if wide { &revision.digest[..] } else { short(&revision.digest) };
            let mut row: Vec<Cell> = vec![
                revision.number.to_string().into(),
                state(revision),
                since(revision.created, self.now).into(),
                digest.into(),
                number(revision.parent).into(),
                number(revision.services.map(u64::from)).into(),
                number(revision.live_since_sequence).into(),
            ];
            if wide {
                row.push(since(revision.live_since, self.now).into());
                row.push(revision.live_by.clone().unwrap_or_default().into());
            }
            row.push(cause(&revision.cause).into());
            table.row(row);
        }
        page.table(&table);
    }
}

/// As much of a digest as tells revisions apart, and `approve --digest` takes.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..10).unwrap_or(digest)
}

fn state(revision: &RevisionRow) -> Cell {
    if !revision.exists {
        return Cell::new(Tone::Faint, "Deleted");
    }
    let tone = match revision.marks.as_slice() {
        ["Live", ..] => Tone::Good,
        [] => Tone::Plain,
        _ => Tone::Attention,
    };
    Cell::new(tone, revision.marks.join(","))
}

fn cause(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::{fleet, revision};

    #[test]
    fn as_a_table() {
        let pool = &fleet().pools["default"];
        let revisions = revisions(pool, &[revision(2), revision(3)]);
        let history =
            History { pool: "default".into(), revisions, now: "2026-01-01T00:30:00Z".parse().unwrap() };
        let mut page = Page::default();
        history.show(&mut page, false);
        let text = anstream::adapter::strip_str(&page.into_text()).to_string();
        assert_eq!(
            text,
            "REVISION   STATE     AGE   DIGEST       PARENT   SERVICES   SINCE   CAUSE\n\
             3          Live      30m   0000000000   -        3          30      Service a/s3\n\
             2          -         30m   0000000000   -        2          20      Service a/s2\n\
             1          Deleted   -     0000000000   -        -          1       -\n"
        );
    }
}
