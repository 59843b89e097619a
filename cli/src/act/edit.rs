//! Changes a RulePool as it was read, or not at all.

use anyhow::bail;
use rulecast_api::RulePool;
use serde_json::{Value, json};

use super::Plan;
use crate::cluster::{Cluster, Problem};

/// Somebody else may write at the same time, but hardly this often.
const ATTEMPTS: usize = 5;

/// Makes a plan for the pool as it is and writes its patch on top of just that version; when somebody else was faster, once
/// more. Returns the pool as it is then.
pub(super) async fn edit(
    cluster: &Cluster,
    name: &str,
    dry_run: bool,
    plan: impl AsyncFn(&RulePool) -> anyhow::Result<Plan>,
) -> anyhow::Result<(RulePool, Plan)> {
    for _ in 0..ATTEMPTS {
        let pool: RulePool = cluster.get(name).await?;
        let planned = plan(&pool).await?;
        if planned.patch.is_null() {
            return Ok((pool, planned));
        }
        match cluster.patch::<RulePool>(name, &on_top_of(&pool, &planned.patch), dry_run).await {
            Ok(written) => return Ok((written, planned)),
            Err(Problem::Conflict { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    bail!("RulePool {name} was changed by others {ATTEMPTS} times meanwhile; nothing was written. Try again")
}

/// The patch, for this version of the object only.
fn on_top_of(pool: &RulePool, patch: &Value) -> Value {
    let mut patch = patch.clone();
    patch["metadata"]["resourceVersion"] = json!(pool.metadata.resource_version);
    patch
}
