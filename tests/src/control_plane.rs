//! A real etcd and kube-apiserver, started and stopped by `cluster/control-plane.sh`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
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
        Self::start_with(hub, dir, addr, None, &[])
    }

    /// The same, beginning with a copy of etcd's folder `data`, and with more flags for the API server; one that is there
    /// already is overridden.
    pub fn start_with(
        hub: &Namespace,
        dir: &Path,
        addr: Ipv4Addr,
        data: Option<&Path>,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        namespace::require(&["openssl", "bash", "setsid"])?;
        let this = Self { dir: dir.to_owned(), hub: hub.name().to_owned() };
        let (path, addr) = (this.path(), addr.to_string());
        let data = data.map(|data| data.display().to_string());
        let mut args = vec!["up", &path, "--bind", &addr];
        args.extend(data.iter().flat_map(|data| ["--data", data]));
        args.push("--");
        args.extend(flags);
        script(hub, &args)?;
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

    /// Where the API server listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        let path = self.kubeconfig();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let address = text.split("https://").nth(1).and_then(|rest| rest.split('"').next());
        Ok(address.context("the kubeconfig names no server")?.parse()?)
    }

    /// The administrator's bearer token.
    pub fn token(&self) -> anyhow::Result<String> {
        let path = self.dir.join("pki/tokens.csv");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.split(',').next().unwrap_or_default().to_owned())
    }

    /// The certificate of who signed the API server's, as PEM.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }

    /// Where etcd keeps its data, which is whole once this value is dropped.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    /// The process id of `kube-apiserver` or `etcd`.
    pub fn pid(&self, program: &str) -> anyhow::Result<u32> {
        let path = self.dir.join(format!("{program}.pid"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
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
