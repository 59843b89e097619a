//! The controller's side, without a controller: compiles a cluster, changes it, and makes what would be published.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use rulecast_bundle::{CatchUp, Change, Checkpoint, ChunkId, Delta, FORMAT, Head, Replica};
use rulecast_compiler::model::Slice;
use rulecast_compiler::{Compiler, PoolBundle};

use crate::cluster::{Cluster, POOL};

/// A kind of change to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another pod takes its place: the number of endpoints stays.
    Replace,
    /// It goes, and comes back the next time: the number of endpoints changes.
    Count,
}

/// Makes changes of one endpoint, each to another Service.
#[derive(Default)]
pub struct Changes {
    /// Changed slices of a Service.
    changed: HashMap<u32, Vec<(String, Slice)>>,
    made: u32,
    /// Endpoint taken away, with its Service, to be brought back.
    away: Option<(u32, rulecast_compiler::model::Endpoint)>,
}

impl Changes {
    /// The next change: a slice's name and new content.
    pub fn next(&mut self, cluster: &Cluster, kind: Kind) -> (String, Slice) {
        let number = self.made;
        self.made += 1;
        let back = if kind == Kind::Count { self.away.take() } else { None };
        let service =
            back.as_ref().map_or_else(|| cluster.scattered_service(number), |(service, _)| *service);
        let slices = self.changed.entry(service).or_insert_with(|| cluster.slices(service));
        let (name, slice) = slices.last_mut().expect("a Service has a slice");
        match (kind, back) {
            (Kind::Replace, _) => match slice.endpoints.first_mut() {
                Some(endpoint) => *endpoint = cluster.spare(number),
                None => slice.endpoints.push(cluster.spare(number)),
            },
            (Kind::Count, Some((_, endpoint))) => slice.endpoints.push(endpoint),
            (Kind::Count, None) => {
                let endpoint = slice.endpoints.pop().expect("a slice has an endpoint");
                self.away = Some((service, endpoint));
            }
        }
        (name.clone(), slice.clone())
    }
}

/// A version as it is published.
pub struct Version {
    /// The head, with the delta inline.
    pub head: Head,
    /// The delta's bytes.
    pub delta: Vec<u8>,
}

/// A compiled cluster and its publications.
pub struct Control {
    cluster: Cluster,
    compiler: Compiler,
    changes: Changes,
    head: Head,
    /// The chunk of the delta before.
    previous: Option<ChunkId>,
}

impl Control {
    /// Compiles a cluster.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let mut compiler = Compiler::default();
        cluster.feed(&mut compiler);
        compiler.compile();
        let head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: cluster.mode(),
            epoch: 0,
            sequence: 1,
            digest: String::new(),
            checkpoint: ChunkId::default().to_string(),
            delta: String::new(),
        };
        let mut this = Self { cluster, compiler, changes: Changes::default(), head, previous: None };
        this.take_changes();
        this.seal();
        this
    }

    fn pool(&mut self) -> &mut PoolBundle {
        self.compiler.pool_mut(POOL).expect("the cluster's pool")
    }

    fn take_changes(&mut self) -> Vec<Change> {
        self.pool().take_changes()
    }

    fn seal(&mut self) {
        let root = self.pool().bundle().root();
        self.head.digest = self.head.expected_digest(POOL, root).to_string();
    }

    /// Encodes a checkpoint, which the head then names.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let sequence = self.head.sequence;
        let checkpoint = Checkpoint::encode(sequence, self.pool().bundle());
        self.head.checkpoint = ChunkId::of(&checkpoint.index.encode()).to_string();
        checkpoint
    }

    /// Changes `count` endpoints, one after the other, and publishes them as one version.
    #[must_use]
    pub fn publish(&mut self, kind: Kind, count: u32) -> Version {
        for _ in 0..count {
            let (name, slice) = self.changes.next(&self.cluster, kind);
            self.compiler.set_slice(&name, Some(slice));
        }
        self.compiler.compile();
        let changes = self.take_changes();
        let from = self.head.sequence;
        let delta = Delta { from, to: from + 1, previous: self.previous, changes }.encode();
        self.head.sequence += 1;
        self.seal();
        self.previous = Some(ChunkId::of(&delta));
        let mut head = self.head.clone();
        head.set_delta(&delta);
        Version { head, delta }
    }

    /// A node's copy of the current version, taken from its checkpoint as a joining node would.
    pub fn replica(&mut self) -> Result<Replica> {
        let checkpoint = self.checkpoint();
        let mut chunks: HashMap<ChunkId, Vec<u8>> =
            checkpoint.index.chunks.iter().copied().zip(checkpoint.chunks).collect();
        let index = checkpoint.index.encode();
        chunks.insert(ChunkId::of(&index), index);
        let mut catch_up = CatchUp::new(&self.head, None)?;
        while let Some(id) = catch_up.need() {
            catch_up.supply(chunks.remove(&id).context("a chunk that was not published")?)?;
        }
        let mut replica = Replica::new(POOL);
        let _final = replica.advance(self.head.clone(), catch_up.finish()?)?;
        Ok(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Size;

    #[test]
    fn a_node_follows_every_change() {
        let cluster = Cluster::new(Size { services: 30, endpoints: 3 }).unwrap();
        let mut control = Control::new(cluster);
        assert_eq!(control.pool().problems().len(), 0);
        assert_eq!((control.pool().stats().services, control.pool().stats().endpoints), (30, 93));
        let mut replica = control.replica().unwrap();
        for (kind, count, changes) in
            [(Kind::Replace, 1, 2), (Kind::Count, 1, 1), (Kind::Count, 1, 1), (Kind::Replace, 20, 40)]
        {
            let Version { head, delta } = control.publish(kind, count);
            // An endpoint of a load balancer with policy Local is in two lists.
            let made = Delta::decode(&delta).unwrap().changes.len();
            assert!((changes..=2 * changes).contains(&made), "{made} instead of {changes}");
            let way = CatchUp::new(&head, replica.head().map(|h| h.sequence)).unwrap().finish().unwrap();
            let _final = replica.advance(head, way).unwrap();
        }
    }
}
