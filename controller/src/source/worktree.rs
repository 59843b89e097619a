//! Work trees of Git: while Git changes one, what is in it is neither the one version nor the other.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A lock older than this was left behind by a Git that was killed.
const ABANDONED: Duration = Duration::from_mins(5);

/// What a directory's work tree is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkTree {
    /// Git is writing it. It holds the index's lock from before the first file to after the last one, whatever the command
    /// (`checkout`, `merge`, `pull`, `reset`).
    Written,
    /// It is at rest, with this index, which is another file after every command that wrote; none: there is no Git.
    AtRest(Option<(u64, i64, i64)>),
}

impl WorkTree {
    /// Looks at the work tree that this directory lies in, if it lies in one.
    pub(super) fn of(directory: &Path) -> Self {
        let Some(git) = git_directory(directory) else { return Self::AtRest(None) };
        // First the index: a command that ends in between has changed it by the next look.
        let index = fs::metadata(git.join("index")).ok();
        let since = fs::metadata(git.join("index.lock")).and_then(|lock| lock.modified());
        match since.map(|since| SystemTime::now().duration_since(since).unwrap_or_default()) {
            Ok(age) if age < ABANDONED => Self::Written,
            _ => Self::AtRest(index.map(|index| (index.ino(), index.mtime(), index.mtime_nsec()))),
        }
    }
}

/// Where Git keeps the index of a work tree. In a linked one (`git worktree add`) `.git` is a file that names it.
fn git_directory(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let root = directory.ancestors().find(|above| above.join(".git").exists())?;
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    Some(root.join(text.strip_prefix("gitdir:")?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_found_in_both_kinds_of_work_trees() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("main/.git/worktrees/linked")).unwrap();
        for folder in ["main/manifests/deep", "linked/manifests", "neither"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        let named = format!("gitdir: {}\n", path("main/.git/worktrees/linked").display());
        fs::write(path("linked/.git"), named).unwrap();
        let written = || {
            ["main/manifests/deep", "main", "linked/manifests", "neither"]
                .map(|folder| WorkTree::of(&path(folder)) == WorkTree::Written)
        };
        assert_eq!(written(), [false; 4]);
        fs::write(path("main/.git/index.lock"), "").unwrap();
        assert_eq!(written(), [true, true, false, false]);
        fs::write(path("main/.git/worktrees/linked/index.lock"), "").unwrap();
        assert_eq!(written(), [true, true, true, false]);
        let lock = fs::File::options().write(true).open(path("main/.git/index.lock")).unwrap();
        lock.set_modified(SystemTime::now() - ABANDONED).unwrap();
        assert_eq!(written(), [false, false, true, false]);

        fs::write(path("main/.git/index"), "").unwrap();
        let before = WorkTree::of(&path("main"));
        assert_eq!(WorkTree::of(&path("main")), before);
        fs::write(path("main/.git/new"), "").unwrap();
        fs::rename(path("main/.git/new"), path("main/.git/index")).unwrap();
        assert_ne!(WorkTree::of(&path("main")), before);
    }
}
