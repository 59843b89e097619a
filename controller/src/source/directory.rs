//! A directory of manifests as source.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::tree::{Tree, is_hidden, is_manifest};
use super::{Event, Source};

/// After a change further ones are gathered for this long.
const GATHER: Duration = Duration::from_millis(20);
/// A file whose writer does not close it is read this long after the last write.
const SETTLED: Duration = Duration::from_millis(300);
/// What no notification told of is found this soon.
const SWEEP: Duration = Duration::from_secs(30);

/// Why a directory cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not one.
    #[error("{}: not a directory that can be read: {error}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Changes in it cannot be watched.
    #[error("{}: cannot be watched for changes: {error}", path.display())]
    Unwatchable {
        /// The path.
        path: PathBuf,
        /// Why.
        error: notify::Error,
    },
}

pub(super) fn check(root: &Path) -> Result<(), DirectoryError> {
    let unreadable = |error| DirectoryError::Unreadable { path: root.to_owned(), error };
    std::fs::read_dir(root).map(drop).map_err(unreadable)
}

/// Follows the `*.yaml`, `*.yml` and `*.json` files under a directory.
pub struct DirectorySource {
    root: PathBuf,
    /// Ends the notifications when it is dropped.
    _watcher: RecommendedWatcher,
    changes: mpsc::UnboundedReceiver<notify::Result<notify::Event>>,
}

impl DirectorySource {
    /// Watches from now on, so that nothing between the first reading and the first change is missed.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let root = root.into();
        check(&root)?;
        let unwatchable = |error| DirectoryError::Unwatchable { path: root.clone(), error };
        let (sender, changes) = mpsc::unbounded_channel();
        let report = move |event| drop(sender.send(event));
        let mut watcher = notify::recommended_watcher(report).map_err(unwatchable)?;
        watcher.watch(&root, RecursiveMode::Recursive).map_err(unwatchable)?;
        Ok(Self { root, _watcher: watcher, changes })
    }
}

impl Source for DirectorySource {
    async fn run(mut self, events: mpsc::Sender<Event>) {
        let mut tree = Tree::new(self.root.clone());
        let mut due = Due::default();
        let mut news = tree.refresh(None);
        news.push(Event::Synced);
        loop {
            for event in news {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            let gathered = Instant::now() + GATHER;
            loop {
                tokio::select! {
                    change = self.changes.recv() => match change {
                        Some(change) => due.note(change),
                        // The watcher lives as long as this source does.
                        None => return,
                    },
                    () = tokio::time::sleep_until(due.next().max(gathered)) => break,
                }
            }
            news = tree.refresh(due.take());
        }
    }
}

/// Which files have to be read, and when.
struct Due {
    files: HashMap<PathBuf, Instant>,
    everything: Instant,
}

impl Default for Due {
    fn default() -> Self {
        Self { files: HashMap::new(), everything: Instant::now() + SWEEP }
    }
}

impl Due {
    fn note(&mut self, change: notify::Result<notify::Event>) {
        let now = Instant::now();
        let event = match change {
            Ok(event) if event.need_rescan() => {
                self.everything = now;
                return;
            }
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "watching the manifests: looking at all of them");
                self.everything = now;
                return;
            }
        };
        let when = match event.kind {
            // The writer is done, or a finished file took the place.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => now,
            EventKind::Access(_) => return,
            _ => now + SETTLED,
        };
        for path in event.paths {
            if is_manifest(&path) {
                self.files.insert(path, when);
            } else if !path.is_file() && (!is_hidden(&path) || path.ends_with("..data")) {
                // A folder came or went. `..data` is what a mounted ConfigMap switches.
                self.everything = self.everything.min(when);
            }
        }
    }

    fn next(&self) -> Instant {
        self.files.values().copied().min().unwrap_or(self.everything).min(self.everything)
    }

    /// The files that are due; none: all.
    fn take(&mut self) -> Option<BTreeSet<PathBuf>> {
        let now = Instant::now();
        if self.everything <= now {
            *self = Self::default();
            return None;
        }
        let mut ready = BTreeSet::new();
        self.files.retain(|path, when| {
            let wait = *when > now;
            if !wait {
                ready.insert(path.clone());
            }
            wait
        });
        Some(ready)
    }
}
