//! The applier's life against a fake kernel and a fake source.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use rulecast_bundle::{
    Bundle, Change, Checkpoint, ChunkId, Delta, FORMAT, GroupId, GroupKind, Head, Key, Member, Mode, Proto,
    Scope, Value,
};
use rulecast_node::applier::Applier;
use rulecast_node::backend::{Applied, Backend, BackendError};
use rulecast_node::run::{Local, Runner};
use rulecast_node::source::directory::Directory;
use rulecast_node::source::{News, Source, SourceError};
use rulecast_node::status::Shared;
use rulecast_node::view::{Touched, View};
use tokio::time::timeout;

/// A kernel that takes some writes, then refuses some, then takes all.
struct Kernel {
    take: u32,
    refuse: u32,
}

impl Kernel {
    fn write(&mut self) -> Result<Applied, BackendError> {
        if self.take > 0 || self.refuse == 0 {
            self.take = self.take.saturating_sub(1);
            return Ok(Applied::default());
        }
        self.refuse -= 1;
        Err(BackendError::Rules("refused by the test".to_owned()))
    }
}

impl Backend for Kernel {
    fn rebuild(&mut self, _: &View, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.write()
    }
    fn update(&mut self, _: &View, _: &Touched, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.write()
    }
    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        Ok(None)
    }
}

/// Heads one after the other, then nothing more.
#[derive(Default)]
struct Memory {
    heads: Vec<Head>,
    chunks: HashMap<ChunkId, Vec<u8>>,
}

impl Memory {
    fn put(&mut self, bytes: Vec<u8>) -> ChunkId {
        let id = ChunkId::of(&bytes);
        self.chunks.insert(id, bytes);
        id
    }

    /// A version with these members and a checkpoint of its own; `from` are the members before it.
    fn publish(&mut self, sequence: u64, members: &[u8], from: Option<&[u8]>) {
        let bundle = bundle(members);
        let checkpoint = Checkpoint::encode(sequence, &bundle);
        for chunk in checkpoint.chunks {
            self.put(chunk);
        }
        let index = self.put(checkpoint.index.encode());
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
        head.digest = head.expected_digest("p", bundle.root()).to_string();
        if let Some(from) = from {
            let changes = changes_between(from, members);
            head.set_delta(&Delta { from: sequence - 1, to: sequence, previous: None, changes }.encode());
        }
        self.heads.insert(0, head);
    }
}

fn changes_between(from: &[u8], to: &[u8]) -> Vec<Change> {
    bundle(from).diff(&bundle(to))
}

fn bundle(members: &[u8]) -> Bundle {
    let group =
        GroupId { addr: IpAddr::from([10, 96, 0, 1]), port: 80, proto: Proto::Tcp, kind: GroupKind::Cluster };
    let mut bundle = Bundle::default();
    for n in members {
        let key = Key::Member { group, scope: Scope::All, port: 80, addr: IpAddr::from([10, 1, 0, *n]) };
        let _ = bundle.apply(&[Change { key, value: Some(Value::Member(Member::default())) }]).unwrap();
    }
    bundle
}

impl Source for Memory {
    fn follow(&mut self, name: &str) {
        unreachable!("nothing here says that the node is in a wave of {name}");
    }
    async fn next(&mut self) -> Result<News, SourceError> {
        match self.heads.pop() {
            Some(head) => Ok(News::Head(head)),
            None => std::future::pending().await,
        }
    }
    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        Ok(self.chunks[&id].clone())
    }
}

async fn run(source: Memory, kernel: Kernel, long: Duration) -> Shared {
    let shared = Shared::default();
    let applier = Applier::new("n", "p", kernel, None);
    let mut runner = Runner::new(Local::new(applier, shared.clone()), source);
    runner.run(tokio::time::sleep(long)).await;
    shared
}

#[tokio::test(start_paused = true)]
async fn deltas_of_another_history_are_passed_over_for_the_checkpoint() {
    let mut source = Memory::default();
    source.publish(1, &[1], None);
    // As after a restore from a backup: this delta is from another version 1 than the one in force.
    source.publish(2, &[2, 3], Some(&[2]));
    let shared = run(source, Kernel { take: 0, refuse: 0 }, Duration::from_secs(1)).await;
    let (state, _) = &*shared.lock();
    assert_eq!((state.head.as_ref().map(|h| h.sequence), &state.problem), (Some(2), &None));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_the_kernel_refused_stays_a_problem_until_it_is_in_force() {
    let versions = || {
        let mut source = Memory::default();
        source.publish(1, &[1], None);
        source.publish(2, &[1, 2], Some(&[1]));
        source
    };
    let told = |shared: &Shared| {
        let (state, _) = &*shared.lock();
        (state.head.as_ref().map(|h| h.sequence), state.problem.as_ref().map(|p| p.sequence), state.in_step)
    };
    let shared = Shared::default();
    // Version 1, then the update and the rebuild of version 2.
    let kernel = Kernel { take: 1, refuse: 2 };
    let applier = Applier::new("n", "p", kernel, None);
    let mut runner = Runner::new(Local::new(applier, shared.clone()), versions());
    runner.run(tokio::time::sleep(Duration::from_secs(3))).await;
    assert_eq!(
        told(&shared),
        (Some(1), Some(Some(2)), true),
        "version 1 was repaired, version 2 is still missing"
    );
    runner.run(tokio::time::sleep(Duration::from_secs(15))).await;
    assert_eq!(told(&shared), (Some(2), None, true), "it was tried again");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_told_once_and_does_not_hold_the_node_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("p")).unwrap();
    let path = dir.path().join("p/head.json");
    fs::write(&path, "{ half").unwrap();
    let mut source = Directory::new(dir.path(), "p");
    let error = source.next().await.expect_err("a malformed head");
    assert!(error.to_string().contains("head.json"), "{error}");
    timeout(Duration::from_millis(300), source.next()).await.expect_err("it was told already");
    let mut memory = Memory::default();
    memory.publish(1, &[1], None);
    fs::write(&path, serde_json::to_vec(&memory.heads[0]).unwrap()).unwrap();
    let news = timeout(Duration::from_secs(20), source.next()).await.expect("in time").expect("a good head");
    assert!(matches!(news, News::Head(head) if head.sequence == 1));
}
