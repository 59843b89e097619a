//! An API server and a kernel in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{
    Bundle, Change, Checkpoint, ChunkId, Empty, FORMAT, Group, GroupId, GroupKind, Head, Key, LaneKey,
    Member, Mode, NodeFact, Proto, Scope, Tag, Value,
};
use rulecast_node::backend::{Applied, Backend, BackendError};
use rulecast_node::source::{News, Source, SourceError};
use rulecast_node::view::{Touched, View};
use tokio::sync::watch;

pub(crate) const POOL: &str = "p";
pub(crate) const NEXT: &str = "p.next";
const SCOPE: Scope = Scope::All;

/// What a bundle says: one Service port, its endpoints, and whether node `n` is in a wave.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) port: u16,
    pub(crate) members: &'static [u8],
    pub(crate) next: bool,
}

fn id() -> GroupId {
    GroupId { addr: [10, 96, 0, 1].into(), port: 80, proto: Proto::Tcp, kind: GroupKind::Cluster }
}

impl Content {
    fn bundle(&self) -> Bundle {
        let keys = vec![LaneKey { lane: 0, addr: Some(id().addr), port: self.port }];
        let group = Group {
            owner: "a/web".into(),
            port_name: String::new(),
            empty: Empty::Reject,
            affinity: None,
            keys,
        };
        let fact = NodeFact { name: "n".into(), next: self.next, ..NodeFact::default() };
        let member = |n: &u8| {
            (
                Key::Member { group: id(), scope: SCOPE, port: 8080, addr: [10, 1, 0, *n].into() },
                Value::Member(Member::default()),
            )
        };
        let fixed = [(Key::Node(Tag::of("n")), Value::Node(fact)), (Key::Group(id()), Value::Group(group))];
        let records = fixed.into_iter().chain(self.members.iter().map(member));
        let mut bundle = Bundle::default();
        let changes: Vec<_> = records.map(|(key, value)| Change { key, value: Some(value) }).collect();
        let _final = bundle.apply(&changes).unwrap();
        bundle
    }
}

#[derive(Default)]
struct Api {
    heads: HashMap<String, Head>,
    chunks: HashMap<ChunkId, Vec<u8>>,
    reads: usize,
    asked: Vec<String>,
}

/// What is published, and one watch of it.
#[derive(Clone)]
pub(crate) struct World {
    api: Rc<RefCell<Api>>,
    changed: watch::Sender<()>,
    name: String,
    /// The sequence that was told last, 0 when there was no head.
    told: Option<u64>,
}

impl Default for World {
    fn default() -> Self {
        Self { api: Rc::default(), changed: watch::Sender::new(()), name: POOL.to_owned(), told: None }
    }
}

impl World {
    /// Publishes a version as a checkpoint, without deltas.
    pub(crate) fn publish(&self, name: &str, sequence: u64, content: &Content) {
        let bundle = content.bundle();
        let checkpoint = Checkpoint::encode(sequence, &bundle);
        let api = &mut *self.api.borrow_mut();
        let pieces = checkpoint.chunks.into_iter().chain([checkpoint.index.encode()]);
        let ids: Vec<_> = pieces.map(|bytes| (ChunkId::of(&bytes), bytes)).collect();
        let index = ids.last().expect("the index").0;
        api.chunks.extend(ids);
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence,
            digest: String::new(),
            checkpoint: index.to_string(),
            delta: String::new(),
        };
        head.digest = head.expected_digest(name, bundle.root()).to_string();
        api.heads.insert(name.to_owned(), head);
        self.changed.send_replace(());
    }

    pub(crate) fn delete(&self, name: &str) {
        self.api.borrow_mut().heads.remove(name);
        self.changed.send_replace(());
    }

    /// Chunks read so far.
    pub(crate) fn reads(&self) -> usize {
        self.api.borrow().reads
    }

    /// The bundles that nodes asked for, in turn.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.api.borrow().asked.clone()
    }
}

impl Source for World {
    fn follow(&mut self, name: &str) {
        (self.name, self.told) = (name.to_owned(), None);
    }

    async fn next(&mut self) -> Result<News, SourceError> {
        let mut changed = self.changed.subscribe();
        loop {
            if self.told.is_none() {
                self.api.borrow_mut().asked.push(self.name.clone());
            }
            let head = self.api.borrow().heads.get(&self.name).cloned();
            let sequence = head.as_ref().map_or(0, |head| head.sequence);
            if self.told != Some(sequence) {
                let deleted = self.told.replace(sequence).is_some();
                return Ok(head.map_or(News::Gone { deleted }, News::Head));
            }
            changed.changed().await.expect("the world holds the sender");
        }
    }

    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        let api = &mut *self.api.borrow_mut();
        api.reads += 1;
        Ok(api.chunks[&id].clone())
    }
}

#[derive(Default)]
struct Inside {
    rebuilds: usize,
    updates: usize,
    port: u16,
    members: Vec<u8>,
    refused: Option<u16>,
}

/// A kernel that remembers the one Service port.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Rc<RefCell<Inside>>);

impl Kernel {
    pub(crate) fn rebuilds(&self) -> usize {
        self.0.borrow().rebuilds
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.borrow().rebuilds + self.0.borrow().updates
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.borrow().port
    }

    pub(crate) fn members(&self) -> Vec<u8> {
        self.0.borrow().members.clone()
    }

    pub(crate) fn refuse_port(&self, port: u16) {
        self.0.borrow_mut().refused = Some(port);
    }

    fn take(&mut self, view: &View) -> Result<Applied, BackendError> {
        let inside = &mut *self.0.borrow_mut();
        let target = view.target(&id()).expect("the Service port");
        let port = target.shape().expect("its shape").keys[0].port;
        if inside.refused == Some(port) {
            return Err(BackendError::Rules("refused by the test".to_owned()));
        }
        inside.port = port;
        let last = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(_) => unreachable!("{:?} alone", Family::V4),
        };
        inside.members = target.members().iter().map(|usable| last(usable.endpoint.addr)).collect();
        Ok(Applied::default())
    }
}

impl Backend for Kernel {
    fn rebuild(&mut self, view: &View, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.take(view)?;
        self.0.borrow_mut().rebuilds += 1;
        Ok(Applied::default())
    }
    fn update(&mut self, view: &View, _: &Touched, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.take(view)?;
        self.0.borrow_mut().updates += 1;
        Ok(Applied::default())
    }
    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        Ok(None)
    }
}
