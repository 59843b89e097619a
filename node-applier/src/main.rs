//! The node applier.

use std::process::ExitCode;

use anyhow::Context as _;
use rulecast_bundle::Mode;
use rulecast_connect::ClusterOptions;
use rulecast_netlink::{AddressMonitor, Conntrack};
use rulecast_node::applier::Applier;
use rulecast_node::backend::BackendError;
use rulecast_node::control::Request;
use rulecast_node::flows::FlowTable;
use rulecast_node::health_checks::HealthChecks;
use rulecast_node::http::Pages;
use rulecast_node::modes::Modes;
use rulecast_node::only::Only;
use rulecast_node::run::{Edges, Local, Runner};
use rulecast_node::source::Source;
use rulecast_node::source::cluster::Cluster;
use rulecast_node::source::directory::Directory;
use rulecast_node::status::Shared;
use rulecast_node::store::Store;
use rulecast_node::{control, http, memory, modes, report};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

mod args;
mod ask;

use args::{Command, Options};

/// As sysexits' "permission denied".
const NO_PERMISSION: u8 = 77;

fn main() -> ExitCode {
    let command = match args::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("rulecast-node: {error}\nTry 'rulecast-node --help'.");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => return print(args::HELP),
        Command::Version => return print(concat!("rulecast-node ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Cleanup => Modes::new(modes::open).clean_up().map_err(anyhow::Error::from),
        Command::Run(options) => run(*options),
        Command::Ask(question, options) => return ask::run(question, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rulecast-node: {error:#}");
            let permission = matches!(
                error.downcast_ref(),
                Some(BackendError::Netlink(rulecast_netlink::Error::Permission))
            );
            if permission {
                eprintln!(
                    "Run it as root, or give the container the capability NET_ADMIN on the host network."
                );
                return ExitCode::from(NO_PERMISSION);
            }
            ExitCode::FAILURE
        }
    }
}

/// A closed pipe is the reader's choice.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    let _closed = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn run(options: Options) -> anyhow::Result<()> {
    memory::settle();
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(options.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
    // One thread: the work is one watch and small transactions, and memory is what the node has least of.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(start(options))
}

async fn start(options: Options) -> anyhow::Result<()> {
    let node = node_name(options.node.clone())?;
    // The mode comes with the bundle; that nothing can be written in any is better said at once.
    if let Err(error) = modes::open(Mode::Nftables)
        && matches!(error, BackendError::Netlink(rulecast_netlink::Error::Permission))
    {
        return Err(error.into());
    }
    let _only = if options.once {
        Only::try_take()?.context("another applier serves this node already: stop it first")?
    } else {
        Only::take().await?
    };
    let backend = Modes::new(modes::open);
    let store = match Store::open(&options.state_dir, &options.pool) {
        Ok(store) => Some(store.unless_superseded(&options.state_dir, &options.pool)),
        Err(error) => {
            warn!(%error, "nothing can be kept on disk: after a restart this node waits for its source; see --state-dir");
            None
        }
    };
    let applier = Applier::new(&node, &options.pool, backend, store);
    info!(node, pool = options.pool, version = env!("CARGO_PKG_VERSION"), "starting");
    let shared = Shared::default();
    let mut local = Local::new(applier, shared.clone()).with_edges(edges(&shared, options.once));
    // Before anything that may fail for want of a network: a node serves from disk whatever else is wrong.
    local.restore();
    for (pages, addr) in [(Pages::Health, options.healthz), (Pages::Metrics, options.metrics)] {
        if let Some(addr) = addr {
            http::open(pages, addr, shared.clone(), options.hard_fail).await?;
        }
    }
    let asked = listen(&options);
    if let Some(dir) = &options.bundle_dir {
        let source = Directory::new(dir, &options.pool);
        return follow(local, source, asked, options.once).await;
    }
    let _already = rustls::crypto::ring::default_provider().install_default();
    let cluster = ClusterOptions { kubeconfig: options.kubeconfig, context: None };
    let client = rulecast_connect::connect(&cluster).await.context(
        "no API server: give --kubeconfig, or --bundle-dir to follow a directory, or run in a pod",
    )?;
    let source = Cluster::new(&client, &options.pool);
    let report = report::run(client, node, options.pool, options.report_interval, shared.clone());
    tokio::spawn(report);
    follow(local, source, asked, options.once).await
}

/// Lets others ask on this node.
fn listen(options: &Options) -> Option<mpsc::Receiver<Request>> {
    if options.once {
        return None;
    }
    let (requests, asked) = control::channel();
    match control::serve(&options.state_dir, requests) {
        Ok(()) => Some(asked),
        Err(error) => {
            let socket = options.state_dir.join(control::SOCKET);
            warn!(%error, "{} cannot be served: nobody can ask this applier on its node", socket.display());
            None
        }
    }
}

async fn follow(
    local: Local<Modes>,
    source: impl Source,
    asked: Option<mpsc::Receiver<Request>>,
    once: bool,
) -> anyhow::Result<()> {
    let mut runner = Runner::new(local, source);
    if once {
        return runner.run_once().await;
    }
    if let Some(asked) = asked {
        runner = runner.with_asked(asked);
    }
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    runner
        .run(async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        })
        .await;
    info!("stopping; the rules stay in force");
    Ok(())
}

fn edges(shared: &Shared, once: bool) -> Edges {
    let table: Option<Box<dyn FlowTable>> = match Conntrack::open() {
        Ok(table) => Some(Box::new(table)),
        Err(error) => {
            warn!(%error, "UDP flows stay with endpoints that are gone until they are quiet");
            None
        }
    };
    // A program that ends after one version serves nobody.
    let health_checks = (!once).then(|| HealthChecks::new(shared.clone()));
    Edges::new(table, AddressMonitor::open().ok(), health_checks)
}

fn node_name(option: Option<String>) -> anyhow::Result<String> {
    let name = option.or_else(|| std::env::var("NODE_NAME").ok()).filter(|n| !n.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|n| n.trim().to_lowercase());
    name.map_or_else(host, Ok).context("this node's name is unknown: give --hostname-override")
}
