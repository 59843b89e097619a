//! The manifests of a directory: which files there are, and which objects each of them holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::Event;
use crate::objects::{Kind, Object, ObjectId, parse_manifests};

/// What is known of a directory's manifests. [`Tree::refresh`] says what changed.
///
/// Files are known by their paths in it: where it is may change.
pub(super) struct Tree {
    /// What it is called in messages.
    name: PathBuf,
    /// Where it is.
    root: PathBuf,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// In which files each object is. The last one counts, as with `kubectl apply -f`.
    holders: HashMap<ObjectId, BTreeSet<PathBuf>>,
    /// What was last said of each object.
    said: HashMap<ObjectId, Entry>,
}

/// Shared between what a file holds and what was said: there may be hundreds of thousands.
type Entry = Arc<Result<Object, String>>;

#[derive(Default)]
struct ManifestFile {
    print: Option<Fingerprint>,
    objects: BTreeMap<ObjectId, Entry>,
    problem: Option<String>,
}

#[derive(PartialEq, Eq)]
struct Fingerprint(u64, Option<SystemTime>);

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.modified().ok())
    }
}

/// Whether a path is that of a manifest. Names that begin with a dot are editors' and version control's; a kustomization
/// is no Kubernetes object.
pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    let kustomization = path.file_stem().is_some_and(|stem| stem == "kustomization");
    extension.is_some_and(|e| matches!(e, "yaml" | "yml" | "json")) && !is_hidden(path) && !kustomization
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

impl Tree {
    pub(super) fn new(name: PathBuf, root: PathBuf) -> Self {
        Self { name, root, files: BTreeMap::new(), holders: HashMap::new(), said: HashMap::new() }
    }

    /// The directory is another one now: every file has to be read, even if size and time are those of its namesake.
    pub(super) fn move_to(&mut self, root: PathBuf) {
        self.root = root;
        self.files.values_mut().for_each(|file| file.print = None);
    }

    fn named(&self, inner: &Path) -> ObjectId {
        ObjectId::new(Kind::File, self.name.join(inner).display().to_string())
    }

    /// Looks at these files, or at all when none are given, and says what changed.
    pub(super) fn refresh(&mut self, paths: Option<BTreeSet<PathBuf>>) -> Vec<Event> {
        let mut events = Vec::new();
        let paths = paths.unwrap_or_else(|| self.walk(&mut events));
        let mut touched = BTreeSet::new();
        for path in paths {
            self.look_at(path, &mut touched, &mut events);
        }
        for id in touched {
            self.say(id, &mut events);
        }
        events
    }

