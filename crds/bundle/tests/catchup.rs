//! Readers that are behind: what they read, where they get, and what they refuse.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use proptest::prelude::*;
use rulecast_bundle::{
    Bundle, CatchUp, Change, Checkpoint, ChunkId, DecodeError, Delta, FORMAT, GroupId, GroupKind, Head, Key,
    Member, Mode, Proto, Refusal, Replica, Scope, Value, Way,
};

fn member(n: u8) -> Key {
    let group =
        GroupId { addr: IpAddr::from([10, 96, 0, 1]), port: 80, proto: Proto::Tcp, kind: GroupKind::Cluster };
    Key::Member { group, scope: Scope::All, port: 80, addr: IpAddr::from([10, 1, 0, n]) }
}

/// A publisher in memory: every version's head, and all chunks.
struct Published {
    heads: Vec<Head>,
    chunks: HashMap<ChunkId, Vec<u8>>,
    bundle: Bundle,
    previous: Option<ChunkId>,
    checkpoint: ChunkId,
    /// The checkpoint's version, and what changed since.
    since: (u64, BTreeMap<Key, Option<Value>>),
}

/// What a version may bring beside its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    Nothing,
    /// A new checkpoint, and a new chain of deltas.
    Checkpoint,
    /// A merged delta in place of its own.
    Merged,
}

impl Published {
    /// Version 1 is a checkpoint of an empty bundle; each step toggles a member, some with a new checkpoint.
    fn new(steps: &[(u8, Extra)]) -> Self {
        let mut this = Self {
            heads: Vec::new(),
            chunks: HashMap::new(),
            bundle: Bundle::default(),
            previous: None,
            checkpoint: ChunkId::default(),
            since: (1, BTreeMap::new()),
        };
        this.write_checkpoint(1);
        this.publish(1, &[]);
        for (n, (toggle, extra)) in steps.iter().enumerate() {
            let sequence = n as u64 + 2;
            let key = member(*toggle);
            let value =
                if this.bundle.get(&key).is_some() { None } else { Some(Value::Member(Member::default())) };
            let changes = vec![Change { key, value }];
            let _ = this.bundle.apply(&changes).unwrap();
            this.since.1.extend(changes.iter().map(|c| (c.key.clone(), c.value.clone())));
            let delta = Delta { from: sequence - 1, to: sequence, previous: this.previous, changes };
            let bytes = delta.encode();
            if *extra == Extra::Checkpoint {
                this.write_checkpoint(sequence);
                this.since = (sequence, BTreeMap::new());
            }
            this.publish(sequence, &bytes);
            this.previous = match extra {
                Extra::Checkpoint => None,
                Extra::Nothing => Some(this.put(bytes)),
                Extra::Merged => Some(this.put(this.merged(sequence))),
            };
        }
        this
    }

    fn merged(&self, to: u64) -> Vec<u8> {
        let (from, changes) = &self.since;
        let changes = changes.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() });
        Delta { from: *from, to, previous: None, changes: changes.collect() }.encode()
    }

    fn put(&mut self, bytes: Vec<u8>) -> ChunkId {
        let id = ChunkId::of(&bytes);
        self.chunks.insert(id, bytes);
        id
    }

    fn write_checkpoint(&mut self, sequence: u64) {
        let checkpoint = Checkpoint::encode(sequence, &self.bundle);
        for chunk in checkpoint.chunks {
            self.put(chunk);
        }
        self.checkpoint = self.put(checkpoint.index.encode());
    }

    fn publish(&mut self, sequence: u64, delta: &[u8]) {
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence,
            digest: String::new(),
            checkpoint: self.checkpoint.to_string(),
            delta: String::new(),
        };
        head.digest = head.expected_digest("p", self.bundle.root()).to_string();
        if !delta.is_empty() {
            head.set_delta(delta);
        }
        self.heads.push(head);
    }

    /// The way to a head, and how many chunks it took.
    fn way(&self, head: &Head, have: Option<u64>) -> Result<(Way, usize), DecodeError> {
        let mut catch_up = CatchUp::new(head, have)?;
        let mut reads = 0;
        while let Some(id) = catch_up.need() {
            catch_up.supply(self.chunks[&id].clone())?;
            reads += 1;
        }
        Ok((catch_up.finish()?, reads))
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, Extra)>> {
    let extra =
        prop_oneof![6 => Just(Extra::Nothing), 1 => Just(Extra::Checkpoint), 2 => Just(Extra::Merged)];
    proptest::collection::vec((0u8..9, extra), 1..40)
}

