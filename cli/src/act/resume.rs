//! `kubectl rulecast resume`.

use clap::Args;
use kube::ResourceExt as _;
use rulecast_api::{Approval, RulePool};
use serde_json::{Value, json};

use super::{ActArgs, Goal, Plan, carry_out, name_of};
use crate::cluster::{Cluster, block_on};
use crate::exit::Outcome;
use crate::fleet::{HOLD_REASON, Hold};
use crate::output::now;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast resume default --dry-run     # what would go live
  kubectl rulecast resume default --wait

It clears spec.hold, spec.pinnedRevision and spec.exactReplay. With approval Manual, what is not approved waits on.";

/// The options of `resume`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool.
    #[arg(value_name = "POOL")]
    pool: String,
    #[command(flatten)]
    act: ActArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.act.cluster).await?;
        carry_out(&cluster, &options.act, &options.pool, async |pool: &RulePool| Ok(plan(pool))).await
    })
}

fn plan(pool: &RulePool) -> Plan {
    let name = pool.name_any();
    let spec = &pool.spec;
    let held = spec.hold || spec.pinned_revision.is_some() || spec.exact_replay.is_some();
    if !held {
        let notes = vec![format!("the pool {name} is not held: there is nothing to resume")];
        return Plan { patch: Value::Null, notes, goal: Goal::Released };
    }
    let mut notes: Vec<String> =
        Hold::of(pool, now()).iter().map(|hold| format!("no longer {}", hold.sentence(now()))).collect();
    notes.push(outlook(pool));
    let patch = json!({
        "metadata": { "annotations": { HOLD_REASON: null } },
        "spec": { "hold": false, "pinnedRevision": null, "exactReplay": null },
    });
    Plan { patch, notes, goal: Goal::Released }
}

/// What goes live now.
fn outlook(pool: &RulePool) -> String {
    let name = pool.name_any();
    let Some(pending) = pool.status.as_ref().and_then(|status| status.pending.as_ref()) else {
        return "what is live is what the inputs ask for: nothing changes".to_owned();
    };
    let what = name_of(pending);
    let approved = pool.spec.approved.as_ref().is_some_and(|approved| approved.digest == pending.digest);
    if pool.spec.approval == Approval::Manual && !approved {
        let number =
            pending.revision.map_or_else(|| format!("--digest {}", pending.digest), |r| r.to_string());
        return format!("{what} waits on for approval: kubectl rulecast approve {name} {number}");
    }
    match pending.reason.as_str() {
        "Hold" | "Rollback" => {
            let look =
                pending.revision.map(|r| format!(" (kubectl rulecast show {name}/{r})")).unwrap_or_default();
            format!("{what} goes live now{look}")
        }
        other => format!("{what} waits on for another reason: {other} {}", pending.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::{digest, fleet};

    fn note(approval: Approval, reason: &str, approved: Option<u64>) -> String {
        let mut pool = fleet().pools["default"].clone();
        pool.spec.hold = true;
        pool.spec.approval = approval;
        pool.spec.approved =
            approved.map(|number| rulecast_api::Approved { revision: None, digest: digest(number) });
        pool.status.as_mut().unwrap().pending = serde_json::from_value(json!({
            "revision": 4, "digest": digest(4), "reason": reason, "since": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        plan(&pool).notes.pop().unwrap()
    }

    #[test]
    fn it_says_what_goes_live() {
        assert!(note(Approval::Automatic, "Hold", None).starts_with("revision 4 goes live now"));
        assert!(note(Approval::Manual, "Hold", None).ends_with("kubectl rulecast approve default 4"));
        assert!(note(Approval::Manual, "Hold", Some(4)).starts_with("revision 4 goes live now"));
        assert!(note(Approval::Automatic, "Shrink", None).contains("for another reason: Shrink"));
    }

    #[test]
    fn what_is_not_held_is_not_written() {
        assert!(plan(&fleet().pools["default"]).patch.is_null());
    }
}
