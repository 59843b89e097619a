//! The demonstration: a controller and an applier as they run in production, in a network namespace of their own.

mod kernel;
mod network;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use kernel::Kernel;
use network::{Client, Network};
use programs::Programs;

/// Connections of each measurement.
const CONNECTIONS: usize = 400;
const CLUSTER_IP: &str = "10.96.0.10:80";
const CLUSTER_IP6: &str = "[fd00:96::10]:80";
const NODE_PORT: &str = "192.168.50.1:30080";
/// The manifest that the demonstration changes, and the line it takes away.
const ENDPOINTS: &str = "web-endpoints.yaml";
const TAKEN_AWAY: &str = "10.244.1.2";

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A copy of this directory of manifests is compiled.
    #[arg(long, value_name = "DIR", default_value = "manifests/samples/demo")]
    manifests: PathBuf,
    /// Keep the published bundles here.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print what the controller and the applier log.
    #[arg(long, short)]
    verbose: bool,
}

/// Runs the demonstration. Everything it makes goes with the process.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    network::enter_own_namespace()?;
    let work = tempfile::tempdir().context("a temporary directory")?;
    let manifests = work.path().join("manifests");
    copy_manifests(&options.manifests, &manifests)?;
    let bundles = options.keep.clone().unwrap_or_else(|| work.path().join("bundles"));
    say("rulecast demo: one node, four backends and a client, in a network namespace of their own\n");
    // The applier notices a folder that appears, but not one whose parent does.
    fs::create_dir_all(&bundles)?;
    let network = Network::new(&["10.244.1.1", "10.244.1.2", "10.244.1.3", "10.244.1.4"])?;
    let mut kernel = Kernel::open()?;
    let mut programs = Programs::start(&manifests, &bundles, work.path(), options.verbose)?;
    let result = show(&manifests, &bundles, &network.client, &mut kernel, &mut programs);
    if result.is_err() && !options.verbose {
        say("\nThe demonstration failed; `demo --verbose` shows what the programs say.");
    }
    result
}

fn show(
    manifests: &Path,
    bundles: &Path,
    client: &Client,
    kernel: &mut Kernel,
    programs: &mut Programs,
) -> anyhow::Result<()> {
    let took = kernel.wait_for_members(4, Duration::from_secs(20), || programs.check())?;
    let head = Published::read(bundles)?;
    step(
        1,
        &format!(
            "manifests compiled and applied: sequence {}, in the kernel {} ms after the start",
            head.sequence,
            took.as_millis()
        ),
    );
    step(2, &format!("ClusterIP {CLUSTER_IP}, {CONNECTIONS} connections"));
    let all = measure(client, CLUSTER_IP)?;
    ensure!(all.len() == 4, "four backends should have answered: {all:?}");
    step(3, &format!("NodePort {NODE_PORT}, and IPv6 {CLUSTER_IP6} (three endpoints there)"));
    measure(client, NODE_PORT)?;
    ensure!(measure(client, CLUSTER_IP6)?.len() == 3, "three backends should have answered over IPv6");

    let original = fs::read_to_string(manifests.join(ENDPOINTS))?;
    let without: String =
        original.lines().filter(|l| !l.contains(TAKEN_AWAY)).flat_map(|l| [l, "\n"]).collect();
    change(
        4,
        &format!("endpoint {TAKEN_AWAY} taken out of {ENDPOINTS}"),
        manifests,
        &without,
        3,
        bundles,
        kernel,
        programs,
    )?;
    let fewer = measure(client, CLUSTER_IP)?;
    ensure!(fewer.len() == 3, "three backends should have answered: {fewer:?}");

    change(
        5,
        "rolled back: the file as it was, under a new sequence",
        manifests,
        &original,
        4,
        bundles,
        kernel,
        programs,
    )?;
    ensure!(measure(client, CLUSTER_IP)?.len() == 4, "four backends should have answered");
    say("\nNothing is left behind. Next: `make cluster` runs the same against a real kube-apiserver.");
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one caller, twice")]
fn change(
    number: u32,
    what: &str,
    manifests: &Path,
    text: &str,
    members: usize,
    bundles: &Path,
    kernel: &mut Kernel,
    programs: &mut Programs,
) -> anyhow::Result<()> {
    // A change after a quiet second is published at once; right after another it would wait for the second to end.
    sleep(Duration::from_millis(1100));
    let before = Published::read(bundles)?.sequence;
    // As an editor or `git checkout` does it: the new file appears whole.
    let new = manifests.join(".new");
    fs::write(&new, text)?;
    fs::rename(&new, manifests.join(ENDPOINTS))?;
    let took = kernel.wait_for_members(members, Duration::from_secs(10), || programs.check())?;
    let head = Published::read(bundles)?;
    ensure!(head.sequence > before, "the sequence should have grown");
    step(number, what);
    say(&format!(
        "     sequence {before} -> {}, a delta of {} bytes, {:.1} ms from the file to the kernel",
        head.sequence,
        head.delta_bytes,
        took.as_secs_f64() * 1e3
    ));
    Ok(())
}

/// What nodes watch.
struct Published {
    sequence: u64,
    delta_bytes: usize,
}

impl Published {
    fn read(bundles: &Path) -> anyhow::Result<Self> {
        let path = bundles.join("default/head.json");
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let head: rulecast_bundle::Head = serde_json::from_slice(&bytes)?;
        let delta_bytes = head.delta_bytes()?.map_or(0, |d| d.len());
        Ok(Self { sequence: head.sequence, delta_bytes })
    }
}

fn measure(client: &Client, target: &str) -> anyhow::Result<BTreeMap<String, usize>> {
    let addr: SocketAddr = target.parse()?;
    let answers = client.connect(addr, CONNECTIONS)?;
    let most = answers.values().copied().max().unwrap_or(1);
    for (backend, count) in &answers {
        let bar = "#".repeat(count * 30 / most);
        say(&format!("     {backend:<14} {count:>4}  {bar}"));
    }
    Ok(answers)
}

fn copy_manifests(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let hint = || format!("{}: give --manifests DIR, or run `make demo` in the repository", from.display());
    for file in fs::read_dir(from).with_context(hint)? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn step(number: u32, text: &str) {
    say(&format!("  {number}  {text}"));
}

fn say(text: &str) {
    let _closed_pipe = writeln!(io::stdout(), "{text}");
}
