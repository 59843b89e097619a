//! A path that leads through symbolic links, as `git-sync` and `ln -sfn` switch them from one version to the next.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory, and where it leads.
pub(super) struct Links {
    path: PathBuf,
    target: Option<PathBuf>,
}

impl Links {
    pub(super) fn new(path: PathBuf) -> Self {
        let target = path.canonicalize().ok();
        Self { path, target }
    }

    /// Where it led when it was last looked at. A directory that is gone is still named, so that its absence is noticed.
    pub(super) fn target(&self) -> &Path {
        self.target.as_deref().unwrap_or(&self.path)
    }

    /// Whether it leads elsewhere than before, and where it led before. A link that leads nowhere is one that is being switched.
    pub(super) fn switched(&mut self) -> Option<PathBuf> {
        let now = self.path.canonicalize().ok()?;
        if self.target.as_ref() == Some(&now) {
            return None;
        }
        let before = self.target().to_owned();
        self.target = Some(now);
        Some(before)
    }

    /// Whether this is a part of the way.
    pub(super) fn lead_through(&self, path: &Path) -> bool {
        self.path.starts_with(path)
    }

    /// The links on the way, of which each may be switched.
    pub(super) fn on_the_way(&self) -> Vec<PathBuf> {
        let is_link = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        self.path.ancestors().filter(is_link).map(Path::to_owned).collect()
    }
}