proptest! {
    #[test]
    fn a_reader_arrives_from_wherever_it_is(steps in steps(), stops in proptest::collection::vec(any::<prop::sample::Index>(), 1..6)) {
        let published = Published::new(&steps);
        let mut replica = Replica::new("p");
        let mut stops: Vec<usize> = stops.iter().map(|i| i.index(published.heads.len())).collect();
        stops.sort_unstable();
        stops.dedup();
        for stop in stops {
            let head = &published.heads[stop];
            let have = replica.admit(head).unwrap().expect("a newer version");
            let (way, reads) = published.way(head, have).unwrap();
            let at = |sequence: u64| usize::try_from(sequence).unwrap() - 1;
            if let Some(have) = have {
                // The last one is inline. After a merged delta nothing more has to be read.
                let missed = &steps[at(have)..stop - 1];
                let merged = missed.iter().rposition(|(_, extra)| *extra == Extra::Merged);
                if missed.iter().all(|(_, extra)| *extra != Extra::Checkpoint) {
                    prop_assert_eq!(reads, missed.len() - merged.unwrap_or(0));
                }
            }
            replica.advance(head.clone(), way).unwrap();
            prop_assert_eq!(replica.admit(head), Ok(None));
        }
    }

    #[test]
    fn changes_of_several_versions_net_out(steps in proptest::collection::vec((0u8..4, Just(Extra::Nothing)), 2..20)) {
        let published = Published::new(&steps);
        let mut replica = Replica::new("p");
        let (way, _) = published.way(&published.heads[0], None).unwrap();
        replica.advance(published.heads[0].clone(), way).unwrap();
        let head = published.heads.last().unwrap();
        let (way, _) = published.way(head, Some(1)).unwrap();
        let mut plain = Bundle::default();
        let step = replica.advance(head.clone(), way).unwrap();
        let changes = step.changes.as_ref().unwrap();
        let _ = plain.apply(changes).expect("no change without effect");
        prop_assert_eq!(plain.root(), published.bundle.root());
        replica.retreat(step);
        prop_assert_eq!(replica.head(), Some(&published.heads[0]));
        prop_assert!(replica.bundle().is_empty());
    }
}

#[test]
fn old_foreign_and_unknown_versions_are_refused_and_nothing_moves() {
    let published = Published::new(&[(1, Extra::Nothing), (2, Extra::Nothing)]);
    let (first, last) = (&published.heads[0], &published.heads[2]);
    let mut replica = Replica::new("p");
    let (way, _) = published.way(last, None).unwrap();
    replica.advance(last.clone(), way).unwrap();
    let refused = |head: &Head| replica.admit(head).unwrap_err().reason();
    assert_eq!(refused(first), "Replay");
    assert_eq!(refused(&Head { digest: first.digest.clone(), ..last.clone() }), "Conflict");
    assert_eq!(refused(&Head { format: FORMAT + 1, ..last.clone() }), "UnknownVersion");
    assert_eq!(refused(&Head { min_applier: 9, ..last.clone() }), "UnknownVersion");
    // A higher epoch begins anew, whatever its sequence.
    assert_eq!(replica.admit(&Head { epoch: 1, ..first.clone() }), Ok(Some(None)));

    let mut foreign = Replica::new("other");
    let (way, _) = published.way(last, None).unwrap();
    assert_eq!(foreign.advance(last.clone(), way).map(drop), Err(Refusal::Digest));
    assert!(foreign.head().is_none() && foreign.bundle().is_empty());
}

