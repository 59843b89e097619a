//! `rulecast-bench`: measures rulecast on synthetic clusters; see the library's documentation.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use rulecast_bench::apply::{self, Prepared};
use rulecast_bench::cluster::{Cluster, Size};
use rulecast_bench::progress::Progress;
use rulecast_bench::report::{self, Row};
use rulecast_bench::{compile, connect, fanout, propagation, review, wire};
use rulecast_bundle::Mode;

/// The controller's allocator, so that `compile` reports the controller's memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures what rulecast costs on synthetic clusters.
///
/// Prints the median of several runs, with minimum and maximum beside it. Several sizes may be given; then the cost of
/// one change is compared between them. Build with --release.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// The compiler: time and memory, for a whole cluster and for one endpoint change.
    Compile(Common),
    /// The bundle: bytes of a checkpoint and of one endpoint change.
    Wire(Common),
    /// The node applier: time, memory and netlink messages, in a fresh network namespace. Needs root.
    Apply(Node),
    /// The first packet of a connection, beside kube-proxy's: time and rules. Needs root, and the real kube-proxy, which is
    /// built from source if it never was.
    Connect(Connect),
    /// The API server's work for many nodes and one endpoint change after the other: kube-proxy's watches beside
    /// rulecast's. Needs root, and a real API server, which is built from source if it never was.
    Fanout(Fanout),
    /// From the write of an EndpointSlice to the kernel of a node, beside kube-proxy, on a real API server: on a quiet
    /// cluster, and while changes go on. Needs root, and the real kube-apiserver and kube-proxy, which are built from
    /// source if they never were.
    Propagation(Propagation),
    /// The time of `kubectl-rulecast diff`, and from `kubectl-rulecast undo` to the kernel, on a real API server. Needs root.
    Review(Review),
    /// All of these but `connect`, `fanout`, `propagation` and `review`, at 1,000, 10,000 and 40,000 Services unless told otherwise.
    /// Needs root.
    All(Node),
    /// One measurement of the compiler, in a process of its own.
    #[command(hide = true)]
    CompileOnce { services: u32, endpoints: u32, mode: String },
}

#[derive(Args)]
struct Common {
    /// Number of Services; several, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',')]
    services: Vec<u32>,
    /// Number of endpoints of each Service; several, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "10")]
    endpoints: Vec<u32>,
    /// How often to measure, each time anew.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=1000))]
    repeat: u32,
    /// The proxy mode.
    #[arg(long, default_value = "nftables", value_parser = mode)]
    mode: Mode,
    /// Print one JSON object a line, with units in the keys: times in ms or us, memory in MB of 10^6 bytes.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Node {
    #[command(flatten)]
    common: Common,
    /// Measure this `rulecast-node`, too: from its start to the kernel, and its memory. For the figures that count,
    /// build it with `cargo build --profile applier -p rulecast-node`.
    #[arg(long, value_name = "PATH")]
    node_binary: Option<PathBuf>,
}

#[derive(Args)]
struct Connect {
    /// Number of Services; several, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    services: Vec<u32>,
    /// Number of endpoints of each Service.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// Number of connections with each of the two.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    connections: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Fanout {
    /// Number of nodes.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    nodes: u32,
    /// Number of kube-proxies; by default as many as nodes, but no more than 500.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    peer_nodes: Option<u32>,
    /// Number of Services.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Number of endpoints of each Service.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// Endpoints that change in a second, each in another Service's EndpointSlice.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Number of kube-proxies that join one after the other; five times as many rulecast nodes do.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    joins: u32,
    /// The least time between two reports of a rulecast node about new versions, in seconds, as rulecast-node's option of
    /// the same name; 0: none.
    #[arg(long, default_value_t = 10)]
    report_interval: u32,
    /// How long to measure each, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Review {
    /// Number of Services; several, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    services: Vec<u32>,
    /// Number of endpoints of each Service.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    endpoints: u32,
    /// How often to do it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Propagation {
    /// Number of Services; several, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    services: Vec<u32>,
    /// Number of endpoints of each Service.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    endpoints: u32,
    /// Changes a second, while changes go on.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// How many seconds changes go on, and how many seconds single ones are measured on a quiet cluster.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    let all = [Mode::Nftables, Mode::Iptables, Mode::Ipvs];
    let found = all.into_iter().find(|mode| mode.to_string() == text);
    found.ok_or_else(|| format!("{text:?} is not one of nftables, iptables, ipvs"))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rulecast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: What) -> Result<()> {
    let (which, common, node_binary): (&[&str], _, _) = match command {
        What::CompileOnce { services, endpoints, mode } => {
            let size = Size { services, endpoints };
            let sample = compile::measure(size, self::mode(&mode).map_err(anyhow::Error::msg)?)?;
            println!("{}", serde_json::to_string(&sample)?);
            return Ok(());
        }
        What::Connect(options) => return connect(&options),
        What::Fanout(options) => return fanout(&options),
        What::Propagation(options) => return propagation(&options),
        What::Review(options) => return review(&options),
        What::Compile(common) => (&["compile"], common, None),
        What::Wire(common) => (&["wire"], common, None),
        What::Apply(node) => (&["apply"], node.common, node.node_binary),
        What::All(node) => (&["compile", "wire", "apply"], node.common, node.node_binary),
    };
    let mut bench =
        Bench { repeat: common.repeat, mode: common.mode, node_binary, progress: Progress::default() };
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its times mean nothing");
    }
    if which.contains(&"apply") {
        // Now rather than after minutes of measuring.
        apply::check()?;
    }
    let services = match (common.services.is_empty(), which.len()) {
        (false, _) => common.services,
        (true, 1) => vec![10_000],
        (true, _) => vec![1000, 10_000, 40_000],
    };
    let sizes = common.endpoints.iter().flat_map(|endpoints| {
        services.iter().map(|services| Size { services: *services, endpoints: *endpoints })
    });
    let sizes: Vec<_> = sizes.collect();
    for size in &sizes {
        Cluster::new(*size)?;
    }
    let mut rows = Vec::new();
    for what in which {
        for size in &sizes {
            let row = bench.run(what, *size)?;
            bench.progress.clear();
            if common.json {
                println!("{}", serde_json::to_string(&row)?);
            } else {
                println!("{}", row.table());
            }
            rows.push(row);
        }
    }
    let ratios = report::ratios(&rows);
    if common.json {
        for ratio in &ratios {
            println!("{}", serde_json::to_string(ratio)?);
        }
    } else {
        print!("{}", report::ratio_table(&ratios));
    }
    Ok(())
}

