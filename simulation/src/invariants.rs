//! What is promised of heads, chunks and nodes, checked whenever one of them changes.

use std::collections::{BTreeMap, BTreeSet};

use rulecast_bundle::{Bundle, CatchUp, Checkpoint, ChunkId, Delta, Head, Index, Replica};
use tokio::time::Instant;

use crate::KEEP_CHUNKS;
use crate::api_server::{Chunk, Chunks};
use crate::kernel::Rules;
use crate::trace::{Invariant, Trace};

/// Epoch and sequence: what nodes compare.
pub(crate) type Position = (u64, u64);

pub(crate) fn position(head: &Head) -> Position {
    (head.epoch, head.sequence)
}

/// What was published, and what it leads to.
pub(crate) struct Ledger {
    pools: BTreeMap<String, Pool>,
    /// When the last head that led to a chunk was replaced.
    let_go: BTreeMap<ChunkId, Instant>,
}

/// A pool's publications.
struct Pool {
    /// A reader that misses nothing.
    reader: Replica,
    head: Option<Head>,
    /// What the head leads to.
    names: BTreeSet<ChunkId>,
    /// The checkpoint that was last found to be what it should be.
    checked: Option<ChunkId>,
    digests: BTreeMap<Position, String>,
    /// By node, what each version makes of a kernel, and the last version that makes it.
    rules: BTreeMap<String, BTreeMap<Rules, Position>>,
    by_version: BTreeMap<(Position, String), Rules>,
    /// The next publication may repeat the one before.
    excused: bool,
    /// Somebody tampered with it: until it is repaired, heads need not lead anywhere.
    tampered: bool,
}

impl Ledger {
    /// Watches over these pools, each with its nodes.
    pub(crate) fn new(pools: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let pool = |(name, nodes): (String, Vec<String>)| {
            let reader = Replica::new(&name);
            let rules = nodes.into_iter().map(|node| (node, BTreeMap::new())).collect();
            let pool = Pool {
                reader,
                head: None,
                names: BTreeSet::new(),
                checked: None,
                digests: BTreeMap::new(),
                rules,
                by_version: BTreeMap::new(),
                excused: false,
                tampered: false,
            };
            (name, pool)
        };
        Self { pools: pools.into_iter().map(pool).collect(), let_go: BTreeMap::new() }
    }

    /// The pool's next publication may repeat the one before: its publisher has reason to think that it is damaged.
    pub(crate) fn excuse(&mut self, pool: &str) {
        self.pools.get_mut(pool).expect("a known pool").excused = true;
    }

    /// Somebody changed a pool's head.
    pub(crate) fn tampered(&mut self, pool: &str) {
        let pool = self.pools.get_mut(pool).expect("a known pool");
        let now = Instant::now();
        self.let_go.extend(pool.damage().into_iter().map(|id| (id, now)));
    }

    /// Somebody deleted a chunk, which may be of several pools.
    pub(crate) fn removed(&mut self, id: ChunkId) {
        let now = Instant::now();
        for pool in self.pools.values_mut() {
            if pool.names.contains(&id) {
                self.let_go.extend(pool.damage().into_iter().map(|id| (id, now)));
            } else if pool.inline() == Some(id) {
                // The head does not need it, and the next one may before somebody notices.
                (pool.tampered, pool.excused) = (true, true);
            }
        }
    }

    /// What a pool's head leads to.
    pub(crate) fn names(&self, pool: &str) -> &BTreeSet<ChunkId> {
        &self.pools[pool].names
    }

    /// A head was written.
    pub(crate) fn published(&mut self, trace: &Trace, name: &str, head: &Head, chunks: &Chunks) {
        let Some(pool) = self.pools.get_mut(name) else {
            trace.violate(Invariant::HeadLeads, format!("nobody asked for a pool {name}"));
            return;
        };
        let before = std::mem::take(&mut pool.names);
        let (root, mode) = (pool.reader.bundle().root(), pool.head.as_ref().map(|head| head.mode));
        if let Err((invariant, problem)) = pool.take(name, head, chunks) {
            trace.violate(invariant, format!("head {:?} of {name}: {problem}", position(head)));
            return;
        }
        let same = mode == Some(head.mode) && root == pool.reader.bundle().root();
        if same && !pool.excused {
            let problem = format!("head {:?} of {name} repeats the one before", position(head));
            trace.violate(Invariant::NoNeedless, problem);
        }
        pool.excused = pool.tampered;
        let now = Instant::now();
        for id in before.difference(&pool.names) {
            self.let_go.insert(*id, now);
        }
    }

