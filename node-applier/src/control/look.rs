//! What there is to see of an applier, running or not.

use std::io;
use std::path::Path;

use rulecast_bundle::{Bundle, Head, Replica};

use crate::hold::{Effective, Hold, HoldError, Mask, Wish};
use crate::store::{Store, StoreError};
use crate::view::View;

/// What is in force, and what is kept instead of what is published.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The bundle that the version is of, and its head.
    pub version: Option<(&'a str, &'a Head)>,
    /// What is published.
    pub published: &'a Bundle,
    /// What is kept instead.
    pub hold: Option<&'a Hold>,
    /// Why a hold that is on disk cannot be used.
    pub hold_damage: Option<&'a str>,
    /// The sequence of the last change of the shape.
    pub previous: Option<u64>,
    /// What this node makes of it.
    pub view: &'a View,
}

impl Look<'_> {
    /// The mask over what is published, if any.
    #[must_use]
    pub fn mask(&self) -> Option<&Mask> {
        self.hold.map(|hold| &hold.mask)
    }
}

/// What the disk of an applier has that does not run.
pub struct OnDisk {
    node: String,
    pool: String,
    store: Store,
    replica: Replica,
    hold: Result<Option<Hold>, StoreError>,
    view: View,
}

impl OnDisk {
    /// Reads a pool's folder in `dir`; none: that of the only pool there is one of.
    pub fn read(node: &str, dir: &Path, pool: Option<&str>) -> anyhow::Result<Self> {
        let pool = match pool {
            Some(pool) => pool.to_owned(),
            None => only_pool(dir)?,
        };
        let folder = dir.join(&pool);
        anyhow::ensure!(
            has_bundle(&folder)?,
            "{}: no applier has kept a bundle there; see --state-dir and --pool",
            folder.display()
        );
        let mut store = Store::open(dir, &pool)?;
        let replica = store.load(&pool)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let mut hold = store.load_hold();
        let published = replica.bundle();
        if let Ok(Some(hold)) = &mut hold {
            hold.mask = std::mem::take(&mut hold.mask).over(published);
        }
        let view = match &hold {
            Ok(Some(Hold { mask, .. })) => View::new(node, &Effective { published, mask }),
            _ => View::new(node, published),
        };
        Ok(Self { node: node.to_owned(), pool, store, replica, hold, view })
    }

    /// Shows it.
    pub fn with<T>(&self, show: impl FnOnce(Look<'_>) -> T) -> T {
        let damage = self.hold.as_ref().err().map(ToString::to_string);
        let previous = self.store.load_previous().ok().flatten().map(|previous| previous.sequence);
        show(Look {
            node: &self.node,
            pool: &self.pool,
            version: self.replica.name().zip(self.replica.head()),
            published: self.replica.bundle(),
            hold: self.hold.as_ref().ok().and_then(Option::as_ref),
            hold_damage: damage.as_deref(),
            previous,
            view: &self.view,
        })
    }

    /// What was asked of the node, if that can be read.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref().ok().and_then(Option::as_ref)
    }

    /// Has the next start keep a shape. Returns whether it would have anyway.
    pub fn keep(&mut self, wish: Wish, text: &str) -> anyhow::Result<bool> {
        if self.hold().is_some_and(|hold| hold.is_already(wish)) {
            return Ok(true);
        }
        let head = self.replica.head().ok_or(HoldError::NothingInForce)?;
        let hold = match wish {
            Wish::Hold => Hold::new(wish, text, head.sequence, Mask::default()),
            Wish::UsePrevious => {
                let previous = self.store.load_previous()?;
                Hold::going_back(previous.as_ref(), head, self.replica.bundle(), text)?
            }
        };
        self.store.keep_hold(Some(&hold))?;
        self.hold = Ok(Some(hold));
        Ok(false)
    }

    /// Has the next start follow the pool. Returns whether it would have anyway.
    pub fn resume(&mut self) -> anyhow::Result<bool> {
        if matches!(self.hold, Ok(None)) {
            return Ok(true);
        }
        self.store.keep_hold(None)?;
        self.hold = Ok(None);
        Ok(false)
    }
}

fn has_bundle(folder: &Path) -> anyhow::Result<bool> {
    match folder.join("base").metadata() {
        Ok(found) => Ok(found.is_file()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(anyhow::Error::new(e).context(folder.display().to_string())),
    }
}

fn only_pool(dir: &Path) -> anyhow::Result<String> {
    let entries = match dir.read_dir() {
        Ok(entries) => entries.filter_map(Result::ok).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(anyhow::Error::new(e).context(dir.display().to_string())),
    };
    let mut pools = Vec::new();
    for entry in entries {
        if has_bundle(&entry.path())? {
            pools.extend(entry.file_name().into_string());
        }
    }
    pools.sort();
    match pools.as_slice() {
        [pool] => Ok(pool.clone()),
        [] => anyhow::bail!("{}: no applier has kept a bundle there; see --state-dir", dir.display()),
        several => {
            anyhow::bail!("{} has several pools: give --pool, one of {}", dir.display(), several.join(", "))
        }
    }
}
