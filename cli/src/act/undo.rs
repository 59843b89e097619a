//! `kubectl rulecast undo`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use rulecast_api::{Release, RulePool, RuleRevision};
use serde_json::{Value, json};

use super::{ActArgs, Goal, Plan, carry_out};
use crate::cluster::{Cluster, block_on};
use crate::exit::Outcome;
use crate::lookup;
use crate::output::now;

pub(crate) const HELP: &str = "\
Examples:
  # Back to the revision that was live before the present one:
  kubectl rulecast undo default --wait

  # To a certain one of `kubectl rulecast history default`:
  kubectl rulecast undo default --to-revision 5

  # The rules exactly as they were, with the endpoints of that time, for ten minutes:
  kubectl rulecast undo default --exact --for 10m

Undo pins a shape (spec.pinnedRevision): endpoints stay today's. New shapes wait until kubectl rulecast resume.
--exact is for what that cannot mend. It serves endpoints that may be dead by now.";

/// The longest exact replay; the RulePool's field says the same.
const LONGEST: Duration = Duration::from_hours(1);

/// The options of `undo`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool.
    #[arg(value_name = "POOL")]
    pool: String,
    /// The revision to go back to; none: the one that was live before the present one.
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<u64>,
    /// Put back the last bundle of that revision exactly as it was, dead endpoints included, for the time of --for.
    #[arg(long, requires = "length")]
    exact: bool,
    /// How long an exact replay lasts, such as 10m; at most 1h.
    #[arg(long = "for", id = "length", value_name = "DURATION", requires = "exact", value_parser = length)]
    length: Option<rulecast_api::Duration>,
    #[command(flatten)]
    act: ActArgs,
}

fn length(text: &str) -> Result<rulecast_api::Duration, String> {
    let length: rulecast_api::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if !(Duration::from_secs(1)..=LONGEST).contains(&length.get()) {
        return Err("from 1s to 1h is wanted: nobody should forget that dead endpoints are served".to_owned());
    }
    Ok(length)
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.act.cluster).await?;
        let until = options.length.map(|length| end(now(), length.get())).transpose()?;
        let plan = async |pool: &RulePool| {
            let number = match options.to_revision {
                Some(number) => number,
                None => previous(pool)?,
            };
            let revision = lookup::revision(&cluster, pool, number).await?;
            let mut plan = plan(pool, &revision, until);
            if until.is_some() && !keeps_bundle(&cluster, pool, number).await? {
                plan.notes.push(format!(
                    "Warning: no RuleRevision keeps the last bundle of revision {number}, so it may be impossible to put \
                     it back exactly: watch kubectl rulecast status {}",
                    options.pool
                ));
            }
            Ok(plan)
        };
        carry_out(&cluster, &options.act, &options.pool, plan).await
    })
}

/// In whole seconds, as the API server keeps times.
fn end(now: Timestamp, length: Duration) -> anyhow::Result<Timestamp> {
    let end = now.checked_add(SignedDuration::try_from(length)?)?;
    Timestamp::from_second(end.as_second()).context("a time")
}

/// The revision that was live before the one that is live now.
fn previous(pool: &RulePool) -> anyhow::Result<u64> {
    let name = pool.name_any();
    let releases = pool.status.as_ref().map(|status| status.releases.as_slice()).unwrap_or_default();
    let Some((present, before)) = releases.split_first() else {
        bail!("nothing has been live in the pool {name} yet, so there is nothing to undo")
    };
    let other = |release: &&Release| release.digest != present.digest && release.revision.is_some();
    before.iter().find(other).and_then(|release| release.revision).with_context(|| {
        format!(
            "nothing else was live in the pool {name} before what is live now, so there is nothing to undo (kubectl \
             rulecast history {name})"
        )
    })
}

/// Whether the last bundle of this revision was kept.
async fn keeps_bundle(cluster: &Cluster, pool: &RulePool, number: u64) -> anyhow::Result<bool> {
    let revision = lookup::revision(cluster, pool, number).await?;
    Ok(revision.status.is_some_and(|status| status.last_bundle.is_some()))
}

