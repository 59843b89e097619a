//! What one joining node costs, with and without rulecast.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rulecast_bundle::{CatchUp, Replica};
use tokio::time::sleep;

use super::{own, peer};
use crate::cluster::POOL;
use crate::live::{Live, Protocol, cpu};

/// A joining node, on average.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    /// Bytes that it received, below TLS.
    pub(super) bytes: u64,
    /// The API server's processor time.
    pub(super) cpu: Duration,
}

/// How long the API server is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(5);

/// The cost of so many nodes that join one after the other, each doing `join`. What the API server does by itself in that
/// time is measured first and not counted.
async fn mean(live: &Live, nodes: u32, join: impl AsyncFn(u32) -> Result<u64>) -> Result<Join> {
    let pid = live.pid()?;
    // What is done once only, such as schemas.
    join(0).await?;
    sleep(Duration::from_secs(1)).await;
    let before = cpu::of(pid)?;
    sleep(IDLE).await;
    let idle = (cpu::of(pid)?.saturating_sub(before)).as_secs_f64() / IDLE.as_secs_f64();
    let (before, start) = (cpu::of(pid)?, tokio::time::Instant::now());
    let mut bytes = 0;
    for n in 0..nodes {
        bytes += join(n).await?;
    }
    // What is left over, such as connections to be closed and memory to be collected.
    sleep(Duration::from_secs(1)).await;
    let own = start.elapsed().mul_f64(idle);
    let cpu = cpu::of(pid)?.saturating_sub(before).saturating_sub(own);
    Ok(Join { bytes: bytes / u64::from(nodes), cpu: cpu / nodes })
}

/// kube-proxies.
pub(super) async fn peers(live: &Live, token: &str, nodes: u32) -> Result<Join> {
    mean(live, nodes, async |n| peer::join(live.api(), token, &live.cluster().node_name(n)).await)
        .await
        .context("a kube-proxy that joins")
}

/// rulecast nodes, by the real walk from the head to the whole bundle, whose digest is checked.
pub(super) async fn own(live: &Live, nodes: u32) -> Result<Join> {
    let mut admin = live.api().connect(Protocol::Http1, live.admin()).await?;
    let mut tokens = Vec::new();
    for n in 0..nodes {
        tokens.push(live.applier_token(&mut admin, n).await?);
    }
    mean(live, nodes, async |n| own_join(live, &tokens[n as usize]).await)
        .await
        .context("a rulecast node that joins")
}

/// A list, then the chunks over the same connection, then the watch.
async fn own_join(live: &Live, token: &str) -> Result<u64> {
    let mut connection = live.api().connect(Protocol::Http1, token).await?;
    let (head, version) = own::list(&mut connection).await?;
    let mut replica = Replica::new(POOL);
    let have = replica.admit(&head)?.context("the head is new to a new node")?;
    ensure!(have.is_none(), "a new node has nothing");
    let mut walk = CatchUp::new(&head, have)?;
    while let Some(id) = walk.need() {
        walk.supply(own::chunk(&mut connection, &id.to_string()).await?)?;
    }
    // Fails when it does not lead to the digest that the head names.
    replica.advance(head, walk.finish()?)?;
    let traffic = connection.traffic();
    let _watch = own::begin_watch(&mut connection, &version).await?;
    Ok(traffic.received())
}
