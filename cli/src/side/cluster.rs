//! What a cluster has: the shape that is live, the one that waits, and those of RuleRevisions.

use anyhow::{Context as _, bail};
use kube::ResourceExt as _;
use rulecast_api::{Pending, RuleBundle, RulePool, RuleRevision};
use rulecast_bundle::{Bundle, Change, Head, Key, Mode, Replica, Shape};
use rulecast_controller::publisher::read_bundle;
use rulecast_controller::release::read_shape;
use rulecast_controller::sink::ClusterSink;

use super::{ClusterSide, Compiled, Loaded, Wanted};
use crate::cluster::{Cluster, block_on};
use crate::lookup;

/// Reads one side of every pool, or of the one that is wanted.
pub(super) fn load(side: ClusterSide, wanted: &Wanted) -> anyhow::Result<Loaded> {
    block_on(async {
        let cluster = Cluster::connect(&wanted.cluster).await?;
        let pools: Vec<RulePool> = match &wanted.pool {
            Some(name) => vec![cluster.get(name).await?],
            None => cluster.list().await?,
        };
        if pools.is_empty() {
            bail!("the cluster has no RulePool: kubectl apply -k manifests/samples makes one");
        }
        let reader =
            Reader { sink: ClusterSink::new(cluster.client()), cluster, membership: wanted.membership };
        let mut loaded = Loaded::default();
        for pool in pools {
            match reader.read(side, &pool).await {
                Ok(compiled) => drop(loaded.pools.insert(pool.name_any(), compiled)),
                // Of several pools, some may be new.
                Err(error) if wanted.pool.is_none() => loaded.problems.push(format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        if loaded.pools.is_empty() {
            bail!("{}", loaded.problems.join("; "));
        }
        Ok(loaded)
    })
}

struct Reader {
    cluster: Cluster,
    sink: ClusterSink,
    membership: bool,
}

impl Reader {
    async fn read(&self, side: ClusterSide, pool: &RulePool) -> anyhow::Result<Compiled> {
        match side {
            ClusterSide::Live => self.live(pool).await,
            ClusterSide::Pending => match pool.status.as_ref().and_then(|status| status.pending.as_ref()) {
                None => self.live(pool).await,
                Some(pending) => self.pending(pool, pending).await,
            },
            ClusterSide::Revision(number) => self.revision(pool, number).await,
        }
    }

    async fn live(&self, pool: &RulePool) -> anyhow::Result<Compiled> {
        let replica = self.published(&pool.name_any()).await?;
        let mode = replica.head().map_or(Mode::default(), |head| head.mode);
        Ok(Compiled { shape: Shape::of(mode, replica.bundle()), bundle: replica.bundle().clone() })
    }

    async fn published(&self, pool: &str) -> anyhow::Result<Replica> {
        let bundle: Option<RuleBundle> = self.cluster.find(pool).await?;
        let bundle = bundle.with_context(|| {
            format!(
                "nothing is published for the pool {pool} yet (kubectl rulecast status {pool} says what keeps it)"
            )
        })?;
        let head: Head = serde_json::from_value(serde_json::to_value(&bundle.spec)?)?;
        read_bundle(&self.sink, pool, head).await.with_context(|| format!("the bundle of the pool {pool}"))
    }

    async fn pending(&self, pool: &RulePool, pending: &Pending) -> anyhow::Result<Compiled> {
        let mut number = pending.revision;
        if number.is_none() {
            // The status is written every two seconds at most; the revision may be there before.
            let all: Vec<RuleRevision> = self.cluster.list_where("spec.pool", &pool.name_any()).await?;
            number = all
                .into_iter()
                .map(|found| found.spec)
                .find(|s| s.digest == pending.digest)
                .map(|s| s.number);
        }
        let number = number.with_context(|| {
            format!(
                "the shape that waits in the pool {} is not written down yet ({}); try again in a moment",
                pool.name_any(),
                pending.message
            )
        })?;
        self.revision(pool, number).await
    }

    /// A revision has no endpoints; it would get today's.
    async fn revision(&self, pool: &RulePool, number: u64) -> anyhow::Result<Compiled> {
        let revision: RuleRevision = lookup::revision(&self.cluster, pool, number).await?;
        let shape = read_shape(&self.sink, &revision.spec).await?;
        let bundle = if self.membership {
            let published = self.published(&pool.name_any()).await.ok();
            with_members(&shape, published.as_ref().map(Replica::bundle))?
        } else {
            shape.records().clone()
        };
        Ok(Compiled { shape, bundle })
    }
}

/// A shape with the members that are published now, as far as it has their targets.
fn with_members(shape: &Shape, published: Option<&Bundle>) -> anyhow::Result<Bundle> {
    let mut bundle = shape.records().clone();
    let has = |key: &Key| match key {
        Key::Member { group, .. } => bundle.get(&Key::Group(*group)).is_some(),
        key => !key.is_shape(),
    };
    let members = published.into_iter().flat_map(Bundle::iter).filter(|(key, _)| has(key));
    let changes: Vec<_> = members.map(|(key, value)| Change { key, value: Some(value) }).collect();
    let _final = bundle.apply(&changes)?;
    Ok(bundle)
}
