//! The last good bundle on disk: what a node starts from when there is no API server.
//!
//! A file `base` holds a whole bundle, a file `log` the changes since. A change appends to the log; when the log has
//! outgrown the base, a new base replaces both. Whatever is torn or altered is found by the digest in the head, and
//! an older version that is whole is used instead.

mod disk;
mod pools;

use std::io;
use std::path::{Path, PathBuf};

use rulecast_bundle::{
    Bundle, Change, ChunkId, DecodeError, Delta, Head, Refusal, Replica, Way, frame, is_next, next_of,
};
use serde::{Deserialize, Serialize};
use tracing::info;

pub use disk::{Disk, Folder};

use crate::hold::{BadFile, Hold, Previous, decode_hold, decode_previous};

/// The log is folded into a new base when it exceeds the base's size and this, in bytes.
const SMALL_LOG: u64 = 256 << 10;
const BASE: &str = "base";
const LOG: &str = "log";
const HOLD: &str = "hold";
const PREVIOUS: &str = "previous";

/// Where a pool's last good bundle is kept.
pub struct Store {
    disk: Box<dyn Disk>,
    base_size: u64,
    log_size: u64,
    /// The node has been in another pool since.
    superseded: Option<String>,
}

/// Why nothing could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The files are damaged.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        source: Refusal,
    },
    /// What is kept beside the bundle is damaged.
    #[error("{path}: {source}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// How.
        source: BadFile,
    },
}

impl Store {
    /// Opens the folder `DIR/POOL`, readable by its owner only.
    pub fn open(dir: &Path, pool: &str) -> Result<Self, StoreError> {
        let dir = dir.join(pool);
        let folder = Folder::open(&dir).map_err(|source| StoreError::Io { path: dir, source })?;
        Ok(Self::on(folder))
    }

    /// On another disk than a folder's.
    #[must_use]
    pub fn on(disk: impl Disk + 'static) -> Self {
        Self { disk: Box::new(disk), base_size: 0, log_size: 0, superseded: None }
    }

    /// Nothing is loaded if a version of another pool was kept in `DIR` later: endpoints have changed since, and the kernel has
    /// that pool's rules until the source answers.
    #[must_use]
    pub fn unless_superseded(mut self, dir: &Path, pool: &str) -> Self {
        self.superseded = pools::newer(dir, pool);
        self
    }

