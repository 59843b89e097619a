//! `kubectl rulecast hold`.

use clap::Args;
use kube::ResourceExt as _;
use rulecast_api::RulePool;
use serde_json::{Value, json};

use super::{ActArgs, Goal, Plan, carry_out};
use crate::cluster::{Cluster, block_on};
use crate::exit::Outcome;
use crate::fleet::HOLD_REASON;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast hold default --reason 'racks 3 and 4 are being moved until Friday'
  kubectl rulecast hold default --dry-run

Endpoints go on being followed; only shapes (Services, ports, policies, options) wait. kubectl rulecast resume ends it.";

/// The longest reason, in characters.
const LONGEST: usize = 512;

/// The options of `hold`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool.
    #[arg(value_name = "POOL")]
    pool: String,
    /// Why, for whoever wonders later; it is kept in the annotation rulecast.dev/hold-reason.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    #[command(flatten)]
    act: ActArgs,
}

fn reason(text: &str) -> Result<String, String> {
    if text.chars().count() > LONGEST {
        return Err(format!("at most {LONGEST} characters are wanted"));
    }
    Ok(text.to_owned())
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.act.cluster).await?;
        let plan = async |pool: &RulePool| Ok(plan(pool, options.reason.as_deref()));
        carry_out(&cluster, &options.act, &options.pool, plan).await
    })
}

fn plan(pool: &RulePool, reason: Option<&str>) -> Plan {
    let name = pool.name_any();
    let before = pool.annotations().get(HOLD_REASON).map(String::as_str);
    // Without a reason, one that stands there for this hold stays; one of an earlier hold goes.
    let reason = reason.or(before.filter(|_| pool.spec.hold));
    let same = pool.spec.hold && reason == before;
    let note = match (pool.spec.hold, same) {
        (true, true) => format!("the pool {name} is held already"),
        (true, false) => format!("the pool {name} is held already; the reason is new"),
        _ => format!(
            "the pool {name} is held: no new shape goes live until kubectl rulecast resume {name}; endpoints go on being \
             followed"
        ),
    };
    let patch = json!({ "metadata": { "annotations": { HOLD_REASON: reason } }, "spec": { "hold": true } });
    let patch = if same { Value::Null } else { patch };
    Plan { patch, notes: vec![note], goal: Goal::Observed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::pool;

    #[test]
    fn a_reason_belongs_to_its_hold() {
        let free = pool("a", &json!({ "metadata": { "name": "a", "annotations": { HOLD_REASON: "old" } } }));
        let patch = plan(&free, None).patch;
        assert_eq!(patch["metadata"]["annotations"][HOLD_REASON], Value::Null);
        assert_eq!(patch["spec"]["hold"], true);
        let held = pool(
            "a",
            &json!({ "metadata": { "name": "a", "annotations": { HOLD_REASON: "old" } }, "spec": { "hold": true } }),
        );
        assert!(plan(&held, None).patch.is_null() && plan(&held, Some("old")).patch.is_null());
        assert_eq!(plan(&held, Some("new")).patch["metadata"]["annotations"][HOLD_REASON], "new");
    }
}
