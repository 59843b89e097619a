//! A real etcd and kube-apiserver, started and stopped by `cluster/control-plane.sh`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::namespace::{self, Namespace};
use crate::network::HUB;
use crate::process::tail;
use crate::programs::repository;

/// The API server, at [`HUB`] in the switch's namespace.
pub struct ControlPlane {
    dir: PathBuf,
    hub: String,
}

impl ControlPlane {
    /// Starts it, with its data and logs in `dir`. The programs are built first if they never were, which takes minutes.
    pub fn start(hub: &Namespace, dir: &Path) -> anyhow::Result<Self> {
        Self::start_at(hub, dir, HUB)
    }

    /// The same at another address of that namespace.
    pub fn start_at(hub: &Namespace, dir: &Path, addr: Ipv4Addr) -> anyhow::Result<Self> {
        namespace::require(&["openssl", "bash", "setsid"])?;
        let this = Self { dir: dir.to_owned(), hub: hub.name().to_owned() };
        script(hub, &["up", &this.path(), "--bind", &addr.to_string()])?;
        Ok(this)
    }

    fn path(&self) -> String {
        self.dir.display().to_string()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Ends the API server in an orderly way.
    pub fn stop_api_server(&self, hub: &Namespace) -> anyhow::Result<()> {
        script(hub, &["stop-apiserver", &self.path()])
    }

    /// Kills the API server.
    pub fn kill_api_server(&self, hub: &Namespace) -> anyhow::Result<()> {
        script(hub, &["kill-apiserver", &self.path()])
    }

    /// Starts the API server again with the same data, if it does not run.
    pub fn start_api_server(&self, hub: &Namespace) -> anyhow::Result<()> {
        script(hub, &["start-apiserver", &self.path()])
    }

    /// The ends of the logs.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let logs = ["etcd.log", "kube-apiserver.log"].map(|log| tail(&self.dir.join("log").join(log)));
        logs.join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let down = Command::new(path()).arg("down").arg(&self.dir).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("the control plane in {} ({}) could not be stopped", self.dir.display(), self.hub);
        }
    }
}

fn path() -> PathBuf {
    repository().join("tests/cluster/control-plane.sh")
}

fn script(hub: &Namespace, args: &[&str]) -> anyhow::Result<()> {
    let status = hub.run(|| Command::new(path()).args(args).status())?;
    let status = status.with_context(|| path().display().to_string())?;
    ensure!(status.success(), "control-plane.sh {}: {status} (see above)", args[0]);
    Ok(())
}

/// The folder with kubectl and the other programs of Kubernetes, which are built if they never were.
pub fn peers() -> anyhow::Result<PathBuf> {
    let build = repository().join("tests/peers/build.sh");
    let output = Command::new(&build)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| build.display().to_string())?;
    ensure!(output.status.success(), "{}: {}", build.display(), output.status);
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
