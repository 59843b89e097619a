//! The tree on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rulecast_bundle::Digest;

use super::names::is_label;

/// The first line of every file but the digest, by which a file is known to be from an export.
pub(super) const MARK: &str = "# Made by kubectl-rulecast export, which overwrites it.";
/// The file by which the whole tree is known.
const ROOT_MARK: &str = ".rulecast-export";

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) written: usize,
    pub(super) removed: usize,
    pub(super) same: usize,
}

/// A tree that may be written.
pub(super) struct Tree {
    root: PathBuf,
    pub(super) counts: Counts,
}

impl Tree {
    /// Begins a tree where nothing is, or goes on with one.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("{}: cannot be made", root.display()))?;
        let mark = root.join(ROOT_MARK);
        if !is_file(&mark) {
            let others = names(root)?.into_iter().find(|name| name != ".git");
            if let Some(other) = others {
                bail!(
                    "{}: it is not empty and no earlier export (there is {other}, and no {ROOT_MARK}); nothing is written",
                    root.display()
                );
            }
            fs::write(&mark, format!("{MARK}\n")).with_context(|| mark.display().to_string())?;
        }
        Ok(Self { root: root.to_owned(), counts: Counts::default() })
    }

    /// The pools in the tree.
    pub(super) fn pools(&self) -> anyhow::Result<Vec<String>> {
        let names = names(&self.root)?;
        Ok(names
            .into_iter()
            .filter(|name| is_label(name) && is_file(&self.root.join(name).join("digest")))
            .collect())
    }

    /// Makes a pool's folder hold these files. Of what else is there the files of exports are removed.
    pub(super) fn write_pool(&mut self, pool: &str, files: &BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
        ensure!(is_label(pool), "RulePool {pool:?}: a DNS label is wanted");
        let folder = self.root.join(pool);
        let mut checked = BTreeSet::new();
        for (path, content) in files {
            let path = folder.join(path);
            self.folders(path.parent().unwrap_or(&folder), &mut checked)?;
            self.write(&path, content)?;
        }
        for path in candidates(&folder)? {
            let known = path.strip_prefix(&folder).is_ok_and(|inner| files.contains_key(inner));
            if !known && is_ours(&path)? {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
                self.counts.removed += 1;
                remove_empty(path.parent(), &self.root);
            }
        }
        Ok(())
    }

    /// Makes a folder and those above it, up to the root. A link would lead out of the tree.
    fn folders(&self, folder: &Path, checked: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
        if folder == self.root || !checked.insert(folder.to_owned()) {
            return Ok(());
        }
        self.folders(folder.parent().unwrap_or(&self.root), checked)?;
        match fs::create_dir(folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                ensure!(is_folder(folder), "{}: it is no folder; nothing is written there", folder.display());
                Ok(())
            }
            result => result.with_context(|| folder.display().to_string()),
        }
    }

    fn write(&mut self, path: &Path, content: &str) -> anyhow::Result<()> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
            Ok(_) => {
                ensure!(
                    is_ours(path)?,
                    "{}: it is not from an export; it is not overwritten",
                    path.display()
                );
                if fs::read_to_string(path).is_ok_and(|there| there == content) {
                    self.counts.same += 1;
                    return Ok(());
                }
            }
        }
        // Whole or not at all: half a file would not be known as ours the next time.
        let folder = path.parent().unwrap_or(&self.root);
        let readable = Permissions::from_mode(0o644);
        let mut file =
            tempfile::Builder::new().prefix(".rulecast-").permissions(readable).tempfile_in(folder)?;
        file.write_all(content.as_bytes()).with_context(|| path.display().to_string())?;
        file.persist(path)?;
        self.counts.written += 1;
        Ok(())
    }
}

/// The files of a pool's folder that may be from an export: those whose paths are as ours.
fn candidates(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !is_folder(folder) {
        return Ok(Vec::new());
    }
    let mut found: Vec<PathBuf> = ["digest", "pool.yaml"].map(|name| folder.join(name)).to_vec();
    found.retain(|path| is_file(path));
    let services = folder.join("services");
    for namespace in folders(&services)? {
        let inside = services.join(namespace);
        let paths = names(&inside)?.into_iter().map(|name| inside.join(name));
        found.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")));
    }
    Ok(found)
}

/// Whether a file is from an export: a regular one with our first line, or a digest.
fn is_ours(path: &Path) -> anyhow::Result<bool> {
    if !is_file(path) {
        return Ok(false);
    }
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let digest = path.file_name().is_some_and(|name| name == "digest");
    let line = text.lines().next().unwrap_or_default();
    Ok(if digest { line.parse::<Digest>().is_ok() && text.lines().count() == 1 } else { line == MARK })
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// What is in a folder, sorted. Names that are no text are nobody's of ours.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    };
    read().with_context(|| format!("{}: cannot be read", folder.display()))
}

/// The folders in a folder, links left out; none if it is not there.
fn folders(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !is_folder(folder) {
        return Ok(Vec::new());
    }
    let mut names = names(folder)?;
    names.retain(|name| is_label(name) && is_folder(&folder.join(name)));
    Ok(names)
}

/// Removes folders that are empty now, below the root.
fn remove_empty(mut folder: Option<&Path>, root: &Path) {
    while let Some(path) = folder.filter(|path| *path != root && path.starts_with(root)) {
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}
