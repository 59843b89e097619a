//! `kubectl rulecast approve`.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{bail, ensure};
use clap::Args;
use kube::ResourceExt as _;
use rulecast_api::{Approval, RulePool, RuleRevision};
use serde_json::{Value, json};

use super::{ActArgs, Goal, Plan, carry_out};
use crate::cluster::{Cluster, block_on};
use crate::exit::Outcome;
use crate::fleet::Hold;
use crate::lookup;
use crate::output::{clean, note, now};

pub(crate) const HELP: &str = "\
Examples:
  # Look at what waits, then let it go live:
  kubectl rulecast status default
  kubectl rulecast approve default 7

  # In a script: the digest says that it is still what was reviewed
  kubectl rulecast approve default 7 --digest f3Qy0lXw8D --yes --wait

  # A shape that was computed from manifests in CI, before the cluster has it:
  kubectl rulecast approve default --digest f3Qy0lXw8DmTq2b4HnV5sJcRk1A --yes";

/// The length of a digest.
const DIGEST: usize = 27;
/// The least that tells two digests apart.
const PREFIX: usize = 6;

/// The options of `approve`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool.
    #[arg(value_name = "POOL")]
    pool: String,
    /// The number of the revision; none: --digest names a shape that the cluster may not have yet.
    #[arg(value_name = "REVISION", required_unless_present = "digest")]
    revision: Option<u64>,
    /// The digest that the revision must have, or its first 6 characters or more; without REVISION all 27.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    digest: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    act: ActArgs,
}

fn digest(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !(PREFIX..=DIGEST).contains(&text.len()) || !text.bytes().all(good) {
        return Err(format!(
            "a digest has {DIGEST} characters of A-Z a-z 0-9 - _; at least {PREFIX} of them are wanted"
        ));
    }
    Ok(text.to_owned())
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.act.cluster).await?;
        let pool: RulePool = cluster.get(&options.pool).await?;
        let (revision, digest) = subject(&cluster, &pool, options).await?;
        note(&summary(&pool, revision.as_ref(), &digest));
        if !options.act.dry_run && !options.yes {
            confirm()?;
        }
        let number = revision.as_ref().map(|revision| revision.spec.number);
        carry_out(&cluster, &options.act, &options.pool, async |pool| Ok(plan(pool, number, &digest))).await
    })
}

/// What is to be approved: the revision where there is one, and the whole digest.
async fn subject(
    cluster: &Cluster,
    pool: &RulePool,
    options: &Options,
) -> anyhow::Result<(Option<RuleRevision>, String)> {
    let Some(number) = options.revision else {
        let digest = options.digest.clone().expect("clap wants one of them");
        ensure!(
            digest.len() == DIGEST,
            "without a REVISION the whole digest of {DIGEST} characters is wanted; {digest} has {}",
            digest.len()
        );
        let all: Vec<RuleRevision> = cluster.list_where("spec.pool", &options.pool).await?;
        return Ok((all.into_iter().find(|revision| revision.spec.digest == digest), digest));
    };
    let revision = lookup::revision(cluster, pool, number).await?;
    let actual = revision.spec.digest.clone();
    if let Some(expected) = options.digest.as_ref().filter(|expected| !actual.starts_with(expected.as_str()))
    {
        bail!(
            "revision {number} of the pool {} has the digest {actual}, not {expected}: it is not what was reviewed. \
             Nothing was approved",
            options.pool
        );
    }
    Ok((Some(revision), actual))
}

/// Asks whoever is there.
fn confirm() -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "nobody can be asked here: standard input is no terminal. Say --yes when it is what was reviewed"
    );
    let mut out = io::stderr();
    write!(out, "Approve it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was approved");
    Ok(())
}

