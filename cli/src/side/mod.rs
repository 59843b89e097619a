//! What a command compares or shows: manifests in a directory, or what a cluster has.

mod cluster;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use rulecast_bundle::{Bundle, Mode, Shape};
use rulecast_controller::objects::Kind;
use rulecast_controller::source::{Extent, LoadOptions, load_directories};
use rulecast_controller::world::World;

use crate::cluster::ClusterArgs;

/// Where shapes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    /// A directory of manifests, compiled here.
    Directory(PathBuf),
    /// A cluster.
    Cluster(ClusterSide),
}

/// Which of a cluster's shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterSide {
    /// What nodes run now.
    Live,
    /// What the cluster's objects ask for, and waits.
    Pending,
    /// The RuleRevision with this number.
    Revision(u64),
}

impl FromStr for Side {
    type Err = String;

    /// A directory that exists is meant, whatever its name.
    fn from_str(text: &str) -> Result<Self, String> {
        if Path::new(text).is_dir() {
            return Ok(Self::Directory(text.into()));
        }
        match text {
            "cluster" | "live" => Ok(Self::Cluster(ClusterSide::Live)),
            "pending" => Ok(Self::Cluster(ClusterSide::Pending)),
            number => match number.parse() {
                Ok(number) if number > 0 => Ok(Self::Cluster(ClusterSide::Revision(number))),
                _ => Err("no such directory; beside directories there are live, pending and the numbers of RuleRevisions"
                    .to_owned()),
            },
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Cluster(ClusterSide::Live) => f.write_str("live"),
            Self::Cluster(ClusterSide::Pending) => f.write_str("pending"),
            Self::Cluster(ClusterSide::Revision(number)) => number.fmt(f),
        }
    }
}

/// One pool's part of a side.
pub(crate) struct Compiled {
    pub(crate) shape: Shape,
    /// With endpoints if they were asked for, and where there are any: a RuleRevision has none.
    pub(crate) bundle: Bundle,
}

/// What a side has.
#[derive(Default)]
pub(crate) struct Loaded {
    /// By name.
    pub(crate) pools: BTreeMap<String, Compiled>,
    /// What could not be used, with object, field and reason.
    pub(crate) problems: Vec<String>,
}

/// What is wanted of a side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Only this pool.
    pub(crate) pool: Option<String>,
    /// Endpoints and nodes, too.
    pub(crate) membership: bool,
    /// Another mode than the RulePools'. A cluster's shapes have theirs.
    pub(crate) mode: Option<Mode>,
    /// Where the cluster is, if one is asked.
    pub(crate) cluster: ClusterArgs,
}

/// Reads sides, directories together: what they have in common is parsed once.
pub(crate) fn load(sides: &[&Side], wanted: &Wanted) -> anyhow::Result<Vec<Loaded>> {
    let directories: Vec<&Path> = sides
        .iter()
        .filter_map(|side| if let Side::Directory(path) = side { Some(path.as_path()) } else { None })
        .collect();
    let extent = if wanted.membership { Extent::All } else { Extent::Shape };
    let options = LoadOptions { extent, pools: wanted.pool.iter().cloned().collect() };
    let mut worlds = load_directories(&directories, &options)?.into_iter();
    let mut all = Vec::new();
    for side in sides {
        all.push(match side {
            Side::Directory(path) => {
                let mut world = worlds.next().context("a directory is missing")?;
                if let Some(mode) = wanted.mode {
                    world.set_mode(mode);
                }
                from_world(&world, path)
            }
            Side::Cluster(side) => {
                ensure!(
                    wanted.mode.is_none(),
                    "--mode is for directories: a shape of the cluster has its mode; export the manifests first"
                );
                cluster::load(*side, wanted)?
            }
        });
    }
    Ok(all)
}

/// The pools of one side. It is an error if something could not be used and `strict` is set, or if a pool was named that
/// is not there.
pub(crate) fn load_one(side: &Side, wanted: &Wanted, strict: bool) -> anyhow::Result<Loaded> {
    let mut all = load(&[side], wanted)?;
    let loaded = all.pop().context("one side was asked for")?;
    report(&loaded.problems, strict)?;
    if let Some(pool) = &wanted.pool {
        ensure!(loaded.pools.contains_key(pool), "{side}: there is no RulePool {pool}");
    }
    ensure!(!loaded.pools.is_empty(), "{side}: there is no RulePool that can be used");
    Ok(loaded)
}

/// Says what could not be used; with `strict` that is an error.
pub(crate) fn report(problems: &[String], strict: bool) -> anyhow::Result<()> {
    for problem in problems {
        eprintln!("{problem}");
    }
    ensure!(!strict || problems.is_empty(), "--strict: not everything could be used");
    Ok(())
}

fn from_world(world: &World, root: &Path) -> Loaded {
    let mut problems = Vec::new();
    for (id, problem) in world.quarantined() {
        // What is wrong with an object begins with its file and its name.
        problems.push(if id.kind == Kind::File {
            format!("{}: {problem}", id.name)
        } else {
            problem.clone()
        });
    }
    for (id, warnings) in world.warnings() {
        problems.extend(warnings.iter().map(|warning| format!("{}: {id}: {warning}", root.display())));
    }
    let mut pools = BTreeMap::new();
    for (name, pool) in world.compiler().pools() {
        let more = pool.problems().iter();
        problems.extend(
            more.map(|(service, why)| {
                format!("{}: RulePool {name}: Service {service}: {why}", root.display())
            }),
        );
        let bundle = pool.bundle().clone();
        pools.insert(name.to_owned(), Compiled { shape: Shape::of(pool.options().mode, &bundle), bundle });
    }
    Loaded { pools, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_words() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("42");
        std::fs::create_dir(&named).unwrap();
        let text = named.to_str().unwrap();
        assert_eq!(text.parse(), Ok(Side::Directory(named.clone())));
        assert_eq!("42".parse(), Ok(Side::Cluster(ClusterSide::Revision(42))));
        assert_eq!("live".parse::<Side>(), "cluster".parse());
        assert_eq!("pending".parse(), Ok(Side::Cluster(ClusterSide::Pending)));
        for wrong in ["0", "-1", "/nowhere", ""] {
            assert!(wrong.parse::<Side>().is_err(), "{wrong}");
        }
    }
}