#[test]
fn the_bundle_of_the_next_shape_is_taken_over_and_never_an_older_one() {
    let published = Published::new(&[(1, Extra::Nothing), (2, Extra::Nothing)]);
    let (first, last) = (&published.heads[0], &published.heads[2]);
    let mut replica = Replica::new("p");
    let (way, _) = published.way(last, None).unwrap();
    replica.advance(last.clone(), way).unwrap();
    let root = replica.bundle().root();
    let under = |name: &str, sequence: u64| {
        let mut head = Head { sequence, ..last.clone() };
        head.digest = head.expected_digest(name, root).to_string();
        head
    };
    replica.follow("p.next");
    let behind = under("p.next", last.sequence - 1);
    assert_eq!(replica.admit(&behind).unwrap_err().reason(), "Behind");
    assert!(matches!(replica.adopt(&behind), Err(Refusal::Behind { .. })));
    assert!(replica.adopt(&under("p", last.sequence + 1)).unwrap().is_none(), "the other bundle's digest");
    assert!(replica.adopt(&Head { digest: first.digest.clone(), ..behind.clone() }).is_err());
    assert_eq!(replica.admit(last), Ok(Some(None)), "as new, but the deltas are another bundle's");
    let next = under("p.next", last.sequence + 1);
    let step = replica.adopt(&next).unwrap().expect("the same content");
    assert_eq!((step.changes.as_deref(), replica.name()), (Some(&[][..]), Some("p.next")));
    assert_eq!(replica.admit(&next), Ok(None));
    replica.retreat(step);
    assert_eq!((replica.head(), replica.name(), replica.followed()), (Some(last), Some("p"), "p.next"));
    replica.follow("p");
    assert_eq!(replica.admit(last), Ok(None));
    assert!(Replica::new("p").adopt(last).unwrap().is_none(), "nothing is in force");
}

#[test]
fn a_bundle_read_anew_changes_only_what_differs() {
    let published = Published::new(&[(1, Extra::Checkpoint), (2, Extra::Checkpoint), (5, Extra::Checkpoint)]);
    let mut replica = Replica::new("p");
    let (way, _) = published.way(&published.heads[1], None).unwrap();
    let whole = replica.advance(published.heads[1].clone(), way).unwrap();
    assert!(whole.changes.is_none(), "the first version is all new");
    let mut before = replica.bundle().clone();
    let last = published.heads.last().unwrap();
    let (way, _) = published.way(last, None).unwrap();
    let step = replica.advance(last.clone(), way).unwrap();
    let _final = before.apply(step.changes.as_ref().expect("a diff")).unwrap();
    assert_eq!(before.root(), replica.bundle().root());
    replica.retreat(step);
    assert_eq!(replica.head(), Some(&published.heads[1]));
}

#[test]
fn chunks_that_are_altered_or_do_not_meet_are_refused() {
    let published = Published::new(&[(1, Extra::Nothing), (2, Extra::Nothing), (3, Extra::Nothing)]);
    let head = published.heads.last().unwrap();
    let mut catch_up = CatchUp::new(head, Some(1)).unwrap();
    let id = catch_up.need().unwrap();
    let mut bytes = published.chunks[&id].clone();
    bytes[3] ^= 1;
    assert_eq!(catch_up.supply(bytes), Err(DecodeError::Damaged("a chunk")));
    // Another version's delta under the head.
    let mut wrong = head.clone();
    wrong.delta.clone_from(&published.heads[1].delta);
    assert!(CatchUp::new(&wrong, Some(1)).is_err());
    // Without an inline delta the checkpoint is the way, if it reaches that far.
    let bare = Head { delta: String::new(), ..head.clone() };
    assert!(published.way(&bare, Some(3)).is_err(), "the checkpoint is older than the head");
}
