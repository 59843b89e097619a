//! Directories of manifests, read once.
//!
//! Whoever compares two directories reads much the same twice. So what is read is parsed by its text: documents and list
//! items that are equal, in whatever files, are parsed once, on all processors.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::directory::check;
use super::tree::list;
use super::{DirectoryError, Event};
use crate::objects::{
    Extent, Form, Kind, ManifestError, Object, ObjectId, Place, Problem, parse_part, split,
};
use crate::world::World;

/// What is read of directories.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The kinds of objects.
    pub extent: Extent,
    /// The only pools that are compiled; empty: all.
    pub pools: Vec<String>,
}

/// Reads a directory of manifests once and compiles it. What could not be used is in [`World::quarantined`].
pub fn load_directory(root: &Path) -> Result<World, DirectoryError> {
    let mut worlds = load_directories(&[root], &LoadOptions::default())?;
    Ok(worlds.pop().expect("one directory, one world"))
}

/// Reads directories of manifests once and compiles each by itself, as [`load_directory`] does; in their order.
pub fn load_directories(roots: &[&Path], options: &LoadOptions) -> Result<Vec<World>, DirectoryError> {
    roots.iter().try_for_each(|root| check(root))?;
    let listed: Vec<Listed> = roots.iter().map(|root| files(root)).collect();
    let paths: Vec<&PathBuf> = listed.iter().flat_map(|listed| &listed.files).collect();
    let texts = on_all_processors(&paths, |path| fs::read_to_string(path));
    let mut texts = texts.iter();
    let mut parts = Parts::default();
    let mut sides = Vec::new();
    for listed in &listed {
        let mut side = Side { files: Vec::new(), problems: listed.problems.clone() };
        for (path, text) in listed.files.iter().zip(texts.by_ref()) {
            match text {
                Ok(text) => side.files.push(parts.add(path, text)),
                Err(e) => side.problems.push((path.clone(), format!("it cannot be read: {e}"))),
            }
        }
        sides.push(side);
    }
    let parsed = on_all_processors(&parts.list, |(form, text)| parse_part(text, *form, options.extent));
    Ok(on_all_processors(&sides, |side| world(side, &parsed, &options.pools)))
}

/// What there is under a directory.
struct Listed {
    /// Sorted.
    files: Vec<PathBuf>,
    /// Folders that cannot be read, and why.
    problems: Vec<(PathBuf, String)>,
}

fn files(root: &Path) -> Listed {
    let mut listed = Listed { files: Vec::new(), problems: Vec::new() };
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        match list(&folder) {
            Ok((files, more)) => {
                listed.files.extend(files);
                folders.extend(more);
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => listed.problems.push((folder, format!("the folder cannot be read: {e}"))),
        }
    }
    listed.files.sort_unstable();
    listed
}

/// All parts of files, each text once.
#[derive(Default)]
struct Parts<'a> {
    list: Vec<(Form, &'a str)>,
    places: HashMap<(Form, &'a str), usize>,
}

/// A file, with its parts: where they are in the file, and in [`Parts`].
struct FileParts<'a> {
    path: &'a Path,
    parts: Vec<(Place, usize)>,
}

struct Side<'a> {
    files: Vec<FileParts<'a>>,
    problems: Vec<(PathBuf, String)>,
}

impl<'a> Parts<'a> {
    fn add(&mut self, path: &'a Path, text: &'a str) -> FileParts<'a> {
        let mut place = |form, part| {
            *self.places.entry((form, part)).or_insert_with(|| {
                self.list.push((form, part));
                self.list.len() - 1
            })
        };
        let parts = split(text, Form::of(path)).into_iter();
        FileParts { path, parts: parts.map(|(at, form, part)| (at, place(form, part))).collect() }
    }
}

/// Compiles what a directory holds. Of objects that are there twice the last one counts, as with `kubectl apply -f`.
fn world(side: &Side<'_>, parsed: &[Vec<Result<Object, Problem>>], pools: &[String]) -> World {
    let mut world = World::default().with_default_pool().with_pools(pools.iter().cloned());
    let mut objects: BTreeMap<&ObjectId, (&Path, Result<&Object, String>)> = BTreeMap::new();
    let mut bad_files: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for (path, problem) in &side.problems {
        bad_files.entry(path).or_default().push(problem.clone());
    }
    for FileParts { path, parts } in &side.files {
        let all = parts.iter().flat_map(|(place, at)| parsed[*at].iter().map(move |r| (*place, r)));
        for (place, result) in all {
            let named = |problem: &Problem| ManifestError::new(path, place, problem.clone());
            let (id, content) = match result {
                Ok(object) => (&object.id, Ok(object)),
                Err(problem @ (Some(id), _)) => (id, Err(named(problem).to_string())),
                Err(problem @ (None, _)) => {
                    let ManifestError { document, problem, .. } = named(problem);
                    bad_files.entry(path).or_default().push(format!("document {document}: {problem}"));
                    continue;
                }
            };
            if let Some((before, _)) =
                objects.insert(id, (path, content)).filter(|(before, _)| before != path)
            {
                let (before, last) = (before.display().to_string(), path.display().to_string());
                tracing::warn!(object = %id, before, last, "an object is in several files; the last one counts");
            }
        }
    }
    for (path, problems) in bad_files {
        let id = ObjectId::new(Kind::File, path.display().to_string());
        world.apply(Event::Bad(id, problems.join("; ")));
    }
    for (id, (_, content)) in objects {
        world.apply(match content {
            Ok(object) => Event::Set(object.clone()),
            Err(problem) => Event::Bad(id.clone(), problem),
        });
    }
    world.apply(Event::Synced);
    world.compile();
    world
}

/// Applies `work` to each item; the results are in the items' order.
fn on_all_processors<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
