//! An API server, and the command line run against it.

use std::fs;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::kubectl::Kubectl;
use rulecast_tests::namespace::{Namespace, remove_leftovers, require};
use rulecast_tests::process::Process;
use rulecast_tests::programs;
use serde_json::Value;
use tempfile::TempDir;

const PREFIX: &str = "rc-cli";

/// What a run of the command line gave.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its output.
    pub(crate) out: String,
    /// What it said besides.
    pub(crate) err: String,
}

impl Ran {
    /// It ended with this code.
    pub(crate) fn ended(self, code: i32) -> anyhow::Result<Self> {
        ensure!(self.code == code, "exit code {} instead of {code}\n{}{}", self.code, self.out, self.err);
        Ok(self)
    }

    /// Its output has all of this.
    pub(crate) fn prints(self, texts: &[&str]) -> anyhow::Result<Self> {
        for text in texts {
            ensure!(self.out.contains(text), "{text:?} is missing in\n{}{}", self.out, self.err);
        }
        Ok(self)
    }

    /// It said all of this on standard error.
    pub(crate) fn says(self, texts: &[&str]) -> anyhow::Result<Self> {
        for text in texts {
            ensure!(self.err.contains(text), "{text:?} is missing in\n{}{}", self.err, self.out);
        }
        Ok(self)
    }

    /// Its output as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{}{}", self.out, self.err))
    }
}

/// Parts end in the order of the fields.
pub(crate) struct Server {
    pub(crate) control_plane: ControlPlane,
    kubectl: Kubectl,
    program: PathBuf,
    pub(crate) hub: Namespace,
    dir: TempDir,
    installed: bool,
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Self> {
        require(&["ip"])?;
        let program = programs::command_line()?;
        let peers = control_plane::peers()?;
        remove_leftovers(PREFIX)?;
        let hub = Namespace::new(&format!("{PREFIX}-{}-hub", std::process::id()))?;
        let dir = tempfile::Builder::new().prefix("rc-cli-").tempdir()?;
        let control_plane =
            ControlPlane::start_at(&hub, &dir.path().join("control-plane"), Ipv4Addr::LOCALHOST)?;
        let kubectl = Kubectl::new(&peers.join("kubectl"), &control_plane.kubeconfig(), dir.path());
        Ok(Self { control_plane, kubectl, program, hub, dir, installed: false })
    }

    pub(crate) fn print_logs(&self) {
        println!("{}", self.control_plane.log_tails());
    }

    /// The CRDs, and none of their objects.
    pub(crate) fn fresh(&mut self) -> anyhow::Result<()> {
        if !self.installed {
            let crds = programs::repository().join("crds/yaml");
            self.kubectl.apply_folder(&self.hub, &crds)?;
            let wait = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd", "--all"];
            self.kubectl(&wait)?;
            self.installed = true;
        }
        // Whole collections: one by one, hundreds of objects take minutes.
        for kind in ["rulepools", "rulebundles", "rulechunks", "rulerevisions", "rulenodes"] {
            self.kubectl(&["delete", "--raw", &format!("/apis/rulecast.dev/v1alpha1/{kind}")])?;
        }
        self.kubectl(&["delete", "--raw", "/api/v1/nodes"]).map(drop)
    }

    /// kubectl as administrator.
    pub(crate) fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&self.hub, args, "")
    }

    /// Makes or changes objects, their status included.
    pub(crate) fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        if !objects.is_empty() {
            self.kubectl.apply(&self.hub, objects)?;
        }
        for object in objects.iter().filter(|object| object.get("status").is_some()) {
            let (kind, name) = (object["kind"].as_str(), object["metadata"]["name"].as_str());
            let mut what = vec![kind.context("a kind")?, name.context("a name")?];
            what.extend(
                object["metadata"]["namespace"].as_str().iter().flat_map(|namespace| ["-n", namespace]),
            );
            self.kubectl.patch_status(&self.hub, &what, &object["status"])?;
        }
        Ok(())
    }

    /// A kubeconfig with another token, or another server.
    pub(crate) fn kubeconfig_with(
        &self,
        token: Option<&str>,
        server: Option<&str>,
    ) -> anyhow::Result<PathBuf> {
        let mut text = fs::read_to_string(self.control_plane.kubeconfig())?;
        let mut replace = |from: &str, to: char, new: &str| -> anyhow::Result<()> {
            let start = text.find(from).with_context(|| format!("no {from}"))? + from.len();
            let end = start + text[start..].find(to).with_context(|| format!("no end of {from}"))?;
            text.replace_range(start..end, new);
            Ok(())
        };
        if let Some(token) = token {
            replace("token: ", '}', token.trim())?;
        }
        if let Some(server) = server {
            replace("server: \"", '"', server)?;
        }
        let name = format!("{}.kubeconfig", fastrand::u64(..));
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A kubeconfig for a ServiceAccount of this name, which may do nothing unless something is bound to it.
    pub(crate) fn somebody(&self, name: &str) -> anyhow::Result<PathBuf> {
        let account = serde_json::json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": "default" },
        });
        self.kubectl.apply(&self.hub, &[account])?;
        let token = self.kubectl(&["create", "token", name, "-n", "default"])?;
        self.kubeconfig_with(Some(&token), None)
    }

    /// The folder for a scenario's files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The real controller, which ends with the value.
    pub(crate) fn controller(&self) -> anyhow::Result<Process> {
        let kubeconfig = self.control_plane.kubeconfig().display().to_string();
        let args = ["run", "--kubeconfig", &kubeconfig, "--bind", "127.0.0.1:10266"];
        let log = self.dir.path().join("controller.log");
        let mut process =
            Process::new("the controller", &programs::folder()?.join(programs::CONTROLLER), &args, &log);
        process.start(&self.hub)?;
        Ok(process)
    }

    /// Runs the command line as administrator.
    pub(crate) fn run(&self, args: &[&str]) -> anyhow::Result<Ran> {
        self.run_as(&self.control_plane.kubeconfig(), args)
    }

    /// Runs it by a kubeconfig.
    pub(crate) fn run_as(&self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<Ran> {
        let output = self.hub.run(|| self.command(kubeconfig, args).output())??;
        Ok(Ran {
            code: output.status.code().context("it was killed")?,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs it for a reader that closes the pipe after so many bytes, and says how it ended.
    pub(crate) fn run_for_a_hasty_reader(
        &self,
        args: &[&str],
        bytes: usize,
    ) -> anyhow::Result<(i32, String)> {
        let kubeconfig = self.control_plane.kubeconfig();
        let mut child = self.hub.run(|| self.command(&kubeconfig, args).stdout(Stdio::piped()).spawn())??;
        let mut out = child.stdout.take().context("a pipe")?;
        out.read_exact(&mut vec![0; bytes])?;
        drop(out);
        let output = child.wait_with_output()?;
        Ok((output.status.code().context("it was killed")?, String::from_utf8(output.stderr)?))
    }

    fn command(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", kubeconfig).env("NO_PROXY", "*").env("no_proxy", "*");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}