    fn failed(&self, file: &str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.disk.path(file), source }
    }

    /// Loads the newest version that is whole; none when nothing was ever stored.
    pub fn load(&mut self, pool: &str) -> Result<Option<Replica>, StoreError> {
        if let Some(other) = &self.superseded {
            info!("this node was in the pool {other} since; what its disk has of the pool {pool} is too old");
            return Ok(None);
        }
        let Some(base) = self.read(BASE)? else { return Ok(None) };
        let log = self.read(LOG)?.unwrap_or_default();
        self.base_size = base.len() as u64;
        let damaged = |source| StoreError::Damaged { path: self.disk.path(BASE), source };
        let (base_of, records) = entry(&base).map_err(|e| damaged(e.into()))?;
        let mut log = read_log(&log);
        // A log that goes back to before the base was to be emptied.
        let position = |named: &Named| (named.head.epoch, named.head.sequence);
        if log.first().is_some_and(|(first, _, _)| position(first) <= position(&base_of)) {
            log.clear();
        }
        // A torn end is left out by `read_log`; should the rest not add up either, the base alone still may.
        let (mut best, mut whole) = (None, 0);
        for take in [log.len(), 0] {
            let Named { head, next } = log[..take].last().map_or(&base_of, |(named, _, _)| named).clone();
            let mut replica = Replica::new(&if next { next_of(pool) } else { pool.to_owned() });
            let bundle =
                frame::Decoder::new(records).and_then(Bundle::load).map_err(|e| damaged(e.into()))?;
            let deltas =
                log[..take].iter().map(|(of, changes, _)| delta(&of.head, changes.clone())).collect();
            match replica.advance(head, Way::Anew(Box::new(bundle), deltas)) {
                Ok(_final) => {
                    whole = log[..take].last().map_or(0, |(_, _, end)| *end);
                    best = Some(replica);
                    break;
                }
                Err(refusal) if take == 0 => return Err(damaged(refusal)),
                Err(_) => {}
            }
        }
        // What is appended next follows the last whole entry.
        self.log_size = whole;
        if self.disk.truncate(LOG, whole).is_err() {
            // Such a disk can be read all the same. The next version is stored whole.
            self.base_size = 0;
        }
        Ok(best)
    }

    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(file).map_err(|e| self.failed(file, e))
    }

    /// Keeps a version: its changes when it follows the one stored last, else all of it.
    pub fn keep(&mut self, replica: &Replica, changes: Option<&[Change]>) -> Result<(), StoreError> {
        let Some(head) = replica.head() else { return Ok(()) };
        let next = replica.name().is_some_and(is_next);
        let named = Named { head: Head { delta: String::new(), ..head.clone() }, next };
        match changes {
            Some(changes) if self.base_size > 0 && self.log_size < self.base_size.max(SMALL_LOG) => {
                let body = frame::encode(changes.iter().map(|c| (&c.key, c.value.as_ref())));
                self.append(&encode_entry(&named, &body))
            }
            _ => self.replace(&encode_entry(&named, &replica.bundle().frame())),
        }
    }

    /// The next version that is kept is kept whole: the one before it was not.
    pub fn skip(&mut self) {
        self.base_size = 0;
    }

    /// What somebody asked of this node; none when nothing.
    pub fn load_hold(&self) -> Result<Option<Hold>, StoreError> {
        let bytes = self.read(HOLD)?.unwrap_or_default();
        decode_hold(&bytes).map_err(|source| StoreError::BadFile { path: self.disk.path(HOLD), source })
    }

    /// Keeps it. To be done before the version is kept that the hold is over.
    pub fn keep_hold(&mut self, hold: Option<&Hold>) -> Result<(), StoreError> {
        let bytes = hold.map(Hold::encode).unwrap_or_default();
        self.disk.replace(HOLD, &bytes).map_err(|e| self.failed(HOLD, e))
    }

    /// The last change of the shape; none when none was seen.
    pub fn load_previous(&self) -> Result<Option<Previous>, StoreError> {
        let bytes = self.read(PREVIOUS)?.unwrap_or_default();
        decode_previous(&bytes)
            .map_err(|source| StoreError::BadFile { path: self.disk.path(PREVIOUS), source })
    }

    /// Keeps it. To be done before the version is kept that brought it.
    pub fn keep_previous(&mut self, previous: &Previous) -> Result<(), StoreError> {
        self.disk.replace(PREVIOUS, &previous.encode()).map_err(|e| self.failed(PREVIOUS, e))
    }

    fn append(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX).to_be_bytes();
        let record = [&length[..], entry, &ChunkId::of(entry).0].concat();
        if let Err(error) = self.disk.append(LOG, &record) {
            // A full disk may have taken half of it. The next version is stored whole.
            self.base_size = 0;
            return Err(self.failed(LOG, error));
        }
        self.log_size += record.len() as u64;
        Ok(())
    }

    /// Writes a new base. The log goes last: with the old base it is the newest version that was kept, and a new base
    /// makes nothing of an old log.
    fn replace(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        let written = self.disk.replace(BASE, entry).and_then(|()| self.disk.truncate(LOG, 0));
        self.base_size = if written.is_ok() { entry.len() as u64 } else { 0 };
        self.log_size = 0;
        written.map_err(|e| self.failed(BASE, e))
    }
}

fn delta(head: &Head, changes: Vec<Change>) -> Delta {
    Delta { from: head.sequence - 1, to: head.sequence, previous: None, changes }
}

/// A head, and of which of the pool's bundles it is: that is part of its digest.
#[derive(Clone, Serialize, Deserialize)]
struct Named {
    #[serde(flatten)]
    head: Head,
    /// The bundle of the pool's next shape. What was stored before there were such says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    next: bool,
}

/// `length of head, head as JSON, frame`.
fn encode_entry(head: &Named, body: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("a head is plain data");
    let length = u32::try_from(head.len()).expect("a head is small").to_be_bytes();
    [&length[..], &head, body].concat()
}

fn entry(bytes: &[u8]) -> Result<(Named, &[u8]), DecodeError> {
    let (head, body) = length_prefixed(bytes).ok_or(DecodeError::Truncated)?;
    let head = serde_json::from_slice(head).map_err(|_| DecodeError::Damaged("the head on disk"))?;
    Ok((head, body))
}

fn length_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The whole entries from the log's beginning, each with where it ends.
fn read_log(log: &[u8]) -> Vec<(Named, Vec<Change>, u64)> {
    let mut entries = Vec::new();
    let mut rest = log;
    while let Some((bytes, after)) = length_prefixed(rest) {
        let Some((seal, after)) = after.split_first_chunk::<20>() else { break };
        if ChunkId::of(bytes).0 != *seal {
            break;
        }
        let Ok((head, body)) = entry(bytes) else { break };
        let Ok(changes) = frame::Decoder::new(body).and_then(Iterator::collect) else { break };
        rest = after;
        entries.push((head, changes, (log.len() - rest.len()) as u64));
    }
    entries
}
