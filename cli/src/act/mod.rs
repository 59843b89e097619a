//! The commands that change a RulePool: approve, hold, resume and undo.

pub(crate) mod approve;
mod edit;
mod follow;
pub(crate) mod hold;
pub(crate) mod resume;
pub(crate) mod undo;

use clap::Args;
use rulecast_api::{Pending, RulePool};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::Outcome;
use crate::output::{OutputArgs, Page, Show, Tone, print};
use crate::waiting::WaitArgs;

use follow::Goal;

/// The flags that these commands share.
#[derive(Args)]
pub(crate) struct ActArgs {
    /// Print the patch, let the API server check it, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What a command did.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Acted {
    pool: String,
    /// Whether something was changed; with --dry-run, whether something would have been.
    changed: bool,
    dry_run: bool,
    /// What was written, as a JSON merge patch.
    #[serde(skip_serializing_if = "Value::is_null")]
    patch: Value,
    /// What that means, for people.
    notes: Vec<String>,
}

impl Show for Acted {
    fn show(&self, page: &mut Page, _wide: bool) {
        for note in &self.notes {
            page.line(note);
        }
        if self.dry_run && self.changed {
            let patch = self.patch.to_string();
            page.line(&format!("kubectl patch rulepool {} --type=merge -p '{patch}'", self.pool));
            page.toned(Tone::Faint, "(dry run: the API server takes this patch; nothing was changed)");
        }
    }
}

/// What is to be changed, why that is fine, and what is to come of it.
struct Plan {
    /// A JSON merge patch; null: nothing is to be changed.
    patch: Value,
    notes: Vec<String>,
    goal: Goal,
}

/// Reads the pool, makes a plan, writes it, prints what that means, and waits for it if that is asked for.
async fn carry_out(
    cluster: &Cluster,
    args: &ActArgs,
    pool: &str,
    plan: impl AsyncFn(&RulePool) -> anyhow::Result<Plan>,
) -> anyhow::Result<Outcome> {
    let (written, plan) = edit::edit(cluster, pool, args.dry_run, plan).await?;
    let changed = !plan.patch.is_null();
    let acted =
        Acted { pool: pool.to_owned(), changed, dry_run: args.dry_run, patch: plan.patch, notes: plan.notes };
    print(&acted, args.output.output)?;
    if args.dry_run || !args.wait.wait {
        return Ok(Outcome::Fine);
    }
    follow::follow(cluster, &written, &plan.goal, &args.wait).await
}

/// A pending shape by its number, or by its digest while it has none.
fn name_of(pending: &Pending) -> String {
    pending.revision.map_or_else(|| format!("the shape {}", pending.digest), |r| format!("revision {r}"))
}
