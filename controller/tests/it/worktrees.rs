//! Manifests that Git and symbolic links put there: a version comes as a whole.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rulecast_controller::source::{DirectorySource, start};

use crate::directories::{service, settle_in_steps};

const FILES: usize = 400;

/// Git without anybody's settings.
fn git(folder: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
        .args(args)
        .current_dir(folder);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.output().expect("git, from the package git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Many Services, each in a file of its own, with addresses of this version.
fn write(folder: &Path, version: u8) {
    for n in 0..FILES {
        let text = service(&format!("s{n}"), &format!("10.{version}.{}.{}", n / 250, n % 250 + 1));
        fs::write(folder.join(format!("s{n}.yaml")), text).unwrap();
    }
}

/// A repository with the branches `one` and `two`, in which everything differs; `one` is checked out.
fn repository(dir: &Path) -> PathBuf {
    let folder = dir.join("repository");
    fs::create_dir_all(folder.join("manifests")).unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch", "one"]);
    for (version, branch) in [(2, "two.yaml"), (1, "one")] {
        write(&folder.join("manifests"), version);
        git(&folder, &["checkout", "--quiet", "-B", branch]);
        git(&folder, &["add", "."]);
        git(&folder, &["commit", "--quiet", "-m", branch]);
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_of_many_files_is_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    // The whole repository: `.git` is in it, with a branch that is called like a manifest.
    let mut events = start(DirectorySource::new(&repository).unwrap());
    let begin = settle_in_steps(&mut events).await;
    assert_eq!(begin.len(), 1, "{begin:?}");
    assert_eq!((begin[0].len(), begin[0].last().map(String::as_str)), (FILES + 1, Some("synced")));
    for branch in ["two.yaml", "one", "two.yaml"] {
        git(&repository, &["checkout", "--quiet", branch]);
        let steps = settle_in_steps(&mut events).await;
        let sizes: Vec<_> = steps.iter().map(Vec::len).collect();
        assert_eq!(sizes, [FILES], "{branch}");
        assert!(steps[0].iter().all(|told| told.starts_with("set Service default/s")), "{:?}", steps[0]);
    }
}

/// Git does not get to its end at once: a hook of a filter, a slow disk.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_git_holds_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    let lock = repository.join(".git/index.lock");
    let mut events = start(DirectorySource::new(repository.join("manifests")).unwrap());
    assert_eq!(settle_in_steps(&mut events).await.len(), 1);
    fs::write(&lock, "").unwrap();
    for n in 0..3 {
        let text = service(&format!("s{n}"), &format!("10.9.0.{}", n + 1));
        fs::write(repository.join(format!("manifests/s{n}.yaml")), text).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(events.try_recv().is_err(), "file {n}");
    }
    fs::remove_file(&lock).unwrap();
    let steps = settle_in_steps(&mut events).await;
    let wanted: Vec<_> = (0..3).map(|n| format!("set Service default/s{n} [10.9.0.{}]", n + 1)).collect();
    assert_eq!(steps, [wanted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_link_is_followed_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, version) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        fs::create_dir_all(path(name).join("manifests")).unwrap();
        write(&path(name).join("manifests"), version);
    }
    fs::write(path("v1/manifests/only-here.yaml"), service("only-here", "10.1.9.9")).unwrap();
    symlink("v1", path("current")).unwrap();
    let mut events = start(DirectorySource::new(path("current/manifests")).unwrap());
    assert_eq!(settle_in_steps(&mut events).await.concat().len(), FILES + 2);
    for version in ["v2", "v3"] {
        // As `ln -sfn` and git-sync do it: there is always one.
        symlink(version, path("new")).unwrap();
        fs::rename(path("new"), path("current")).unwrap();
        let steps = settle_in_steps(&mut events).await;
        let gone = usize::from(version == "v2");
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [FILES + gone], "{version}");
    }
    // It is the new one that is watched now, and the old one that is not.
    fs::write(path("v2/manifests/s0.yaml"), service("s0", "10.8.0.1")).unwrap();
    fs::write(path("v3/manifests/s1.yaml"), service("s1", "10.8.0.2")).unwrap();
    assert_eq!(settle_in_steps(&mut events).await.concat(), ["set Service default/s1 [10.8.0.2]"]);
    fs::remove_dir_all(path("v1")).unwrap();
    fs::remove_dir_all(path("v2")).unwrap();
    assert!(settle_in_steps(&mut events).await.is_empty());
}
