//! A directory as a controller writes it: `DIR/BUNDLE/head.json` and `DIR/BUNDLE/chunks/NAME`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rulecast_bundle::{ChunkId, Head, MAX_CHUNK};
use tokio::sync::mpsc;

use super::{News, Source, SourceError};

/// The largest head file, in bytes: the inline delta and some words.
const MAX_HEAD: u64 = 1 << 20;
/// How often to look when notifications do not come, as on some network file systems.
const POLL: Duration = Duration::from_secs(5);

/// Watches a bundle's folder, or while it is not there the folder that it will be in.
pub struct Directory {
    parent: PathBuf,
    dir: PathBuf,
    watched: PathBuf,
    events: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    notify: mpsc::Sender<()>,
    /// The head that was told last, or that there is none.
    last: Option<Head>,
    gone: bool,
    /// The error that was told last.
    told: Option<String>,
}

impl Directory {
    /// Watches `dir/name`, which need not exist yet.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        // One pending event is enough: it says "look again".
        let (notify, events) = mpsc::channel(1);
        let mut this = Self {
            parent: dir.to_owned(),
            dir: dir.join(name),
            watched: PathBuf::new(),
            events,
            watcher: None,
            notify,
            last: None,
            gone: false,
            told: None,
        };
        this.watch();
        this
    }

    fn watch(&mut self) {
        let notify = self.notify.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // To read is to open: what this source does itself is no news.
            if event.is_ok_and(|event| is_reading(event.kind)) {
                return;
            }
            // Full: somebody is about to look anyway.
            let _full = notify.try_send(());
        });
        self.watched.clone_from(if self.dir.is_dir() { &self.dir } else { &self.parent });
        let watch =
            |mut w: RecommendedWatcher| w.watch(&self.watched, RecursiveMode::NonRecursive).ok().map(|()| w);
        self.watcher = watcher.ok().and_then(watch);
    }

    fn read_head(&self) -> Result<Option<Head>, SourceError> {
        let path = self.dir.join("head.json");
        let Some(bytes) = read(&path, MAX_HEAD)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| SourceError::Malformed { what: path.display().to_string(), why: e.to_string() })
    }
}

fn is_reading(kind: EventKind) -> bool {
    kind.is_access() && kind != EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// Reads a file of bounded size; none when it is not there.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    let mut bytes = Vec::new();
    let result = File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes));
    match result {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SourceError::Io { path: path.to_owned(), source }),
    }
}

impl Source for Directory {
    fn follow(&mut self, name: &str) {
        self.dir = self.parent.join(name);
        (self.last, self.gone, self.told) = (None, false, None);
        self.watch();
    }

    async fn next(&mut self) -> Result<News, SourceError> {
        loop {
            if self.watcher.is_none() || (self.watched != self.dir && self.dir.is_dir()) {
                self.watch();
            }
            match self.read_head() {
                Ok(head) => {
                    self.told = None;
                    // What is there now is remembered before it is handed out: a caller may drop this future only
                    // while it waits.
                    let gone = head.is_none();
                    if self.last != head || gone != self.gone {
                        let deleted = self.last.is_some();
                        self.last.clone_from(&head);
                        self.gone = gone;
                        return Ok(head.map_or(News::Gone { deleted }, News::Head));
                    }
                }
                // Told once; then it is waited for the file to change.
                Err(error) if self.told.as_ref() != Some(&error.to_string()) => {
                    self.told = Some(error.to_string());
                    self.last = None;
                    return Err(error);
                }
                Err(_) => {}
            }
            let _timed_out = tokio::time::timeout(POLL, self.events.recv()).await;
        }
    }

    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        let path = self.dir.join("chunks").join(id.to_string());
        let missing = || SourceError::Io { path: path.clone(), source: std::io::ErrorKind::NotFound.into() };
        read(&path, MAX_CHUNK as u64 + 1)?.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_own_reading_does_not_wake_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("default")).unwrap();
        let head = dir.path().join("default/head.json");
        std::fs::write(&head, "{").unwrap();
        let mut source = Directory::new(dir.path(), "default");
        let pause = || tokio::time::sleep(std::time::Duration::from_millis(200));
        for _ in 0..3 {
            source.read_head().unwrap_err();
            pause().await;
        }
        assert!(source.events.try_recv().is_err(), "nobody wrote anything");
        std::fs::write(&head, "{}").unwrap();
        pause().await;
        assert!(source.events.try_recv().is_ok(), "somebody did");
    }
}
