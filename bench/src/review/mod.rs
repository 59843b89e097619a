//! What review and rollback cost people: the time of `kubectl-rulecast diff`, from a cluster and from directories, and the time from
//! `kubectl-rulecast undo` to a node's kernel; on a real API server with the real programs.

mod directories;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rulecast_tests::http;
use rulecast_tests::namespace::{self, Namespace};
use rulecast_tests::network::{HUB, Network};
use rulecast_tests::programs;
use rulecast_tests::wait::wait_for;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::{POOL, Size};
use crate::live::Live;
use crate::objects;
use crate::progress::Progress;
use crate::propagation::proxies;
use crate::stats::percentile;

/// Beginning of the namespaces' names.
const PREFIX: &str = "rc-review";
/// How long anything may take. Generous: it bounds failures only.
const PATIENCE: Duration = Duration::from_mins(2);
/// Longer than the publish interval.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two looks into a node.
const LOOK: Duration = Duration::from_millis(2);

/// What was measured at one size. Times are medians, in seconds, but for the slowest undo.
#[derive(Debug, Serialize)]
pub struct Row {
    bench: &'static str,
    services: u32,
    endpoints: u32,
    diff_cluster_seconds: f64,
    diff_directories_seconds: f64,
    diff_list_seconds: f64,
    /// Of one changed Service.
    diff_lines: usize,
    undo_seconds: f64,
    undo_slowest_seconds: f64,
    /// What a changed Service adds to the store.
    revision_bytes: u64,
}

impl Row {
    /// The figures in words, beside what they may be.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!("review {} x {}\n", self.services, self.endpoints);
        let mut line = |what: &str, value: String, limit: &str| {
            let _ = writeln!(out, "  {what:<46} {value:>12}   {limit}");
        };
        line("diff of one Service, cluster", format!("{:.2} s", self.diff_cluster_seconds), "2 s");
        line("diff of one Service, a file each", format!("{:.2} s", self.diff_directories_seconds), "1 s");
        line("diff of one Service, one kubectl List", format!("{:.2} s", self.diff_list_seconds), "1 s");
        line("its lines", self.diff_lines.to_string(), "20");
        line("undo, command to kernel", format!("{:.2} s", self.undo_seconds), "3 s");
        line("the slowest", format!("{:.2} s", self.undo_slowest_seconds), "3 s");
        line("a new revision of one Service", format!("{} B", self.revision_bytes), "");
        out
    }
}

/// Measures at one size, each as often as asked.
pub fn measure(size: Size, repeat: u32, progress: &mut Progress) -> Result<Row> {
    namespace::require(&["ip", "nft"])?;
    let title = format!("review {} x {}", size.services, size.endpoints);
    let Network { nodes, hub, .. } = Network::new(PREFIX, 0)?;
    let Some(node) = nodes.first() else { bail!("a network of nodes is wanted") };
    let live = Live::start(hub, HUB, size, progress)?;
    progress.step(&format!("{title}: directories"));
    let [directories, list] = directories::measure(live.cluster(), size, repeat)?;
    progress.step(&format!("{title}: rulecast writes its rules"));
    let _controller = proxies::controller(&live)?;
    let _applier = proxies::applier(&live, &node.namespace, progress)?;
    let bench = Bench { live: &live, node: &node.namespace };
    progress.step(&format!("{title}: a change that waits"));
    let (diffs, diff_lines) = bench.diffs(repeat)?;
    let mut undos = Vec::new();
    for n in 1..=repeat {
        progress.step(&format!("{title}: undo {n} of {repeat}"));
        undos.push(bench.undo(n)?);
    }
    progress.clear();
    let revision_bytes = bench.revision_bytes()?;
    let undos = sorted(&undos);
    Ok(Row {
        bench: "review",
        services: size.services,
        endpoints: size.endpoints,
        diff_cluster_seconds: percentile(&sorted(&diffs), 50),
        diff_directories_seconds: percentile(&sorted(&directories), 50),
        diff_list_seconds: percentile(&sorted(&list), 50),
        diff_lines,
        undo_seconds: percentile(&undos, 50),
        undo_slowest_seconds: percentile(&undos, 100),
        revision_bytes,
    })
}

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    seconds
}

/// Runs the command line with these arguments: what it said, and how long that took.
pub(super) fn run(args: &[&str]) -> Result<(Output, Duration)> {
    let program = programs::command_line()?;
    let began = Instant::now();
    let output = Command::new(&program).args(args).output().with_context(|| program.display().to_string())?;
    Ok((output, began.elapsed()))
}

