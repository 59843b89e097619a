//! Reads a [`Fleet`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use rulecast_api::{RuleBundle, RuleNode, RulePool};

use super::{Fleet, Head};
use crate::cluster::{Cluster, Problem, Request, Verb};
use crate::output::{note, now};

/// Reads pools, heads, reports and Nodes.
pub(crate) async fn read(cluster: &Cluster) -> Result<Fleet, Problem> {
    let pools: Vec<RulePool> = cluster.list().await?;
    // Reports before heads, or a node that is up to date could look as if it were ahead.
    let reports: Vec<RuleNode> = cluster.list().await?;
    let bundles: Vec<RuleBundle> = cluster.list().await?;
    let nodes = match nodes(cluster).await {
        Ok(nodes) => Some(nodes),
        Err(Problem::Forbidden { can_i, .. }) => {
            note(&format!(
                "you may not list Nodes, so nodes that never reported are not shown (kubectl auth can-i {can_i})"
            ));
            None
        }
        Err(other) => return Err(other),
    };
    Ok(Fleet {
        pools: pools.into_iter().map(|pool| (pool.name_any(), pool)).collect(),
        heads: bundles.iter().map(|bundle| (bundle.name_any(), Head::from(bundle))).collect(),
        reports,
        nodes,
        now: now(),
    })
}

/// The Nodes' names and labels: the rest of a Node is a hundred times as long.
async fn nodes(cluster: &Cluster) -> Result<BTreeMap<String, BTreeMap<String, String>>, Problem> {
    let api: Api<PartialObjectMeta<Node>> = Api::all(cluster.client());
    let request = Request::of::<Node>(Verb::List);
    let mut params = ListParams::default().limit(500);
    let mut all = BTreeMap::new();
    loop {
        let list = cluster.ask(&request, api.list_metadata(&params)).await?;
        all.extend(list.items.into_iter().map(|node| (node.name_any(), node.labels().clone())));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(all),
        }
    }
}
