//! The last good bundle on disk, under damage.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use rulecast_bundle::{
    Bundle, Change, Delta, FORMAT, GroupId, GroupKind, Head, Key, Member, Mode, Proto, Replica, Scope, Value,
    Way,
};
use rulecast_node::store::{Disk, Folder, Store};

fn member(n: u16) -> Change {
    let group =
        GroupId { addr: IpAddr::from([10, 96, 0, 1]), port: 80, proto: Proto::Tcp, kind: GroupKind::Cluster };
    let addr = IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let key = Key::Member { group, scope: Scope::All, port: 80, addr };
    Change { key, value: Some(Value::Member(Member::default())) }
}

/// Versions 1 to `count`, each with one member more, kept one after the other.
fn history(dir: &Path, count: u16) -> Result<Vec<rulecast_bundle::Digest>, rulecast_node::store::StoreError> {
    let mut store = Store::open(dir, "p").unwrap();
    let mut replica = Replica::new("p");
    let mut roots = vec![Bundle::default().root()];
    for n in 1..=count {
        let mut target = Bundle::default();
        let _ = target.apply(&(1..=n).map(member).collect::<Vec<_>>()).unwrap();
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: Mode::Nftables,
            epoch: 0,
            sequence: n.into(),
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest("p", target.root()).to_string();
        let delta = Delta { from: u64::from(n) - 1, to: n.into(), previous: None, changes: vec![member(n)] };
        let step = replica.advance(head, Way::Deltas(vec![delta])).unwrap();
        store.keep(&replica, step.changes.as_deref())?;
        roots.push(target.root());
    }
    Ok(roots)
}

fn load(dir: &Path) -> Option<Replica> {
    Store::open(dir, "p").unwrap().load("p").ok().flatten()
}

#[test]
fn what_was_kept_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path()).is_none());
    let roots = history(dir.path(), 9).unwrap();
    let replica = load(dir.path()).unwrap();
    assert_eq!((replica.head().unwrap().sequence, replica.bundle().root()), (9, roots[9]));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.path().join("p")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    fs::rename(dir.path().join("p"), dir.path().join("q")).unwrap();
    assert!(Store::open(dir.path(), "q").unwrap().load("q").is_err(), "another pool's bundle");
}

#[test]
fn which_of_the_pools_bundles_it_is_comes_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let roots = history(dir.path(), 2).unwrap();
    let file = |name: &str| fs::read(dir.path().join("p").join(name)).unwrap();
    let says_next = |bytes: &[u8]| bytes.windows(6).any(|at| at == b"\"next\"");
    assert!(!says_next(&file("base")) && !says_next(&file("log")), "as before there was a second bundle");
    let mut store = Store::open(dir.path(), "p").unwrap();
    let mut replica = store.load("p").unwrap().unwrap();
    for (name, sequence) in [("p.next", 3), ("p.next", 4), ("p", 5)] {
        replica.follow(name);
        let mut head = Head { sequence, ..replica.head().unwrap().clone() };
        head.digest = head.expected_digest(name, roots[2]).to_string();
        let step = replica.adopt(&head).unwrap().expect("the same content");
        // In the log, then as a base.
        store.keep(&replica, step.changes.as_deref().filter(|_| sequence != 4)).unwrap();
        assert_eq!(says_next(&file(if sequence == 4 { "base" } else { "log" })), name == "p.next");
        let restored = load(dir.path()).unwrap();
        assert_eq!((restored.name(), restored.head().unwrap().sequence), (Some(name), sequence));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_leads_to_an_older_whole_version_or_to_none(
        file in prop_oneof![Just("base"), Just("log")],
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        truncate in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let roots = history(dir.path(), 6).unwrap();
        let path = dir.path().join("p").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let position = at.index(bytes.len());
        if truncate {
            bytes.truncate(position);
        } else {
            bytes[position] ^= 1 << bit;
        }
        fs::write(&path, bytes).unwrap();
        if let Some(replica) = load(dir.path()) {
            let sequence = usize::try_from(replica.head().unwrap().sequence).unwrap();
            prop_assert_eq!(replica.bundle().root(), roots[sequence]);
        } else {
            prop_assert_eq!(file, "base");
        }
        // Whatever was found, the next versions are kept and come back.
        let roots = history(dir.path(), 3).unwrap();
        prop_assert_eq!(load(dir.path()).unwrap().bundle().root(), roots[3]);
    }
}