fn connect(options: &Connect) -> Result<()> {
    let mut progress = Progress::default();
    for services in &options.services {
        let size = Size { services: *services, endpoints: options.endpoints };
        let comparison = connect::measure(size, options.connections, &mut progress)?;
        progress.clear();
        if options.json {
            println!("{}", serde_json::to_string(&comparison)?);
        } else {
            println!("{}", comparison.table());
        }
    }
    Ok(())
}

fn fanout(options: &Fanout) -> Result<()> {
    let mut progress = Progress::default();
    let plan = fanout::Plan {
        size: Size { services: options.services, endpoints: options.endpoints },
        nodes: options.nodes,
        peer_nodes: options.peer_nodes.unwrap_or(options.nodes.min(500)),
        joins: options.joins,
        rate: options.rate,
        report_interval: (options.report_interval > 0)
            .then(|| Duration::from_secs(options.report_interval.into())),
        time: Duration::from_secs(options.seconds.into()),
    };
    let comparison = fanout::measure(&plan, &mut progress)?;
    progress.clear();
    if options.json {
        println!("{}", serde_json::to_string(&comparison)?);
    } else {
        print!("{}", comparison.table());
    }
    Ok(())
}

fn propagation(options: &Propagation) -> Result<()> {
    let mut progress = Progress::default();
    let (rate, time) = (options.rate, Duration::from_secs(options.seconds));
    for services in &options.services {
        let size = Size { services: *services, endpoints: options.endpoints };
        propagation::measure(size, propagation::Options { rate, time }, &mut progress, |row| {
            if options.json {
                println!("{}", serde_json::to_string(&row)?);
            } else {
                println!("{}", row.table());
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn review(options: &Review) -> Result<()> {
    let mut progress = Progress::default();
    for services in &options.services {
        let size = Size { services: *services, endpoints: options.endpoints };
        let row = review::measure(size, options.repeat, &mut progress)?;
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            print!("{}", row.table());
        }
    }
    Ok(())
}

struct Bench {
    repeat: u32,
    mode: Mode,
    node_binary: Option<PathBuf>,
    progress: Progress,
}

impl Bench {
    fn run(&mut self, what: &str, size: Size) -> Result<Row> {
        let title = format!("{what} {} x {}", size.services, size.endpoints);
        match what {
            "compile" => self.compile(&title, size),
            "wire" => {
                self.progress.step(&title);
                wire::run(size, self.mode, self.repeat)
            }
            _ => self.apply(&title, size),
        }
    }

    fn compile(&mut self, title: &str, size: Size) -> Result<Row> {
        let mut samples = Vec::new();
        for n in 1..=self.repeat {
            self.progress.step(&format!("{title}: {n} of {}", self.repeat));
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("compile-once").arg(size.services.to_string()).arg(size.endpoints.to_string());
            command.arg(self.mode.to_string());
            let output = command.stderr(Stdio::inherit()).output()?;
            ensure!(output.status.success(), "{title}: {}", output.status);
            samples.push(serde_json::from_slice(&output.stdout).context("the output of compile-once")?);
        }
        Ok(compile::summarize(size, self.mode, &samples))
    }

    fn apply(&mut self, title: &str, size: Size) -> Result<Row> {
        let program = apply::check()?;
        self.progress.step(&format!("{title}: preparing"));
        let mut prepared = Prepared::new(size, self.mode)?;
        for n in 1..=self.repeat {
            self.progress.step(&format!("{title}: {n} of {}", self.repeat));
            prepared.repeat(&program)?;
            if let Some(binary) = &self.node_binary {
                self.progress.step(&format!("{title}: {n} of {}, node binary", self.repeat));
                prepared.repeat_node(binary)?;
            }
        }
        if self.mode != Mode::Nftables {
            self.progress.step(&format!("{title}: kube-proxy"));
            prepared.measure_peer()?;
        }
        Ok(prepared.summarize())
    }
}
