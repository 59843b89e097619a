//! The folders of several pools, of which a node may have been in one after the other.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::{BASE, LOG};

/// The pool whose version was kept last, if that is another one than `pool`; none also where it cannot be told.
pub(super) fn newer(dir: &Path, pool: &str) -> Option<String> {
    let own = kept(&dir.join(pool))?;
    let others = fs::read_dir(dir).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((kept(&entry.path())?, name))
    });
    others.max().filter(|(at, name)| *at > own && name != pool).map(|(_, name)| name)
}

/// When a version was kept in a folder last.
fn kept(folder: &Path) -> Option<SystemTime> {
    let times = [BASE, LOG].map(|file| fs::metadata(folder.join(file)).and_then(|meta| meta.modified()).ok());
    times.into_iter().flatten().max()
}
