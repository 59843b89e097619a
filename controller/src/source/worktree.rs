//! Work trees of Git: while Git changes one, what is in it is neither the one version nor the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A lock older than this was left behind by a Git that was killed.
const ABANDONED: Duration = Duration::from_mins(5);

/// Whether Git is writing the work tree that this directory lies in, if it lies in one. Git holds the index's lock from before
/// the first file to after the last one, whatever the command (`checkout`, `merge`, `pull`, `reset`).
pub(super) fn is_being_written(directory: &Path) -> bool {
    let Some(lock) = git_directory(directory).map(|git| git.join("index.lock")) else { return false };
    let Ok(since) = fs::metadata(lock).and_then(|metadata| metadata.modified()) else { return false };
    SystemTime::now().duration_since(since).is_ok_and(|age| age < ABANDONED)
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
            ["main/manifests/deep", "main", "linked/manifests", "neither"].map(|f| is_being_written(&path(f)))
        };
        assert_eq!(written(), [false; 4]);
        fs::write(path("main/.git/index.lock"), "").unwrap();
        assert_eq!(written(), [true, true, false, false]);
        fs::write(path("main/.git/worktrees/linked/index.lock"), "").unwrap();
        assert_eq!(written(), [true, true, true, false]);
        let lock = fs::File::options().write(true).open(path("main/.git/index.lock")).unwrap();
        lock.set_modified(SystemTime::now() - ABANDONED).unwrap();
        assert_eq!(written(), [false, false, true, false]);
    }
}