    /// A chunk was deleted.
    pub(crate) fn deleted(&self, trace: &Trace, id: ChunkId) {
        if let Some((name, _)) = self.pools.iter().find(|(_, pool)| pool.names.contains(&id)) {
            trace.violate(
                Invariant::HeadLeads,
                format!("chunk {id} was deleted, and {name}'s head leads to it"),
            );
        } else if let Some(since) = self.let_go.get(&id)
            && since.elapsed() < KEEP_CHUNKS
        {
            let problem = format!("chunk {id} was deleted {:?} after a head led to it", since.elapsed());
            trace.violate(Invariant::HeadLeads, problem);
        }
    }

    /// Chunks that neither a head leads to nor the next one may: a merged delta to the version in force waits for it, and a
    /// checkpoint that was written since the one in use.
    pub(crate) fn unnamed(&self, chunks: &Chunks) -> Vec<ChunkId> {
        // A head that somebody tampered with, and that no RulePool asks to repair, leads wherever it does.
        if self.pools.values().any(|pool| pool.tampered) {
            return Vec::new();
        }
        let mut named: BTreeSet<ChunkId> = BTreeSet::new();
        for pool in self.pools.values() {
            named.extend(&pool.names);
            named.extend(
                pool.head.as_ref().and_then(|head| head.delta_bytes().ok()?).map(|d| ChunkId::of(&d)),
            );
        }
        // A chunk may be two pools' at a time, if they are alike.
        let heads = || self.pools.values().filter_map(|pool| pool.head.as_ref());
        for ((id, chunk), head) in chunks.iter().flat_map(|chunk| heads().map(move |head| (chunk, head))) {
            if Delta::decode(&chunk.bytes).is_ok_and(|delta| delta.to == head.sequence) {
                named.insert(*id);
            }
            let Ok(index) = Index::decode(&chunk.bytes) else { continue };
            let in_use = head.checkpoint.parse().ok().and_then(|id: ChunkId| chunks.get(&id));
            let in_use = in_use.and_then(|chunk| Index::decode(&chunk.bytes).ok());
            let newer = in_use.is_none_or(|in_use| index.sequence > in_use.sequence);
            if newer && index.sequence <= head.sequence {
                named.insert(*id);
                named.extend(index.chunks);
            }
        }
        // Without a head, chunks tell its pool's next one how far it was.
        let headless = |chunk: &Chunk| self.pools.get(&chunk.pool).is_none_or(|pool| pool.head.is_none());
        let unnamed = chunks.iter().filter(|(id, chunk)| !named.contains(id) && !headless(chunk));
        unnamed.map(|(id, _)| *id).collect()
    }

    /// Whether this head is what was published and leads to its content.
    pub(crate) fn is_sound(&self, pool: &str, head: Option<&Head>, chunks: &Chunks) -> bool {
        let pool = &self.pools[pool];
        let leads = |head| names(head, chunks).is_ok();
        head == pool.head.as_ref() && head.is_none_or(leads)
    }

    /// The head in force, with its content.
    pub(crate) fn head(&self, pool: &str) -> Option<(&Head, &Bundle)> {
        let pool = &self.pools[pool];
        pool.head.as_ref().map(|head| (head, pool.reader.bundle()))
    }

    /// The digest that was published with a version.
    pub(crate) fn digest(&self, pool: &str, position: Position) -> Option<&str> {
        self.pools[pool].digests.get(&position).map(String::as_str)
    }

    /// What a version makes of a node's kernel.
    pub(crate) fn rules(&self, pool: &str, node: &str, position: Position) -> Option<Rules> {
        self.pools[pool].by_version.get(&(position, node.to_owned())).copied()
    }

    /// The last version that makes this of a node's kernel.
    pub(crate) fn version(&self, pool: &str, node: &str, rules: Rules) -> Option<Position> {
        self.pools[pool].rules.get(node)?.get(&rules).copied()
    }
}

type Problem = (Invariant, String);

impl Pool {
    /// The delta in its head, as a chunk.
    fn inline(&self) -> Option<ChunkId> {
        Some(ChunkId::of(&self.head.as_ref()?.delta_bytes().ok()??))
    }

    /// Nothing can be said of what its head leads to, until it is repaired. Returns what it led to.
    fn damage(&mut self) -> BTreeSet<ChunkId> {
        (self.tampered, self.excused) = (true, true);
        std::mem::take(&mut self.names)
    }

