//! A directory of manifests as source.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::links::Links;
use super::tree::{Tree, is_hidden, is_manifest};
use super::worktree::WorkTree;
use super::{Event, Source};

/// Changes that come within this time of each other are read together,
const GATHER: Duration = Duration::from_millis(20);
/// but for no longer than this.
const LONGEST: Duration = Duration::from_secs(1);
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
    links: Links,
    root: PathBuf,
    watcher: RecommendedWatcher,
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
        let links = Links::new(std::path::absolute(&root).unwrap_or_else(|_| root.clone()));
        watcher.watch(links.target(), RecursiveMode::Recursive).map_err(unwatchable)?;
        for folder in links.on_the_way().iter().filter_map(|link| link.parent()) {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(unwatchable)?;
        }
        Ok(Self { links, root, watcher, changes })
    }

    /// Waits until something is due, and for what comes with it: a tool that writes many files is waited for until it pauses,
    /// Git until it is done.
    async fn gather(&mut self, due: &mut Due) -> bool {
        let mut last = Instant::now();
        let mut first = None;
        loop {
            let quiet = (last + GATHER).max(due.latest());
            let quiet = first.map_or(quiet, |first| quiet.min(first + LONGEST));
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => if due.note(change, &self.links) {
                        last = Instant::now();
                        first = first.or(Some(last));
                    },
                    // The watcher lives as long as this source does.
                    None => return false,
                },
                () = tokio::time::sleep_until(due.next().max(quiet)) => {
                    if WorkTree::of(self.links.target()) != WorkTree::Written {
                        return true;
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    /// Goes on in another directory when a link was switched.
    fn follow_links(&mut self, tree: &mut Tree, due: &mut Due) {
        let Some(before) = self.links.switched() else { return };
        let target = self.links.target();
        tracing::info!(path = %self.root.display(), target = %target.display(), "the manifests are in another directory now");
        // It may be gone, and its watch with it.
        let _unwatched = self.watcher.unwatch(&before);
        if let Err(error) = self.watcher.watch(target, RecursiveMode::Recursive) {
            tracing::warn!(%error, "changes of the manifests are not noticed at once, but only twice a minute");
        }
        tree.move_to(target.to_owned());
        due.everything = Instant::now();
    }
}

impl Source for DirectorySource {
    async fn run(mut self, events: mpsc::Sender<Event>) {
        let mut tree = Tree::new(self.root.clone(), self.links.target().to_owned());
        let mut due = Due { everything: Instant::now(), ..Due::default() };
        let mut synced = Some(Event::Synced);
        loop {
            let mut news = Vec::new();
            loop {
                if !self.gather(&mut due).await {
                    return;
                }
                self.follow_links(&mut tree, &mut due);
                let before = WorkTree::of(self.links.target());
                news.extend(tree.refresh(due.take()));
                // What was read while one version took the place of another is of neither.
                self.follow_links(&mut tree, &mut due);
                if before == WorkTree::Written || WorkTree::of(self.links.target()) != before {
                    due.everything = Instant::now();
                }
                if due.next() > Instant::now() {
                    break;
                }
            }
            news.extend(synced.take());
            let event = if news.len() > 1 { Some(Event::Together(news)) } else { news.pop() };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
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
    /// Whether it is of interest.
    fn note(&mut self, change: notify::Result<notify::Event>, links: &Links) -> bool {
        let now = Instant::now();
        let event = match change {
            Ok(event) if event.need_rescan() => {
                self.everything = now;
                return true;
            }
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "watching the manifests: looking at all of them");
                self.everything = now;
                return true;
            }
        };
        let when = match event.kind {
            // The writer is done, or a finished file took the place.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => now,
            EventKind::Access(_) => return false,
            _ => now + SETTLED,
        };
        let mut noted = false;
        for path in event.paths {
            let Ok(inner) = path.strip_prefix(links.target()) else {
                // Beside a link on the way, or the link.
                if links.lead_through(&path) {
                    self.everything = self.everything.min(now);
                    noted = true;
                }
                continue;
            };
            // Git has names of its own in `.git`, branches such as `mend-web.yaml` among them.
            let hidden =
                inner.parent().is_some_and(|folder| folder.iter().any(|name| is_hidden(name.as_ref())));
            if hidden {
                continue;
            }
            if is_manifest(&path) {
                self.files.insert(inner.to_owned(), when);
                noted = true;
            } else if !path.is_file() && (!is_hidden(&path) || path.ends_with("..data")) {
                // A folder came or went. `..data` is what a mounted ConfigMap switches.
                self.everything = self.everything.min(when);
                noted = true;
            }
        }
        noted
    }

    fn next(&self) -> Instant {
        self.files.values().copied().min().unwrap_or(self.everything).min(self.everything)
    }

    /// When all files that are known to have changed can be read.
    fn latest(&self) -> Instant {
        self.files.values().copied().max().unwrap_or_else(Instant::now)
    }

    /// The files that are due, by their paths in the directory; none: all. Where several files change, the news of more of
    /// them may still be on its way.
    fn take(&mut self) -> Option<BTreeSet<PathBuf>> {
        let now = Instant::now();
        if self.everything <= now || self.files.len() > 1 && self.latest() <= now {
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