    /// All files that are there or were. A folder that cannot be read keeps its files: they are not looked at.
    fn walk(&mut self, events: &mut Vec<Event>) -> BTreeSet<PathBuf> {
        let mut there = BTreeSet::new();
        let mut unreadable = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let id = self.named(&folder);
            match list(&self.root.join(&folder)) {
                Ok((files, more)) => {
                    let inner = |path: PathBuf| path.strip_prefix(&self.root).map(Path::to_owned).ok();
                    there.extend(files.into_iter().filter_map(inner));
                    folders.extend(more.into_iter().filter_map(inner));
                    if self.said.remove(&id).is_some() {
                        events.push(Event::Gone(id));
                    }
                }
                // Between listing its parent and now it was removed.
                Err(e) if e.kind() == ErrorKind::NotFound && !folder.as_os_str().is_empty() => {}
                Err(e) => {
                    let problem = format!("the folder cannot be read, what was in it stays: {e}");
                    self.said.insert(id.clone(), Arc::new(Err(problem.clone())));
                    events.push(Event::Bad(id, problem));
                    unreadable.push(folder);
                }
            }
        }
        let gone = self.files.keys().filter(|file| !unreadable.iter().any(|folder| file.starts_with(folder)));
        there.extend(gone.cloned());
        there
    }

    fn look_at(&mut self, path: PathBuf, touched: &mut BTreeSet<ObjectId>, events: &mut Vec<Event>) {
        let print =
            fs::metadata(self.root.join(&path)).ok().filter(Metadata::is_file).map(|m| Fingerprint::of(&m));
        let known = self.files.get(&path);
        if known.is_some_and(|known| print.is_some() && known.print == print) {
            return;
        }
        let id = self.named(&path);
        let Some(print) = print else {
            if let Some(file) = self.files.remove(&path) {
                for object in file.objects.into_keys() {
                    self.let_go(&object, &path);
                    touched.insert(object);
                }
                if file.problem.is_some() {
                    events.push(Event::Gone(id));
                }
            }
            return;
        };
        let mut file = self.files.remove(&path).unwrap_or_default();
        let (mut objects, problem) =
            read(&self.root.join(&path), &self.name.join(&path), !file.objects.is_empty());
        for (object, entry) in std::mem::take(&mut file.objects) {
            if problem.is_some() {
                // Which objects the unreadable part holds is unknown, so none is taken for removed.
                objects.entry(object).or_insert(entry);
            } else if !objects.contains_key(&object) {
                self.let_go(&object, &path);
                touched.insert(object);
            }
        }
        for object in objects.keys() {
            let holders = self.holders.entry(object.clone()).or_default();
            if holders.insert(path.clone()) && holders.len() > 1 {
                let last = holders.last().map(|path| self.name.join(path).display().to_string());
                tracing::warn!(object = %object, last, "an object is in several files; the last one counts");
            }
            touched.insert(object.clone());
        }
        match &problem {
            Some(problem) => events.push(Event::Bad(id, problem.clone())),
            None if file.problem.is_some() => events.push(Event::Gone(id)),
            None => {}
        }
        self.files.insert(path, ManifestFile { print: Some(print), objects, problem });
    }

    fn let_go(&mut self, object: &ObjectId, path: &Path) {
        if let Some(holders) = self.holders.get_mut(object) {
            holders.remove(path);
        }
    }

    /// Says what an object is now, if that is news.
    fn say(&mut self, id: ObjectId, events: &mut Vec<Event>) {
        let holder = self.holders.get(&id).and_then(BTreeSet::last);
        let entry = holder.and_then(|path| self.files.get(path)).and_then(|file| file.objects.get(&id));
        match entry {
            None => {
                self.holders.remove(&id);
                if self.said.remove(&id).is_some() {
                    events.push(Event::Gone(id));
                }
            }
            Some(entry) if self.said.get(&id) == Some(entry) => {}
            Some(entry) => {
                events.push(match entry.as_ref() {
                    Ok(object) => Event::Set(object.clone()),
                    Err(problem) => Event::Bad(id.clone(), problem.clone()),
                });
                self.said.insert(id, Arc::clone(entry));
            }
        }
    }
}

/// A folder's manifests and its folders. Links to files are followed, as mounted ConfigMaps need it; those to folders are
/// not, as they may go round in circles.
pub(super) fn list(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !is_hidden(&path) {
                folders.push(path);
            }
        } else if is_manifest(&path) {
            files.push(path);
        }
    }
    Ok((files, folders))
}

fn read(path: &Path, name: &Path, had_objects: bool) -> (BTreeMap<ObjectId, Entry>, Option<String>) {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => return (BTreeMap::new(), Some(format!("it cannot be read: {e}"))),
    };
    if text.trim().is_empty() && had_objects {
        // So does a file look that is just being written. To remove its objects, remove it.
        return (BTreeMap::new(), Some("it is empty now; its objects stay until it is removed".to_owned()));
    }
    let mut objects = BTreeMap::new();
    let mut problems = Vec::new();
    for result in parse_manifests(&text, name) {
        match result {
            Ok(object) => drop(objects.insert(object.id.clone(), Arc::new(Ok(object)))),
            Err(error) => match error.id.clone() {
                Some(id) => drop(objects.insert(id, Arc::new(Err(error.to_string())))),
                None => problems.push(format!("document {}: {}", error.document, error.problem)),
            },
        }
    }
    (objects, (!problems.is_empty()).then(|| problems.join("; ")))
}
