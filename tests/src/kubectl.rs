//! The real kubectl, as administrator or as somebody else.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::namespace::Namespace;

/// Runs kubectl in the switch's namespace.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Where it keeps what the API server offers; not below the home directory, which is not ours.
    cache: PathBuf,
}

impl Kubectl {
    /// With this program and kubeconfig; its cache lies below `dir`.
    #[must_use]
    pub fn new(program: &Path, kubeconfig: &Path, dir: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            cache: dir.join("kubectl-cache"),
        }
    }

    /// As somebody else.
    #[must_use]
    pub fn with(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), program: self.program.clone(), cache: self.cache.clone() }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it with this input; it must succeed.
    pub fn run(&self, hub: &Namespace, args: &[&str], input: &str) -> anyhow::Result<String> {
        let output = hub.run(|| {
            let mut child = Command::new(&self.program)
                .args(args)
                .env("KUBECONFIG", &self.kubeconfig)
                .env("KUBECACHEDIR", &self.cache)
                .env("NO_PROXY", "*")
                .env("no_proxy", "*")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            // One that fails early does not read its input; its own words say why.
            let _broken_pipe = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
            child.wait_with_output()
        })?;
        let output = output.with_context(|| self.program.display().to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), stderr.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies objects (server-side; the last word wins).
    pub fn apply(&self, hub: &Namespace, objects: &[Value]) -> anyhow::Result<()> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let args = ["apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-"];
        self.run(hub, &args, &list.to_string()).map(drop)
    }

    /// Applies a kustomize folder.
    pub fn apply_folder(&self, hub: &Namespace, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.display().to_string();
        self.run(hub, &["apply", "--server-side", "--force-conflicts", "-k", &folder], "").map(drop)
    }

    /// Reads an object.
    pub fn get(&self, hub: &Namespace, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.run(hub, &["get", "--raw", path], "")?)?)
    }

    /// Changes an object's status by a merge patch.
    pub fn patch_status(&self, hub: &Namespace, what: &[&str], status: &Value) -> anyhow::Result<()> {
        let patch = serde_json::json!({ "status": status }).to_string();
        let args = [&["patch", "--subresource=status", "--type=merge", "-p", &patch], what].concat();
        self.run(hub, &args, "").map(drop)
    }
}
