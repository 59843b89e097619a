//! A program under test: started in a namespace, killed, started again.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::wait::wait_for;

/// How long a program may take to end when asked.
const FAREWELL: Duration = Duration::from_secs(25);

/// A program that ends with this value.
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Describes it; it does not run yet. What it says goes to `log`.
    #[must_use]
    pub fn new(name: &str, program: &Path, args: &[&str], log: &Path) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { name: name.to_owned(), program: program.to_owned(), args, log: log.to_owned(), child: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, once it was started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it in a namespace. Its log goes on where it was.
    pub fn start(&mut self, namespace: &Namespace) -> anyhow::Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = namespace.run(|| {
            let mut command = Command::new(&self.program);
            command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            // A Ctrl-C is for us; we end our programs in order. And no proxy is between us and the API server.
            command.process_group(0).env("NO_PROXY", "*").env("no_proxy", "*");
            command.spawn()
        })?;
        self.child = Some(child.with_context(|| format!("cannot start {}", self.program.display()))?);
        Ok(())
    }

    /// Whether it runs. One that ended by itself is an error.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        match child.try_wait()? {
            None => Ok(true),
            Some(status) => {
                self.child = None;
                bail!("{} ended: {status}\n{}", self.name, self.log_tail());
            }
        }
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("it does not run")?;
        let status = wait_for(&format!("the end of {}", self.name), FAREWELL, || {
            child.try_wait()?.ok_or_else(|| anyhow!("it still runs"))
        })?;
        self.child = None;
        Ok(status)
    }

    /// Lets it stand still, as on a machine that hangs.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How much it has said so far, for [`Process::log_since`].
    #[must_use]
    pub fn log_mark(&self) -> usize {
        self.log().len()
    }

    /// What it has said since.
    #[must_use]
    pub fn log_since(&self, mark: usize) -> String {
        self.log().split_off(mark)
    }

    /// The end of what it has said.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = self.child.is_some();
        if running && self.terminate().is_err() {
            let _ended = self.kill();
        }
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let short = last.iter().map(|line| line.chars().take(400).collect::<String>());
    format!("--- {}\n{}\n---", log.display(), short.collect::<Vec<_>>().join("\n"))
}
