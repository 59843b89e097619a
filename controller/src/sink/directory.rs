//! A directory as sink: `POOL/head.json`, `POOL/chunks/NAME` and `POOL/revisions/NUMBER.json`, readable by a node applier, by
//! people and by Git.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rulecast_bundle::{ChunkId, Digest, Head};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ChunkKind, LastBundle, Revision, RuleRevisionSpec, Sink, SinkError, Version};

/// Publishes into a directory.
///
/// Every file appears whole: it is written under another name, flushed to the disk and renamed. Heads have no version
/// in a file system, so their content is it: a second writer is noticed, unless it comes between reading and renaming,
/// which [`DirectorySink::lock`] rules out for well-behaved ones.
pub struct DirectorySink {
    root: PathBuf,
    /// Held as long as the sink lives: the lock is on it.
    lock: Option<File>,
}

const HEAD: &str = "head.json";
const CHUNKS: &str = "chunks";
const REVISIONS: &str = "revisions";
/// What files with a revision's last bundle end with.
const LAST: &str = ".last.json";
/// What files that are being written begin with.
const TEMPORARY: &str = ".writing-";

impl DirectorySink {
    /// Publishes into `root`, which is made if it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, SinkError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|e| SinkError::failed(format!("making {}", root.display()), e))?;
        Ok(Self { root, lock: None })
    }

    /// As [`DirectorySink::new`], and keeps other processes that ask for the lock out.
    pub fn lock(root: impl Into<PathBuf>) -> Result<Self, SinkError> {
        let mut this = Self::new(root)?;
        let path = this.root.join(".lock");
        let what = || format!("locking {}", path.display());
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| SinkError::failed(what(), e))?;
        file.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => SinkError::failed(what(), "another controller publishes there"),
            fs::TryLockError::Error(e) => SinkError::failed(what(), e),
        })?;
        this.lock = Some(file);
        Ok(this)
    }

    /// Where a pool's head is.
    #[must_use]
    pub fn head_path(&self, pool: &str) -> PathBuf {
        self.root.join(pool).join(HEAD)
    }

    fn chunk_path(&self, pool: &str, id: ChunkId) -> PathBuf {
        self.root.join(pool).join(CHUNKS).join(id.to_string())
    }

    fn revision_path(&self, pool: &str, number: u64) -> PathBuf {
        self.root.join(pool).join(REVISIONS).join(format!("{number}.json"))
    }

    fn head_bytes(&self, pool: &str) -> Result<Option<Vec<u8>>, SinkError> {
        let path = self.head_path(pool);
        found(fs::read(&path)).map_err(|e| SinkError::failed(format!("reading {}", path.display()), e))
    }
}

impl Sink for DirectorySink {
    async fn read_head(&self, pool: &str) -> Result<Option<(Head, Version)>, SinkError> {
        let Some(bytes) = self.head_bytes(pool)? else { return Ok(None) };
        let version = version(&bytes);
        match serde_json::from_slice(&bytes) {
            Ok(head) => Ok(Some((head, version))),
            Err(e) => {
                let what = self.head_path(pool).display().to_string();
                Err(SinkError::Damaged { what, problem: e.to_string(), version })
            }
        }
    }

    async fn read_chunk(&self, pool: &str, id: ChunkId) -> Result<Vec<u8>, SinkError> {
        let path = self.chunk_path(pool, id);
        let bytes = found(fs::read(&path));
        let bytes = bytes.map_err(|e| SinkError::failed(format!("reading {}", path.display()), e))?;
        bytes.ok_or(SinkError::Missing(id))
    }

    async fn write_chunk(
        &self,
        pool: &str,
        _: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        let path = self.chunk_path(pool, id);
        // A chunk that a crash or a disk damaged is written anew: its name says what it should hold.
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        write(&path, bytes)
    }

    async fn write_head(
        &self,
        pool: &str,
        head: &Head,
        over: Option<&Version>,
    ) -> Result<Version, SinkError> {
        let path = self.head_path(pool);
        if self.head_bytes(pool)?.map(|bytes| version(&bytes)).as_ref() != over {
            return Err(SinkError::Conflict(path.display().to_string()));
        }
        let bytes = pretty(head);
        write(&path, &bytes)?;
        Ok(version(&bytes))
    }

    async fn delete_head(&self, pool: &str) -> Result<(), SinkError> {
        remove(&self.head_path(pool))
    }

    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        let names = names(&self.root)?;
        Ok(names.into_iter().filter(|name| self.head_path(name).is_file()).collect())
    }

    async fn list_chunks(&self, pool: &str) -> Result<Vec<ChunkId>, SinkError> {
        let names = names(&self.root.join(pool).join(CHUNKS))?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn delete_chunk(&self, pool: &str, id: ChunkId) -> Result<(), SinkError> {
        let path = self.chunk_path(pool, id);
        remove(&path)
    }

    async fn list_revisions(&self, pool: &str) -> Result<Vec<Revision>, SinkError> {
        let folder = self.root.join(pool).join(REVISIONS);
        let mut revisions = Vec::new();
        let number = |name: &String| name.strip_suffix(".json")?.parse::<u64>().ok();
        for number in names(&folder)?.iter().filter_map(number) {
            let Some(spec) = read::<RuleRevisionSpec>(&self.revision_path(pool, number))? else { continue };
            let last = read(&folder.join(format!("{}{LAST}", spec.number)))?;
            revisions.push(Revision { spec, last });
        }
        Ok(revisions)
    }

    async fn write_revision(&self, revision: &RuleRevisionSpec) -> Result<(), SinkError> {
        let path = self.revision_path(&revision.pool, revision.number);
        if path.exists() {
            return Err(SinkError::Conflict(path.display().to_string()));
        }
        write(&path, &pretty(revision))
    }

    async fn write_last_bundle(&self, pool: &str, number: u64, last: &LastBundle) -> Result<(), SinkError> {
        let folder = self.root.join(pool).join(REVISIONS);
        if !self.revision_path(pool, number).exists() {
            return Ok(());
        }
        write(&folder.join(format!("{number}{LAST}")), &pretty(last))
    }

    async fn delete_revision(&self, pool: &str, number: u64) -> Result<(), SinkError> {
        remove(&self.revision_path(pool, number))?;
        remove(&self.root.join(pool).join(REVISIONS).join(format!("{number}{LAST}")))
    }
}

fn version(bytes: &[u8]) -> Version {
    Version(Digest::of(&[bytes]).to_string())
}

/// Turns "not found" into none.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// JSON that people and Git can read.
fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data");
    bytes.push(b'\n');
    bytes
}

/// A file's content; none: it is not there, or something else.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SinkError> {
    let bytes = found(fs::read(path));
    let bytes = bytes.map_err(|e| SinkError::failed(format!("reading {}", path.display()), e))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn remove(path: &Path) -> Result<(), SinkError> {
    let gone = found(fs::remove_file(path));
    gone.map(drop).map_err(|e| SinkError::failed(format!("deleting {}", path.display()), e))
}

fn names(folder: &Path) -> Result<Vec<String>, SinkError> {
    let list = || -> io::Result<Vec<String>> {
        let Some(entries) = found(fs::read_dir(folder))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|e| SinkError::failed(format!("listing {}", folder.display()), e))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    let folder = path.parent().expect("files lie in folders");
    let name = path.file_name().expect("files have names").to_string_lossy();
    let temporary = folder.join(format!("{TEMPORARY}{name}"));
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        // The rename, too, has to survive a power failure before anything names the file.
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        SinkError::failed(format!("writing {}", path.display()), e)
    })
}
