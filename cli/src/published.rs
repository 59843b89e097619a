//! What is published for a pool, as a node would read it.

use anyhow::Context as _;
use rulecast_api::RuleBundle;
use rulecast_bundle::{Head, Replica};
use rulecast_controller::publisher::read_bundle;
use rulecast_controller::sink::ClusterSink;

use crate::cluster::Cluster;

/// Reads head and chunks, and checks the digest.
pub(crate) async fn read(cluster: &Cluster, pool: &str) -> anyhow::Result<Replica> {
    let bundle: Option<RuleBundle> = cluster.find(pool).await?;
    let bundle = bundle.with_context(|| {
        format!(
            "nothing is published for the pool {pool} yet (kubectl rulecast status {pool} says what keeps it)"
        )
    })?;
    let head: Head = serde_json::from_value(serde_json::to_value(&bundle.spec)?)?;
    let sink = ClusterSink::new(cluster.client());
    read_bundle(&sink, pool, head).await.with_context(|| format!("the bundle of the pool {pool}"))
}