/// What is to be approved, for the one who does.
fn summary(pool: &RulePool, revision: Option<&RuleRevision>, digest: &str) -> String {
    const LINES: usize = 20;
    let name = pool.name_any();
    let Some(RuleRevision { spec, .. }) = revision else {
        return format!("The shape {digest} for the pool {name}. The cluster has no revision of it yet.");
    };
    let mut lines =
        vec![format!("Revision {} of the pool {name}, {} Services, {digest}", spec.number, spec.services)];
    let live = pool.status.as_ref().and_then(|status| status.revision);
    match spec.parent {
        Some(parent) if live == Some(parent) => {
            lines.push(format!("Beside revision {parent}, which is live:"));
        }
        Some(parent) => {
            let live = live.map_or_else(|| "nothing".to_owned(), |live| format!("revision {live}"));
            lines.push(format!(
                "Beside revision {parent}, which is not live ({live} is; kubectl rulecast diff):"
            ));
        }
        None => lines.push("It is the first one.".to_owned()),
    }
    lines.extend(spec.summary.iter().take(LINES).map(|line| format!("  {}", clean(line))));
    if spec.summary.len() > LINES {
        lines.push(format!(
            "  and {} more lines: kubectl rulecast show {name}/{}",
            spec.summary.len() - LINES,
            spec.number
        ));
    }
    lines.join("\n")
}

fn plan(pool: &RulePool, revision: Option<u64>, digest: &str) -> Plan {
    let approved = pool.spec.approved.as_ref();
    let already =
        approved.is_some_and(|a| a.digest == digest && (a.revision == revision || a.revision.is_none()));
    let what = revision
        .map_or_else(|| format!("the shape {digest}"), |number| format!("revision {number} ({digest})"));
    let live = pool.status.as_ref().is_some_and(|status| status.shape.as_deref() == Some(digest));
    let mut notes = Vec::new();
    let name = pool.name_any();
    match (already, live) {
        (true, true) => notes.push(format!("{what} is approved and live already")),
        (true, false) => notes.push(format!("{what} is approved already")),
        (false, true) => notes.push(format!("{what} is approved; it is live already")),
        (false, false) => notes.push(format!("{what} is approved")),
    }
    for hold in Hold::of(pool, now()) {
        notes.push(format!(
            "Nothing goes live until kubectl rulecast resume {name}: {}",
            hold.sentence(now())
        ));
    }
    if pool.spec.approval == Approval::Automatic && !live {
        notes.push(
            "The pool's approval is Automatic: shapes go live without this, unless many Services would be lost".to_owned(),
        );
    }
    let patch = match revision {
        _ if already => Value::Null,
        // Null, so that no number of an earlier approval stays beside the digest.
        number => json!({ "spec": { "approved": { "revision": number, "digest": digest } } }),
    };
    Plan { patch, notes, goal: Goal::Live(digest.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::{digest as sample, fleet, revision};

    #[test]
    fn a_digest_is_27_characters_or_enough_of_them() {
        assert!(super::digest("abcde").is_err() && super::digest(&"a".repeat(28)).is_err());
        assert!(super::digest("abc/ef").is_err());
        assert_eq!(super::digest("ab-_9Z"), Ok("ab-_9Z".to_owned()));
    }

    #[test]
    fn what_is_approved_already_is_not_written_again() {
        let mut pool = fleet().pools["default"].clone();
        let first = plan(&pool, Some(4), &sample(4));
        assert_eq!(first.patch, json!({ "spec": { "approved": { "revision": 4, "digest": sample(4) } } }));
        pool.spec.approved = Some(rulecast_api::Approved { revision: Some(4), digest: sample(4) });
        assert!(plan(&pool, Some(4), &sample(4)).patch.is_null());
        // Another digest takes the number away.
        let other = plan(&pool, None, &sample(5));
        assert_eq!(other.patch, json!({ "spec": { "approved": { "revision": null, "digest": sample(5) } } }));
        pool.spec.hold = true;
        assert!(plan(&pool, Some(4), &sample(4)).notes[1].contains("until kubectl rulecast resume default"));
    }

    #[test]
    fn the_summary_says_beside_what() {
        let pool = &fleet().pools["default"];
        let mut next = revision(4);
        next.spec.parent = Some(3);
        next.spec.summary = (0..25).map(|i| format!("+ Service a/s{i}\u{1b}[31m")).collect();
        let text = summary(pool, Some(&next), &next.spec.digest);
        assert!(
            text.contains("Beside revision 3, which is live:") && text.contains("and 5 more lines"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        next.spec.parent = Some(2);
        assert!(summary(pool, Some(&next), "d").contains("which is not live (revision 3 is"));
    }
}