fn plan(pool: &RulePool, target: &RuleRevision, until: Option<Timestamp>) -> Plan {
    let name = pool.name_any();
    let number = target.spec.number;
    let status = pool.status.clone().unwrap_or_default();
    let live =
        status.revision.map_or_else(|| "nothing".to_owned(), |revision| format!("revision {revision}"));
    let pinned = pool.spec.pinned_revision == Some(number) && pool.spec.exact_replay.is_none();
    let mut notes = Vec::new();
    if pinned && until.is_none() {
        notes.push(format!("the pool {name} is pinned to revision {number} already"));
        return Plan { patch: Value::Null, notes, goal: Goal::Live(target.spec.digest.clone()) };
    }
    notes.push(format!("the pool {name} goes back from {live} to revision {number}; endpoints stay today's"));
    if status.shape.as_deref() == Some(target.spec.digest.as_str()) {
        notes.push(format!("Revision {number} is what is live: it is pinned, and newer ones wait"));
    }
    if let Some(until) = until {
        notes.pop();
        notes.push(format!(
            "the pool {name} gets the last bundle of revision {number} exactly as it was, until {until}"
        ));
        notes.push(
            "Warning: dead endpoints are served. Pods that went since then are in that bundle, and connections to them fail; \
             pods that came since are not in it, and get none. It ends by itself; then the shape stays pinned, with today's \
             endpoints"
                .to_owned(),
        );
    }
    notes.push(format!("New shapes wait until kubectl rulecast resume {name}"));
    let replay = until.map(|until| json!({ "revision": number, "until": until.to_string() }));
    let patch = json!({ "spec": { "pinnedRevision": number, "exactReplay": replay } });
    Plan { patch, notes, goal: Goal::Live(target.spec.digest.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::{fleet, pool, revision};

    #[test]
    fn the_one_before_is_another_shape() {
        let mut pool = fleet().pools["default"].clone();
        assert_eq!(previous(&pool).unwrap(), 2);
        let releases = &mut pool.status.as_mut().unwrap().releases;
        // The same shape once more, as after an exact replay.
        let again = Release { sequence: 39, ..releases[0].clone() };
        releases.insert(0, again);
        assert_eq!(previous(&pool).unwrap(), 2);
        let releases = &mut pool.status.as_mut().unwrap().releases;
        releases.truncate(2);
        assert!(previous(&pool).unwrap_err().to_string().contains("nothing else was live"));
    }

    #[test]
    fn without_releases_there_is_nothing_to_undo() {
        let error = previous(&pool("a", &json!({}))).unwrap_err().to_string();
        assert!(error.contains("nothing has been live"), "{error}");
    }

    #[test]
    fn exact_warns_and_ends() {
        let pool = fleet().pools["default"].clone();
        let until = end("2026-01-01T00:00:00.7Z".parse().unwrap(), Duration::from_mins(10)).unwrap();
        let plan = plan(&pool, &revision(2), Some(until));
        let replay = json!({ "revision": 2, "until": "2026-01-01T00:10:00Z" });
        assert_eq!(plan.patch, json!({ "spec": { "pinnedRevision": 2, "exactReplay": replay } }));
        assert!(plan.notes.iter().any(|note| note.starts_with("Warning: dead endpoints are served")));
        assert!(length("61m").is_err() && length("0s").is_err() && length("1h").is_ok());
    }

    #[test]
    fn an_undo_ends_an_exact_replay() {
        let mut pool = fleet().pools["default"].clone();
        pool.spec.pinned_revision = Some(2);
        assert!(plan(&pool, &revision(2), None).patch.is_null());
        let until =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-01-01T00:00:00Z".parse().unwrap());
        pool.spec.exact_replay = Some(rulecast_api::ExactReplay { revision: 2, until });
        assert_eq!(plan(&pool, &revision(2), None).patch["spec"]["exactReplay"], Value::Null);
    }
}
