//! User-mode Linux: a kernel with IPVS, which many machines' own does not have, as a process.
//!
//! The test program boots it with itself as the first process. The machine's files are its root, read-only; what it prints is
//! on the console.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Debian's package user-mode-linux.
const KERNEL: &str = "linux.uml";
/// Where the package has the modules; `tests/prepare.sh` links them to where modprobe looks.
const MODULES: &str = "/usr/lib/uml/modules";
/// Everything is slower inside by a factor of three to ten, and the machine may be busy.
const LIMIT: Duration = Duration::from_mins(10);
/// The argument by which the program knows that it runs inside.
const INSIDE: &str = "--inside";
/// What the console shows before and after what the program prints.
const BEGIN: &str = "rulecast-uml: begin";
const END: &str = "rulecast-uml: end ";

/// What IPVS mode needs of a kernel: the rest is loaded when it is asked for.
pub const OF_IPVS: &[&str] = &[
    "ip_vs",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "dummy",
    "veth",
    "bridge",
    "iptable_mangle",
    "iptable_nat",
    "iptable_filter",
    "ip6table_mangle",
    "ip6table_nat",
    "ip6table_filter",
];

/// Whether this program runs inside.
#[must_use]
pub fn is_inside() -> bool {
    std::env::args().any(|arg| arg == INSIDE)
}

/// What it is like.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Modules that must be there.
    pub modules: &'a [&'a str],
    /// In MiB.
    pub memory: u32,
}

/// Boots user-mode Linux and runs this program in it with the same arguments; its outcome is this one's.
#[must_use]
pub fn boot(machine: Machine<'_>) -> ExitCode {
    match try_boot(machine) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("user-mode Linux: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_boot(machine: Machine<'_>) -> anyhow::Result<bool> {
    ensure!(
        Path::new(MODULES).is_dir(),
        "its modules are not in {MODULES}: install the package user-mode-linux, or run tests/prepare.sh"
    );
    let folder = tempfile::tempdir()?;
    let init = folder.path().join("init");
    fs::write(&init, script(machine)?)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut child = Command::new(KERNEL)
        .arg(format!("mem={}M", machine.memory))
        .args(["rootfstype=hostfs", "ro", "quiet", "loglevel=1", "con=null", "con0=fd:0,fd:1"])
        .arg(format!("init={}", init.display()))
        .arg(format!("uml_dir={}", folder.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("{KERNEL} cannot be run: install the package user-mode-linux"))?;
    let outcome = follow(&mut child);
    // It consists of several processes, which are a group.
    let group = Pid::from_raw(child.id().cast_signed());
    let _gone = killpg(group, Signal::SIGKILL);
    child.wait()?;
    outcome
}

/// Prints what the program inside prints, until its end.
fn follow(child: &mut Child) -> anyhow::Result<bool> {
    let (lines, console) = channel();
    let streams: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().context("the console")?),
        Box::new(child.stderr.take().context("the messages")?),
    ];
    for stream in streams {
        let lines = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let _ended = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
    }
    drop(lines);
    let end = Instant::now() + LIMIT;
    let (mut before, mut begun) = (Vec::new(), false);
    loop {
        match console.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == BEGIN => begun = true,
            Ok(line) if line.starts_with(END) => return Ok(line[END.len()..] == *"0"),
            Ok(line) if begun => println!("{line}"),
            Ok(line) => before.push(line),
            Err(RecvTimeoutError::Timeout) => bail!("no end within {LIMIT:?}\n{}", before.join("\n")),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("it ended before the tests did; its messages:\n{}", before.join("\n"))
            }
        }
    }
}

/// The first thing that runs inside. What tests write goes to memory; the machine's files stay as they are.
fn script(machine: Machine<'_>) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    // The programs under test are built outside.
    let programs = crate::programs::folder()?.display();
    let cache = crate::programs::cache()?;
    let args: Vec<String> =
        std::env::args().skip(1).map(|arg| format!("'{}'", arg.replace('\'', ""))).collect();
    Ok(format!(
        "#!/bin/sh\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run\n\
         export RULECAST_BIN_DIR='{programs}' RULECAST_CACHE='{cache}'\n\
         mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run || exit 1\n\
         ip link set lo up && hostname inside\n\
         for module in {modules}; do modprobe $module || exit 1; done\n\
         exec '{program}' {INSIDE} {args}\n",
        modules = machine.modules.join(" "),
        cache = cache.display(),
        program = program.display(),
        args = args.join(" "),
    ))
}

/// Runs the tests inside and ends user-mode Linux.
pub fn inside(tests: impl FnOnce() -> ExitCode) -> ExitCode {
    println!("{BEGIN}");
    let code = tests();
    let number = u8::from(code != ExitCode::SUCCESS);
    println!("{END}{number}");
    // Returns only when it fails; then the kernel panics, as its first process ends.
    let _failed = reboot(RebootMode::RB_POWER_OFF);
    code
}
