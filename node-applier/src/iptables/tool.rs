//! The programs of iptables: which variant, and running them.

use std::io::{self, BufWriter, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rulecast_bundle::nft::Family;
use rulecast_netlink::ipset::{Ipsets, SetOperation};
use tracing::info;

use crate::backend::BackendError;

/// Chains that kubelet makes in the table `mangle`, so that others see which variant the node uses (KEP-3178).
const HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT", ":KUBE-KUBELET-CANARY"];
/// Why a program failed that will not fail once others are ready.
pub(super) const LOCK_HELD: &str = "LockHeld";
/// The sysctl that lets packets of the loopback net be translated.
pub(super) const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";
/// How long to wait, in seconds, while another program changes rules.
const WAIT: &str = "5";
/// The most of a program's complaints that is repeated, in bytes.
const MOST: usize = 300;

/// How rules reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As tables of x_tables.
    Legacy,
    /// As tables of nf_tables.
    Nft,
}

impl Variant {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Nft,
            Self::Nft => Self::Legacy,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }
}

/// Where rules are written: the programs of iptables, or what stands for them in a test.
pub trait Xtables {
    /// The variant.
    fn variant(&self) -> Variant;

    /// What a table holds, as `iptables-save` prints it.
    fn save(&self, family: Family, table: &str) -> Result<String, BackendError>;

    /// Whether a table may have a chain of this name, without reading all of the table: somebody else may have a hundred thousand
    /// rules there. Nor is a table made by the question.
    fn may_have(&self, family: Family, table: &str, chain: &str) -> bool;

    /// Writes rules as `iptables-restore --noflush` does, each table at once. What the text does not name stays.
    fn restore(
        &self,
        family: Family,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Restored, BackendError>;

    /// Makes sets of clients, as far as they are not there. Rules name them, so they come before and go after those.
    fn make_sets(&self, family: Family, names: &[String]) -> Result<(), BackendError>;

    /// Removes sets of clients.
    fn remove_sets(&self, names: &[String]) -> Result<(), BackendError>;

    /// The names of all sets.
    fn sets(&self) -> Result<Vec<String>, BackendError>;

    /// Lets packets of the loopback net be translated.
    fn route_localnet(&self) -> io::Result<()>;
}

/// The programs of one variant.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    variant: Variant,
    /// The variant's name is part of the programs' names; else those without are of this variant.
    named: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restored {
    /// Bytes of text.
    pub bytes: usize,
    /// Lines of it.
    pub lines: usize,
    /// From the program's start to its end.
    pub took: Duration,
}

impl Tool {
    /// Finds the variant that others use on this node, as upstream's image does (iptables-wrapper of
    /// registry.k8s.io/build-image/distroless-iptables): the one with kubelet's chains, else the one with more rules.
    pub fn choose() -> Result<Self, BackendError> {
        let named = |variant| Self { variant, named: true };
        let there: Vec<Self> =
            [Variant::Nft, Variant::Legacy].map(named).into_iter().filter(|tool| tool.is_there()).collect();
        let tool = match there[..] {
            [] => Self::unnamed()?,
            [only] => only,
            _ => {
                let seen = there.iter().map(|tool| (tool.hints(), tool)).collect::<Vec<_>>();
                match seen.iter().find(|((hinted, _), _)| *hinted) {
                    Some((_, tool)) => **tool,
                    // Of equally many, legacy, as there.
                    None => *seen.iter().max_by_key(|((_, rules), _)| *rules).map_or(&there[0], |(_, t)| *t),
                }
            }
        };
        info!(variant = tool.variant.word(), "iptables");
        Ok(tool)
    }

    /// The programs of a variant, whatever the node uses.
    #[must_use]
    pub fn of(variant: Variant) -> Self {
        Self { variant, named: true }
    }

    fn unnamed() -> Result<Self, BackendError> {
        let output =
            Command::new("iptables").arg("--version").output().map_err(|e| missing("iptables", &e))?;
        let nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
        Ok(Self { variant: if nft { Variant::Nft } else { Variant::Legacy }, named: false })
    }

    fn program(self, family: Family, what: &str) -> String {
        let family = if family == Family::V4 { "iptables" } else { "ip6tables" };
        let what = if what.is_empty() { String::new() } else { format!("-{what}") };
        if self.named { format!("{family}-{}{what}", self.variant.word()) } else { format!("{family}{what}") }
    }

    /// Whether its programs can be run.
    #[must_use]
    pub fn is_there(self) -> bool {
        let program = self.program(Family::V4, "restore");
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// Whether kubelet's chains are there, and how many rules.
    fn hints(self) -> (bool, usize) {
        let (mut hinted, mut rules) = (false, 0);
        for family in [Family::V4, Family::V6] {
            let Ok(Output { stdout, .. }) = Command::new(self.program(family, "save")).output() else {
                continue;
            };
            for line in String::from_utf8_lossy(&stdout).lines() {
                hinted |= HINTS.iter().any(|hint| line.starts_with(hint));
                rules += usize::from(line.starts_with('-'));
            }
        }
        (hinted, rules)
    }
}

impl Xtables for Tool {
    fn variant(&self) -> Variant {
        self.variant
    }

