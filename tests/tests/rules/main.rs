//! From a directory of manifests through both programs to a kernel, without an API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rulecast_tests::namespace::{Namespace, require};
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use tempfile::TempDir;

mod contents;
mod directory;
mod expected;
mod hold;
mod listing;
mod render;
mod waves;

/// The node of these tests; its addresses are in `manifests/node.yaml`.
pub(crate) const NODE: &str = "node-1";

/// A node in a namespace of its own, and the directories that controller and applier work in.
pub(crate) struct Bench {
    pub(crate) namespace: Namespace,
    dir: TempDir,
}

impl Bench {
    /// With the manifests of this test package.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        require(&["ip", "nft"]).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new(&format!("rc-kernel-{}-{number}", std::process::id())).unwrap();
        for addr in ["192.168.50.1/32", "fd00:50::1/128"] {
            namespace.ip(&format!("addr add {addr} dev lo")).unwrap();
        }
        let this = Self { namespace, dir: tempfile::tempdir().unwrap() };
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/manifests");
        fs::create_dir(this.manifests()).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), this.manifests().join(file.file_name())).unwrap();
        }
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.path("manifests")
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.path("bundles")
    }

    /// Arguments of the controller.
    pub(crate) fn controller_args(&self) -> Vec<String> {
        let (manifests, bundles) = (self.manifests(), self.bundles());
        ["run", "--manifests", &manifests.display().to_string(), "--output", &bundles.display().to_string()]
            .map(str::to_owned)
            .to_vec()
    }

    /// Arguments of the applier.
    pub(crate) fn applier_args(&self) -> Vec<String> {
        let (bundles, state) =
            (self.bundles().display().to_string(), self.path("state").display().to_string());
        ["run", "--bundle-dir", &bundles, "--state-dir", &state, "--hostname-override", NODE]
            .into_iter()
            .chain(["--healthz-bind-address", ""])
            .map(str::to_owned)
            .collect()
    }

    /// `rulecast-controller run --once`: its exit code and what it said.
    pub(crate) fn compile(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = programs::command(CONTROLLER).unwrap();
        command.args(self.controller_args()).arg("--once").args(more);
        outcome(&self.run(command))
    }

    /// `rulecast-node run --once`: its exit code and what it said.
    pub(crate) fn apply(&self) -> (Option<i32>, String) {
        let mut command = programs::command(APPLIER).unwrap();
        command.args(self.applier_args()).arg("--once");
        outcome(&self.run(command))
    }

    /// Runs a program to its end, in the node's namespace.
    pub(crate) fn run(&self, mut command: Command) -> Output {
        self.namespace.run(|| command.stdin(Stdio::null()).output()).unwrap().unwrap()
    }

    /// Both, which must succeed.
    pub(crate) fn program(&self) {
        let (code, log) = self.compile(&["--strict"]);
        assert_eq!(code, Some(0), "{log}");
        let (code, log) = self.apply();
        assert_eq!(code, Some(0), "{log}");
    }
}

pub(crate) fn outcome(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