    fn take(&mut self, name: &str, head: &Head, chunks: &Chunks) -> Result<(), Problem> {
        let wrong = |problem: String| (Invariant::HeadLeads, problem);
        if let Some(before) = &self.head
            && position(head) <= position(before)
        {
            return Err(wrong(format!("the one before was {:?}", position(before))));
        }
        let (names, index) = match names(head, chunks) {
            Ok(found) => found,
            Err(_) if self.tampered => {
                // Nodes that are there already follow the delta, if it is for them.
                if self.advance(head, chunks).is_ok() {
                    self.note(head);
                } else {
                    self.reader = Replica::new(name);
                    self.digests.insert(position(head), head.digest.clone());
                    self.head = Some(head.clone());
                }
                return Ok(());
            }
            Err(problem) => return Err(wrong(problem)),
        };
        self.tampered = false;
        let of_before = self.frame_if(index.sequence);
        self.advance(head, chunks).map_err(wrong)?;
        if self.checked != head.checkpoint.parse().ok() {
            let frame = of_before.or_else(|| self.frame_if(index.sequence));
            check_checkpoint(name, head, chunks, &index, frame).map_err(wrong)?;
            self.checked = head.checkpoint.parse().ok();
        }
        self.names = names;
        self.note(head);
        Ok(())
    }

    /// What nodes make of a head.
    fn note(&mut self, head: &Head) {
        self.digests.insert(position(head), head.digest.clone());
        for (node, rules) in &mut self.rules {
            let made = Rules::of(node, self.reader.bundle());
            rules.insert(made, position(head));
            self.by_version.insert((position(head), node.clone()), made);
        }
        self.head = Some(head.clone());
    }

    /// The content as a checkpoint has it, if it is of this sequence.
    fn frame_if(&self, sequence: u64) -> Option<Vec<u8>> {
        let head = self.reader.head().filter(|head| head.sequence == sequence);
        head.map(|_| self.reader.bundle().frame())
    }

    fn advance(&mut self, head: &Head, chunks: &Chunks) -> Result<(), String> {
        let have = self.reader.head().filter(|h| h.epoch == head.epoch).map(|h| h.sequence);
        read(&mut self.reader, head, chunks, have)
    }
}

/// Follows a head as a node does.
fn read(reader: &mut Replica, head: &Head, chunks: &Chunks, have: Option<u64>) -> Result<(), String> {
    let mut way = CatchUp::new(head, have).map_err(|e| e.to_string())?;
    while let Some(id) = way.need() {
        let bytes = chunk(chunks, id)?.bytes.clone();
        way.supply(bytes).map_err(|e| format!("chunk {id}: {e}"))?;
    }
    let way = way.finish().map_err(|e| e.to_string())?;
    reader.advance(head.clone(), way).map(drop).map_err(|refusal| refusal.to_string())
}

fn chunk(chunks: &Chunks, id: ChunkId) -> Result<&Chunk, String> {
    chunks.get(&id).ok_or_else(|| format!("chunk {id} is missing"))
}

/// Everything that a head leads to, all of which is there, and its checkpoint.
fn names(head: &Head, chunks: &Chunks) -> Result<(BTreeSet<ChunkId>, Index), String> {
    let id: ChunkId = head.checkpoint.parse().map_err(|_| "it names no checkpoint".to_owned())?;
    let index = Index::decode(&chunk(chunks, id)?.bytes).map_err(|e| e.to_string())?;
    let mut names = BTreeSet::from([id]);
    for id in &index.chunks {
        chunk(chunks, *id)?;
        names.insert(*id);
    }
    let mut at = head.sequence;
    let mut delta = head.delta_bytes().map_err(|e| e.to_string())?;
    while at > index.sequence {
        let bytes = delta.ok_or_else(|| format!("the deltas lead back to {at} only"))?;
        let Delta { from, to, previous, .. } = Delta::decode(&bytes).map_err(|e| e.to_string())?;
        if to != at {
            return Err(format!("a delta leads to {to} where {at} should be"));
        }
        at = from;
        if at <= index.sequence {
            break;
        }
        names.extend(previous);
        delta = previous.map(|id| chunk(chunks, id).map(|chunk| chunk.bytes.clone())).transpose()?;
    }
    Ok((names, index))
}

/// Compares a checkpoint with the content of its version, or follows it to the head when that is not known any more.
fn check_checkpoint(
    name: &str,
    head: &Head,
    chunks: &Chunks,
    index: &Index,
    frame: Option<Vec<u8>>,
) -> Result<(), String> {
    let Some(frame) = frame else {
        return read(&mut Replica::new(name), head, chunks, None);
    };
    let pieces: Vec<Vec<u8>> = index
        .chunks
        .iter()
        .map(|id| chunk(chunks, *id).map(|c| c.bytes.clone()))
        .collect::<Result<_, _>>()?;
    let held = Checkpoint::frame(index, &pieces).map_err(|e| e.to_string())?;
    if held == frame { Ok(()) } else { Err(format!("its checkpoint is not version {}", index.sequence)) }
}
