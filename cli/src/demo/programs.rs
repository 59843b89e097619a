//! The controller and the applier, as programs of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Both programs; they end with this value.
pub(crate) struct Programs(Vec<(String, Child)>);

impl Programs {
    pub(crate) fn start(
        manifests: &Path,
        bundles: &Path,
        work: &Path,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let mut programs = Self(Vec::new());
        let state = work.join("state");
        let path = |p: &Path| p.display().to_string();
        programs.spawn(
            "rulecast-controller",
            &["run", "--manifests", &path(manifests), "--output", &path(bundles), "--bind", "127.0.0.1:0"],
            work,
            verbose,
        )?;
        programs.spawn(
            "rulecast-node",
            &[
                "run",
                "--bundle-dir",
                &path(bundles),
                "--state-dir",
                &path(&state),
                "--hostname-override",
                "demo-node",
                "--healthz-bind-address",
                "",
            ],
            work,
            verbose,
        )?;
        Ok(programs)
    }

    fn spawn(&mut self, name: &str, args: &[&str], work: &Path, verbose: bool) -> anyhow::Result<()> {
        let log =
            if verbose { Stdio::inherit() } else { File::create(work.join(format!("{name}.log")))?.into() };
        let child = Command::new(beside(name)?)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        self.0.push((name.to_owned(), child));
        Ok(())
    }

    /// Fails when one of them ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for (name, child) in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended: {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for (_, child) in &self.0 {
            let pid = i32::try_from(child.id()).expect("a pid");
            let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let patience = Instant::now() + Duration::from_secs(2);
        for (_, child) in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}

/// A program in the same folder as this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: run `make demo`, which builds it", path.display());
    }
    Ok(path)
}