/// A folder that refuses one operation.
struct Stubborn(Folder, &'static str);

impl Stubborn {
    fn refuses(&self, what: &str) -> io::Result<()> {
        if self.1 == what { Err(io::Error::other("refused by the test")) } else { Ok(()) }
    }
}

impl Disk for Stubborn {
    fn path(&self, file: &str) -> PathBuf {
        self.0.path(file)
    }
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(file)
    }
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.append(file, bytes)
    }
    fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.refuses("replace").and_then(|()| self.0.replace(file, bytes))
    }
    fn truncate(&mut self, file: &str, size: u64) -> io::Result<()> {
        self.refuses("truncate").and_then(|()| self.0.truncate(file, size))
    }
}

#[test]
fn what_was_kept_is_there_whatever_the_disk_refuses_later() {
    for refuses in ["replace", "truncate"] {
        let dir = tempfile::tempdir().unwrap();
        let roots = history(dir.path(), 6).unwrap();
        let open = || Store::on(Stubborn(Folder::open(&dir.path().join("p")).unwrap(), refuses));
        let replica = open().load("p").unwrap().expect(refuses);
        open().keep(&replica, None).expect_err(refuses);
        let replica = open().load("p").unwrap().expect(refuses);
        assert_eq!((replica.head().unwrap().sequence, replica.bundle().root()), (6, roots[6]), "{refuses}");
    }
}

#[test]
fn a_log_from_before_its_base_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), 2).unwrap();
    let log = fs::read(dir.path().join("p/log")).unwrap();
    // Version 3 is as version 1 was, so the log's change fits it. It is kept whole, and the log was not emptied.
    let mut replica = load(dir.path()).unwrap();
    let mut head = Head { sequence: 3, ..replica.head().unwrap().clone() };
    let mut target = Bundle::default();
    let _ = target.apply(&[member(1)]).unwrap();
    head.digest = head.expected_digest("p", target.root()).to_string();
    let _step = replica.advance(head, Way::Anew(Box::new(target), Vec::new())).unwrap();
    Store::open(dir.path(), "p").unwrap().keep(&replica, None).unwrap();
    fs::write(dir.path().join("p/log"), log).unwrap();
    assert_eq!(load(dir.path()).unwrap().head().unwrap().sequence, 3);
}

#[test]
fn a_full_disk_loses_nothing_that_was_kept() {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root, to mount a small disk");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        history(dir.path(), 5).unwrap();
        let filler = dir.path().join("filler");
        fs::write(&filler, vec![0u8; 1 << 20]).unwrap_err();
        let full = history(dir.path(), 2).unwrap_err();
        assert!(full.to_string().contains("No space left"), "{full}");
        let kept = load(dir.path()).expect("the version from before is still whole");
        assert_eq!(kept.head().unwrap().sequence, 5);
        fs::remove_file(&filler).unwrap();
        let roots = history(dir.path(), 7).unwrap();
        assert_eq!(load(dir.path()).unwrap().bundle().root(), roots[7]);
    });
    thread.join().unwrap();
}

#[test]
fn what_another_pool_has_kept_since_supersedes_it() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), 3).unwrap();
    let loaded = || {
        let mut store = Store::open(dir.path(), "p").unwrap().unless_superseded(dir.path(), "p");
        store.load("p").unwrap().is_some()
    };
    assert!(loaded(), "there is no other pool");
    let base = |pool: &str| dir.path().join(pool).join("base");
    fs::create_dir(dir.path().join("q")).unwrap();
    assert!(loaded(), "the other pool has nothing");
    fs::copy(base("p"), base("q")).unwrap();
    let kept = fs::metadata(base("p")).unwrap().modified().unwrap();
    let touch = |time| fs::File::options().append(true).open(base("q")).unwrap().set_modified(time).unwrap();
    touch(kept - Duration::from_mins(1));
    assert!(loaded(), "the other pool is the older one");
    touch(SystemTime::now() + Duration::from_mins(1));
    assert!(!loaded(), "the node went to the other pool and comes back");
    // Its own first version is kept whole and counts from then on.
    touch(kept - Duration::from_mins(1));
    history(dir.path(), 2).unwrap();
    assert!(loaded());
}
