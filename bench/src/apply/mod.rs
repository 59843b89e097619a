//! What the node needs: from the disk to the kernel, and from a head's bytes to the kernel and the disk.
//!
//! Everything that a controller does happens in this process; each repetition of the node's part is a process of its own
//! ([`measure`], the program `rulecast-bench-node`) in a fresh network namespace, so that its memory is a node's.

mod peer;

use std::fs::File;
use std::io::{BufRead, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rulecast_bundle::{CatchUp, Head, Mode, Replica};
use rulecast_netlink::Connection;
use rulecast_node::applier::Applier;
use rulecast_node::modes::{self, Modes};
use rulecast_node::store::Store;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, POOL, Size};
use crate::control::{Control, Kind};
use crate::memory;
use crate::report::Row;
use peer::Peer;

/// Changes that are timed, of each kind.
const CHANGES: u32 = 20;
/// How long a node binary may take to program the kernel.
const NODE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long it is given to come to rest before its memory is read.
const NODE_REST: Duration = Duration::from_millis(500);

/// What one process measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sample {
    full_ms: f64,
    kernel_ms: f64,
    messages: u32,
    netlink_bytes: u32,
    changes: Vec<Change>,
    rss_mb: f64,
    peak_mb: f64,
}

/// What one change cost.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    ms: f64,
    to_kernel_ms: f64,
    kernel_ms: f64,
    messages: u32,
    netlink_bytes: u32,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The node's part, in this process and its network namespace: starts from what is stored in a folder, then follows
/// heads, one a line.
pub fn measure(dir: &Path, node: &str, heads: impl BufRead) -> Result<Sample> {
    let start = Instant::now();
    let store = Store::open(dir, POOL)?;
    let mut applier = Applier::new(node, POOL, Modes::new(modes::open), Some(store));
    let full = applier.restore()?.context("there is no bundle on disk")?;
    let full_ms = ms(start.elapsed());
    let mut changes = Vec::new();
    for line in heads.lines() {
        let line = line?;
        let start = Instant::now();
        let head: Head = serde_json::from_str(&line)?;
        let have = applier.admit(&head)?.context("a head that is in force already")?;
        let way = CatchUp::new(&head, have)?.finish()?;
        let offered = Instant::now();
        let report = applier.offer(head, way)?;
        let done = Instant::now();
        ensure!(!report.rebuilt, "a change rebuilt the whole table");
        changes.push(Change {
            ms: ms(done - start),
            // The report leaves the disk out.
            to_kernel_ms: ms(offered - start + report.took),
            kernel_ms: ms(report.applied.kernel),
            messages: u32::try_from(report.applied.messages)?,
            netlink_bytes: u32::try_from(report.applied.bytes)?,
        });
    }
    let memory = memory::of("self")?;
    Ok(Sample {
        full_ms,
        kernel_ms: ms(full.applied.kernel),
        messages: u32::try_from(full.applied.messages)?,
        netlink_bytes: u32::try_from(full.applied.bytes)?,
        changes,
        rss_mb: memory.now,
        peak_mb: memory.peak,
    })
}

/// What a real node binary did.
struct NodeSample {
    full_ms: f64,
    rss_mb: f64,
    peak_mb: f64,
}

/// What is prepared once for a cluster, and measured as often as one likes.
pub struct Prepared {
    size: Size,
    mode: Mode,
    node: String,
    replica: Replica,
    heads: Vec<(Kind, Head)>,
    samples: Vec<Sample>,
    node_samples: Vec<NodeSample>,
    /// kube-proxy's figures, where they are asked for.
    peer: Option<Peer>,
}

impl Prepared {
    /// Compiles a cluster and publishes the changes.
    pub fn new(size: Size, mode: Mode) -> Result<Self> {
        let cluster = Cluster::new(size)?.with_mode(mode);
        let mut control = Control::new(cluster);
        let replica = control.replica()?;
        let kinds = [Kind::Replace, Kind::Count].map(|kind| vec![kind; CHANGES as usize]).concat();
        let heads = kinds.into_iter().map(|kind| (kind, control.publish(kind, 1).head)).collect();
        let node = cluster.node_name(0);
        Ok(Self {
            size,
            mode,
            node,
            replica,
            heads,
            samples: Vec::new(),
            node_samples: Vec::new(),
            peer: None,
        })
    }

