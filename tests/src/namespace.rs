//! Network namespaces with names, so that people can look into them and leftovers can be removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const FOLDER: &str = "/run/netns";

/// A network namespace. It ends with this value, and whatever still runs in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with loopback up, forwarding on and no address detection, which would only cost time.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let this = Self { name: name.to_owned() };
        this.ip("link set lo up")?;
        this.run(|| {
            for (path, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                // Refusals are not rationed: a test is refused more often than a person.
                ("ipv4/icmp_ratemask", "0"),
                ("ipv6/icmp/ratelimit", "0"),
                ("ipv6/icmp/ratemask", "\n"),
            ] {
                let path = Path::new("/proc/sys/net").join(path);
                fs::write(&path, value).with_context(|| path.display().to_string())?;
            }
            anyhow::Ok(())
        })??;
        Ok(this)
    }

    /// Its name for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs something in it, on a thread of its own. Sockets and processes that this makes stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = self.open()?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || -> anyhow::Result<T> {
                setns(&file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn open(&self) -> anyhow::Result<File> {
        let path = PathBuf::from(FOLDER).join(&self.name);
        File::open(&path).with_context(|| path.display().to_string())
    }

    /// Runs a command in it, which must succeed, and returns its output.
    pub fn output(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let output = self.run(|| Command::new(program).args(args).output())?;
        let output = output.with_context(|| format!("the tool `{program}`"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {} in {}: {}", args.join(" "), self.name, stderr.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `ip ARGS` in it.
    pub fn ip(&self, args: &str) -> anyhow::Result<()> {
        ip(&format!("-n {} {args}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("{error:#}");
        }
    }
}

/// Ends what runs in a namespace and removes it.
fn remove(name: &str) -> anyhow::Result<()> {
    let pids = Command::new("ip").args(["netns", "pids", name]).output()?;
    for pid in String::from_utf8_lossy(&pids.stdout).lines().filter_map(|l| l.trim().parse().ok()) {
        if pid != std::process::id().cast_signed() {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    ip(&format!("netns del {name}"))
}

/// Removes namespaces `PREFIX-PID-…` of processes that are gone, with whatever a killed test run left in them.
pub fn remove_leftovers(prefix: &str) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        let Some(pid) = owner.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            remove(&name)?;
        }
    }
    Ok(())
}

/// Fails with a hint when namespaces cannot be made here, or a tool is missing.
pub fn require(tools: &[&str]) -> anyhow::Result<()> {
    if !geteuid().is_root() {
        bail!("this needs root, for network namespaces: run it with sudo");
    }
    for tool in tools {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
        let package = match *tool {
            "ip" => "iproute2",
            "nft" => "nftables",
            "setpriv" => "util-linux",
            other => other,
        };
        ensure!(found, "the tool `{tool}` is missing: install the package {package}");
    }
    Ok(())
}

/// `ip ARGS` in the namespace of the caller.
fn ip(args: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args.split_whitespace()).output().context("the tool `ip`")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {args}: {}", stderr.trim());
    Ok(())
}