    fn save(&self, family: Family, table: &str) -> Result<String, BackendError> {
        let program = self.program(family, "save");
        let output =
            Command::new(&program).args(["-t", table]).output().map_err(|e| missing(&program, &e))?;
        if !output.status.success() {
            return Err(failed(&program, &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn may_have(&self, family: Family, table: &str, chain: &str) -> bool {
        match self.variant {
            Variant::Legacy => {
                let names = if family == Family::V4 { "ip_tables_names" } else { "ip6_tables_names" };
                // Of this thread: another one may be in another network namespace.
                let names = std::fs::read_to_string(format!("/proc/thread-self/net/{names}"));
                names.is_ok_and(|names| names.lines().any(|name| name == table))
            }
            Variant::Nft => {
                let program = self.program(family, "");
                let args = ["-t", table, "-n", "-L", chain];
                Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
            }
        }
    }

    fn restore(
        &self,
        family: Family,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Restored, BackendError> {
        let program = self.program(family, "restore");
        let start = Instant::now();
        let mut child = Command::new(&program)
            .args(["-w", WAIT, "--noflush"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| missing(&program, &e))?;
        let stdin = child.stdin.take().expect("piped");
        let mut out = Counted { out: BufWriter::new(stdin), bytes: 0, lines: 0 };
        // A program that gave up closes its end; why is what it says.
        let _told_by_its_end = write(&mut out).and_then(|()| out.flush());
        let Counted { out, bytes, lines } = out;
        drop(out);
        let output = child.wait_with_output().map_err(|e| missing(&program, &e))?;
        if !output.status.success() {
            return Err(failed(&program, &output));
        }
        Ok(Restored { bytes, lines, took: start.elapsed() })
    }

    fn make_sets(&self, family: Family, names: &[String]) -> Result<(), BackendError> {
        let make = |name: &String| SetOperation::CreateClients(name.clone(), family);
        apply(&names.iter().map(make).collect::<Vec<_>>())
    }

    fn remove_sets(&self, names: &[String]) -> Result<(), BackendError> {
        apply(&names.iter().cloned().map(SetOperation::Destroy).collect::<Vec<_>>())
    }

    fn sets(&self) -> Result<Vec<String>, BackendError> {
        match Ipsets::open() {
            // A kernel without ipsets has none.
            Err(rulecast_netlink::Error::NoIpset(_)) => Ok(Vec::new()),
            opened => Ok(opened?.sets()?.into_iter().map(|set| set.name).collect()),
        }
    }

    fn route_localnet(&self) -> io::Result<()> {
        std::fs::write(ROUTE_LOCALNET, "1")
    }
}

fn apply(operations: &[SetOperation]) -> Result<(), BackendError> {
    if operations.is_empty() {
        return Ok(());
    }
    Ipsets::open()?.apply(operations).map_err(|failed| failed.error)?;
    Ok(())
}

struct Counted<W> {
    out: W,
    bytes: usize,
    lines: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        self.lines += bytes[..written].split(|b| *b == b'\n').count() - 1;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn missing(program: &str, error: &io::Error) -> BackendError {
    let message = format!(
        "modes iptables and ipvs need the program {program}, which cannot be run ({error}): install the package iptables where the \
         applier runs, or set the RulePool's mode to nftables"
    );
    BackendError::Unsupported { reason: "MissingTool", message }
}

fn failed(program: &str, output: &Output) -> BackendError {
    let said = String::from_utf8_lossy(&output.stderr);
    let said =
        said.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).collect::<Vec<_>>().join("; ");
    let said = &said[..said.floor_char_boundary(MOST)];
    let (reason, advice) = match output.status.code() {
        // `enum xtables_exittype`: RESOURCE_PROBLEM.
        Some(4) => (LOCK_HELD, ": another program holds iptables' lock; it is tried again"),
        _ if said.contains("Permission denied") => {
            ("MissingCapability", ": the applier needs the capabilities NET_ADMIN and NET_RAW")
        }
        _ if said.contains("Table does not exist") || said.contains("can't initialize") => (
            "MissingModule",
            ": the kernel lacks the modules of iptables (ip_tables, iptable_nat, iptable_filter)",
        ),
        _ if said.contains("Couldn't load match") || said.contains("Extension") => (
            "MissingModule",
            ": the kernel lacks a match of iptables (xt_recent, xt_statistic, xt_addrtype, xt_conntrack, xt_set)",
        ),
        _ => ("KernelRefused", ""),
    };
    BackendError::Unsupported { reason, message: format!("{program} failed ({said}){advice}") }
}