    fn stored(&self) -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        Store::open(dir.path(), POOL)?.keep(&self.replica, None)?;
        Ok(dir)
    }

    /// Measures once, with the program `rulecast-bench-node`.
    pub fn repeat(&mut self, program: &Path) -> Result<()> {
        let dir = self.stored()?;
        let heads = dir.path().join("heads");
        let mut file = File::create(&heads)?;
        for (_, head) in &self.heads {
            serde_json::to_writer(&file, head)?;
            file.write_all(b"\n")?;
        }
        let mut command = Command::new(program);
        // As rulecast-node starts itself.
        command.envs(rulecast_node::memory::ALLOCATOR);
        command.arg(dir.path()).arg(&self.node).stdin(Stdio::null()).stdout(Stdio::piped());
        let uml = self.mode == Mode::Ipvs && rulecast_netlink::ipvs::Ipvs::open().is_err();
        if uml {
            command.arg("--uml");
        }
        let output = in_namespace(move || Ok(command.spawn()?.wait_with_output()?))
            .with_context(|| format!("running {}", program.display()))?;
        ensure!(output.status.success(), "{}: {}", program.display(), output.status);
        let sample: Sample = serde_json::from_slice(&output.stdout)?;
        ensure!(sample.changes.len() == self.heads.len(), "not all changes were applied");
        if !uml {
            let kept = Store::open(dir.path(), POOL)?.load(POOL)?;
            let kept = kept.and_then(|replica| replica.head().map(|head| head.sequence));
            ensure!(kept == self.heads.last().map(|(_, h)| h.sequence), "the last version is not on disk");
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Measures kube-proxy in iptables mode once.
    pub fn measure_peer(&mut self) -> Result<()> {
        self.peer = Some(peer::measure(self.size)?);
        Ok(())
    }

    /// Measures a real node binary once: it starts from the same disk, without a source of anything newer.
    pub fn repeat_node(&mut self, binary: &Path) -> Result<()> {
        let (state, bundles) = (self.stored()?, tempfile::tempdir()?);
        let mut command = Command::new(binary);
        command.args(["run", "--pool", POOL, "--node-name", &self.node]);
        command.arg("--bundle-dir").arg(bundles.path()).arg("--state-dir").arg(state.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let sample = in_namespace(move || {
            let mut kernel = Connection::open()?;
            let before = kernel.generation()?;
            let start = Instant::now();
            let mut child = command.spawn()?;
            let sample = (|| {
                while kernel.generation()? == before {
                    if let Some(status) = child.try_wait()? {
                        bail!("it ended without programming the kernel: {status}");
                    }
                    ensure!(start.elapsed() < NODE_TIMEOUT, "the kernel is empty after {NODE_TIMEOUT:?}");
                    std::thread::sleep(Duration::from_millis(1));
                }
                let full_ms = ms(start.elapsed());
                std::thread::sleep(NODE_REST);
                let memory = memory::of(&child.id().to_string())?;
                Ok(NodeSample { full_ms, rss_mb: memory.now, peak_mb: memory.peak })
            })();
            // It may have ended by itself, which the sample tells.
            let _ = child.kill();
            child.wait()?;
            sample
        });
        self.node_samples.push(sample.with_context(|| format!("running {}", binary.display()))?);
        Ok(())
    }

    /// Puts the repetitions together.
    #[must_use]
    pub fn summarize(&self) -> Row {
        let mut row = Row::new("apply", self.mode, self.size);
        let full = |f: fn(&Sample) -> f64| self.samples.iter().map(f).collect::<Vec<_>>();
        // The first change of the count makes a chain; the others find it.
        let (replace, count) = (CHANGES as usize, CHANGES as usize + 1);
        let change = |from: usize, to: usize, f: fn(&Change) -> f64| {
            self.samples.iter().flat_map(|s| s.changes[from..to].iter().map(f)).collect::<Vec<_>>()
        };
        let replaced = |f| change(0, replace, f);
        let counted = |f| change(count, self.heads.len(), f);
        let first = |f| change(replace, count, f);
        row.full("full_ms", "everything, from the disk to the kernel", &full(|s| s.full_ms));
        let [kernel, messages, bytes] = words(self.mode);
        row.full("kernel_ms", kernel, &full(|s| s.kernel_ms));
        row.full("full_messages", messages, &full(|s| s.messages.into()));
        row.full("full_netlink_bytes", bytes, &full(|s| s.netlink_bytes.into()));
        row.change(
            "change_ms",
            "one endpoint replaced, from a head's bytes to the disk",
            &replaced(|c| c.ms),
        );
        row.change("change_to_kernel_ms", "  of it until the kernel has it", &replaced(|c| c.to_kernel_ms));
        row.change("change_kernel_ms", kernel, &replaced(|c| c.kernel_ms));
        row.change("change_messages", messages, &replaced(|c| c.messages.into()));
        row.change("change_netlink_bytes", bytes, &replaced(|c| c.netlink_bytes.into()));
        row.change("count_change_ms", "one endpoint removed or added", &counted(|c| c.ms));
        row.change(
            "count_change_to_kernel_ms",
            "  of it until the kernel has it",
            &counted(|c| c.to_kernel_ms),
        );
        row.change("count_change_kernel_ms", kernel, &counted(|c| c.kernel_ms));
        row.change("count_change_messages", messages, &counted(|c| c.messages.into()));
        row.change("count_change_netlink_bytes", bytes, &counted(|c| c.netlink_bytes.into()));
        row.full("new_count_ms", "the first with a count that no Service had: a new chain", &first(|c| c.ms));
        row.full("new_count_kernel_ms", kernel, &first(|c| c.kernel_ms));
        row.full("rss_mb", "resident memory afterwards", &full(|s| s.rss_mb));
        row.full("peak_mb", "peak resident memory", &full(|s| s.peak_mb));
        let node = |f: fn(&NodeSample) -> f64| self.node_samples.iter().map(f).collect::<Vec<_>>();
        if let Some(peer) = &self.peer {
            row.full("peer_full_ms", "kube-proxy iptables, by its own metrics: full sync", &[peer.full_ms]);
            row.change("peer_change_ms", "  sync after one endpoint was replaced", &peer.change_ms);
        }
        row.full("node_full_ms", "node binary: from its start to the kernel", &node(|s| s.full_ms));
        row.full("node_rss_mb", "node binary: resident memory", &node(|s| s.rss_mb));
        row.full("node_peak_mb", "node binary: peak resident memory", &node(|s| s.peak_mb));
        row
    }
}

/// What is counted: what is sent to the kernel, or to the programs that write it.
fn words(mode: Mode) -> [&'static str; 3] {
    match mode {
        Mode::Nftables | Mode::Ipvs => ["  of it in the kernel", "  netlink messages", "  netlink bytes"],
        Mode::Iptables => {
            ["  of it in iptables-restore", "  lines for iptables-restore", "  bytes for iptables-restore"]
        }
    }
}

/// Whether [`Prepared::repeat`] can work at all, and else what to do.
pub fn check() -> Result<PathBuf> {
    in_namespace(|| Ok(())).context(
        "`apply` programs a kernel, in a network namespace of its own: run it as root, or in a container with the \
         capabilities SYS_ADMIN and NET_ADMIN. `unshare -r` does not do, as its sockets cannot take a large batch. \
         `compile` and `wire` need no privileges",
    )?;
    let program = std::env::current_exe()?.with_file_name("rulecast-bench-node");
    ensure!(
        program.exists(),
        "{} is missing: build the whole package, `cargo build --release -p rulecast-bench`",
        program.display()
    );
    Ok(program)
}

/// Does something on a thread with a network namespace of its own, which processes started by it share.
fn in_namespace<T: Send + 'static>(task: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::spawn(move || {
        #[expect(deprecated, reason = "unsafe for CLONE_FILES, which this is not")]
        rustix::thread::unshare(UnshareFlags::NEWNET).context("making a network namespace")?;
        task()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