/// It must end with this code; its output.
pub(super) fn ended(output: &Output, code: i32) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "{}, not {code}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

struct Bench<'a> {
    live: &'a Live,
    node: &'a Namespace,
}

impl Bench<'_> {
    fn cli(&self, args: &[&str]) -> Result<(Output, Duration)> {
        let kubeconfig = self.live.control_plane.kubeconfig().display().to_string();
        let args = [args, &["--kubeconfig", &kubeconfig]].concat();
        self.live.hub.run(|| run(&args))?
    }

    fn patch_pool(&self, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.live.kubectl(&["patch", "rulepool", POOL, "--type=merge", "-p", &patch]).map(drop)
    }

    /// Gives the first Service another timeout of its session affinity.
    fn change(&self, seconds: u32) -> Result<()> {
        let object = objects::service(self.live.cluster(), 0);
        let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
        let affinity = json!({ "sessionAffinity": "ClientIP",
                               "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": seconds } } });
        let patch = json!({ "spec": affinity }).to_string();
        let (namespace, name) =
            (namespace.as_str().context("a namespace")?, name.as_str().context("a name")?);
        self.live
            .kubectl(&["patch", "service", "-n", namespace, name, "--type=merge", "-p", &patch])
            .map(drop)
    }

    /// The time of `diff` while a changed Service waits, and the lines it prints.
    fn diffs(&self, repeat: u32) -> Result<(Vec<Duration>, usize)> {
        self.patch_pool(&json!({ "approval": "Manual" }))?;
        std::thread::sleep(PAUSE);
        self.change(100)?;
        wait_for("the shape that waits", PATIENCE, || {
            let (output, _) = self.cli(&["diff", "--pool", POOL])?;
            ended(&output, 1).map(drop)
        })?;
        let (mut times, mut lines) = (Vec::new(), 0);
        for _ in 0..repeat {
            let (output, took) = self.cli(&["diff", "--pool", POOL])?;
            lines = ended(&output, 1)?.lines().count();
            times.push(took);
        }
        self.patch_pool(&json!({ "approval": "Automatic" }))?;
        self.follow(self.sequence()?, Instant::now())?;
        Ok((times, lines))
    }

    fn sequence(&self) -> Result<u64> {
        let (_, page) = http::get(self.node, SocketAddr::from(([127, 0, 0, 1], 10_256)), "/metrics")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        Ok(http::metric(&page, "rulecast_node_bundle_sequence")? as u64)
    }

    /// Waits until the node's kernel has a newer version.
    fn follow(&self, before: u64, began: Instant) -> Result<Duration> {
        while self.sequence()? <= before {
            ensure!(began.elapsed() < PATIENCE, "sequence {before} stays in the node's kernel");
            std::thread::sleep(LOOK);
        }
        Ok(began.elapsed())
    }

    /// Changes a Service, and takes that back: the time from the command to the kernel.
    fn undo(&self, n: u32) -> Result<Duration> {
        let before = self.sequence()?;
        self.change(200 + n)?;
        self.follow(before, Instant::now())?;
        wait_for("the new shape to be on record", PATIENCE, || {
            let (output, _) = self.cli(&["undo", POOL, "--dry-run"])?;
            ended(&output, 0).map(drop)
        })?;
        std::thread::sleep(PAUSE);
        let before = self.sequence()?;
        let began = Instant::now();
        let (output, _) = self.cli(&["undo", POOL])?;
        ended(&output, 0)?;
        let took = self.follow(before, began)?;
        let before = self.sequence()?;
        let (output, _) = self.cli(&["resume", POOL])?;
        ended(&output, 0)?;
        self.follow(before, Instant::now())?;
        std::thread::sleep(PAUSE);
        Ok(took)
    }

    /// The newest revision's object and its own chunk.
    fn revision_bytes(&self) -> Result<u64> {
        let revisions: Value =
            serde_json::from_str(&self.live.kubectl(&["get", "rulerevisions", "-o", "json"])?)?;
        let all = revisions["items"].as_array().context("revisions")?;
        let newest = all.iter().max_by_key(|r| r["spec"]["number"].as_u64()).context("a revision")?;
        let chunk = newest["spec"]["chunks"].as_array().and_then(|c| c.last()).and_then(Value::as_str);
        let chunk = self.live.kubectl(&["get", "rulechunk", chunk.context("a chunk")?, "-o", "json"])?;
        let chunk: Value = serde_json::from_str(&chunk)?;
        Ok((newest["spec"].to_string().len() + chunk["spec"].to_string().len()) as u64)
    }
}
