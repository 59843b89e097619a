//! Puts the parts together as the command line asks.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::CommandFactory as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{Cli, Command, LogFormat, RunArgs};
use crate::http::{self, Readiness};
use crate::leadership::Election;
use crate::metrics::Metrics;
use crate::run::{Controller, RunOptions, Summary};
use crate::sink::{ClusterSink, DirectorySink, Sink};
use crate::source::{self, ClusterOptions, ClusterSource, DirectorySource};
use crate::status::{ClusterStatus, NoStatus, StatusWriter};
use crate::world::World;

/// What `--strict` makes of objects that cannot be used.
const QUARANTINED: u8 = 2;

/// Does what the command line says.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rulecast-controller", &mut script);
            // A reader that closes the pipe early is no failure.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(args) => {
            log(&args);
            // One worker is for the loop while it compiles; health, watches and writes go on with the others.
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(3).enable_all().build()?.block_on(start(*args))
        }
    }
}

fn log(args: &RunArgs) {
    let level = tracing::Level::from(args.log_level);
    // The client warns of every connection that ends, and we of every watch that breaks: once is enough.
    let foreign = if level >= tracing::Level::DEBUG { level } else { tracing::Level::ERROR };
    let filter = Targets::new().with_default(foreign).with_target("rulecast", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(colours).with_target(false)).init();
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

async fn start(args: RunArgs) -> anyhow::Result<ExitCode> {
    let metrics = Arc::new(Metrics::new());
    let readiness = Readiness::default();
    if !args.once {
        let listener = TcpListener::bind(args.bind).await;
        let listener = listener.with_context(|| format!("--bind {}: cannot listen there", args.bind))?;
        tracing::info!(address = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
        tokio::spawn(http::serve(listener, http::routes(readiness.clone(), Arc::clone(&metrics))));
    }
    let cluster = if args.manifests.is_none() || args.output.is_none() {
        let options = ClusterOptions { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() };
        Some(source::connect(&options).await.context(
            "no connection to a cluster (without one, give both --manifests DIR and --output DIR)",
        )?)
    } else {
        None
    };
    let world = World::default().with_pools(args.pools.clone());
    let parts = Parts { metrics, readiness };
    let summary = match (&args.output, cluster.clone()) {
        (Some(output), _) => {
            let sink = DirectorySink::lock(output).context("--output")?;
            parts.run(&args, world, sink, NoStatus, cluster).await?
        }
        (None, Some(client)) => {
            let sink = ClusterSink::new(client.clone());
            if args.manifests.is_some() {
                // The pools are the manifests'; the cluster need not have them.
                parts.run(&args, world, sink, NoStatus, cluster).await?
            } else {
                parts.run(&args, world, sink, ClusterStatus::new(client, identity(&args)), cluster).await?
            }
        }
        (None, None) => unreachable!("without an output there is a cluster"),
    };
    Ok(conclude(&args, &summary))
}

struct Parts {
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl Parts {
    async fn run<S: Sink, W: StatusWriter>(
        self,
        args: &RunArgs,
        mut world: World,
        sink: S,
        status: W,
        cluster: Option<kube::Client>,
    ) -> anyhow::Result<Summary> {
        let elector = cluster.clone();
        let events = match (&args.manifests, cluster) {
            (Some(manifests), _) => {
                world = world.with_default_pool();
                source::start(DirectorySource::new(manifests).context("--manifests")?)
            }
            (None, Some(client)) => source::start(ClusterSource::new(client, Arc::clone(&self.metrics))),
            (None, None) => unreachable!("without manifests there is a cluster"),
        };
        let options = RunOptions {
            once: args.once,
            publish_interval: args.publish_interval,
            allow_shrink: args.allow_shrink,
            keep_chunks: args.keep_chunks,
            ..RunOptions::default()
        };
        let mut controller = Controller::new(world, sink, status, self.metrics, self.readiness, options);
        let mut election = None;
        let alone = args.once || args.output.is_some();
        if let (false, Some(namespace), Some(client)) = (alone, &args.lease_namespace, elector) {
            let (leadership, running) = Election::start(client, namespace, &identity(args));
            controller = controller.with_leadership(leadership);
            election = Some(running);
        }
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: finishing what is being published"),
                _ = interrupt.recv() => tracing::info!("SIGINT: finishing what is being published"),
            }
        };
        let summary = controller.run(events, stop).await;
        if let Some(election) = election {
            election.end().await;
        }
        Ok(summary?)
    }
}

/// By what others know this process.
fn identity(args: &RunArgs) -> String {
    args.identity.clone().unwrap_or_else(|| format!("pid-{}", std::process::id()))
}

fn conclude(args: &RunArgs, summary: &Summary) -> ExitCode {
    if args.once {
        for (pool, published) in &summary.pools {
            let head = &published.head;
            tracing::info!(pool, sequence = head.sequence, digest = head.digest, "in force");
        }
        if summary.pools.is_empty() {
            tracing::warn!("there is no RulePool, so nothing is published");
        }
        for problem in &summary.quarantined {
            tracing::error!(problem, "not used");
        }
        if args.strict && !summary.quarantined.is_empty() {
            return ExitCode::from(QUARANTINED);
        }
    }
    ExitCode::SUCCESS
}
