//! `make cluster`: a small cluster on this machine, to look at and to play with.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use lexopt::prelude::*;
use rulecast_tests::cluster::{Cluster, Service};
use rulecast_tests::namespace::Namespace;
use rulecast_tests::objects::{NAMESPACE, ready, service, unready};
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::wait::wait_for_eq;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
rulecast-cluster: a small cluster on this machine, in network namespaces of its own

A real etcd and kube-apiserver, the controller, two nodes with an applier and three pods each, a client outside, and a
Service `web`. It says what to try, runs until Ctrl-C, and leaves nothing behind.

USAGE
  rulecast-cluster [--check]        needs root

OPTIONS
  --check       test the traffic to the Service, and exit: 0 if all is well

The first start builds etcd, kube-apiserver and kubectl (needs Go, some minutes); they are kept for the next.
";
/// Beginning of the namespaces' names.
const PREFIX: &str = "rc-cluster";
const NODE_PORT: u16 = 30_080;
const LOAD_BALANCER_IP: &str = "203.0.113.10";

fn main() -> ExitCode {
    let check = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(check)) => check,
        Ok(None) => {
            say(HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("rulecast-cluster: {error}\nTry 'rulecast-cluster --help'.");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rulecast-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether it is to check itself; none: help is wanted.
fn arguments(args: impl Iterator<Item = OsString>) -> Result<Option<bool>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut check = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("check") => check = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(check))
}

fn run(check: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // From here on a signal ends nothing by itself: what is started is stopped in order.
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    say("starting etcd, kube-apiserver, the controller and two appliers...");
    let cluster = Cluster::start(PREFIX, 3)?;
    let web = set_up(&cluster)?;
    if check {
        let result = test(&cluster, &web);
        if result.is_err() {
            cluster.print_logs();
        }
        result?;
        say("the cluster works: endpoints, nodePort, load balancer, IPv6 and repair");
    } else {
        explain(&cluster, &web)?;
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        say("\nstopping...");
    }
    drop(cluster);
    Ok(())
}

fn set_up(cluster: &Cluster) -> anyhow::Result<Service> {
    let ports = json!([
        { "name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT },
        { "name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080 },
    ]);
    let web = cluster.set_service(&service("web", "LoadBalancer", &json!({ "ports": ports })))?;
    cluster.set_ingress("web", &[LOAD_BALANCER_IP.parse()?])?;
    cluster.set_endpoints("web", 8080, &["a1", "a2", "b1", "b2"].map(ready))?;
    let from = &cluster.network.pod("a3").namespace;
    answered(from, web.cluster[0], &["a1", "a2", "b1", "b2"])?;
    cluster.wait_until_in_force()?;
    Ok(web)
}

fn answered(from: &Namespace, to: SocketAddr, pods: &[&str]) -> anyhow::Result<()> {
    let wanted = pods.iter().map(|pod| (*pod).to_owned()).collect();
    wait_for_eq(&format!("{pods:?} at {to}"), &wanted, || probe::pods(from, Proto::Tcp, to, 40))
}

fn test(cluster: &Cluster, web: &Service) -> anyhow::Result<()> {
    let all = ["a1", "a2", "b1", "b2"];
    let network = &cluster.network;
    let outside = &network.client.namespace;
    for pod in ["a3", "b3"] {
        for to in web.cluster {
            answered(&network.pod(pod).namespace, to, &all)?;
        }
    }
    for node in &network.nodes {
        answered(outside, SocketAddr::new(node.v4, NODE_PORT), &all)?;
    }
    answered(outside, format!("{LOAD_BALANCER_IP}:80").parse()?, &all)?;
    cluster.set_endpoints("web", 8080, &[ready("a1"), unready("b1")])?;
    answered(outside, SocketAddr::new(network.nodes[1].v4, NODE_PORT), &["a1"])?;
    rulecast_tests::nft::nft(&network.nodes[0].namespace, &["flush", "ruleset"])?;
    answered(&network.pod("a3").namespace, web.cluster[0], &["a1"])?;
    let head = cluster.wait_until_in_force()?;
    ensure!(head.sequence > 1, "{head:?}");
    Ok(())
}

/// Writes small programs that do the typing, and says what to do with them.
fn explain(cluster: &Cluster, web: &Service) -> anyhow::Result<()> {
    let network = &cluster.network;
    let (dir, hub) = (cluster.dir(), network.hub.name());
    let kubeconfig = cluster.control_plane.kubeconfig().display().to_string();
    let kubectl = cluster.kubectl_program().display();
    let cache = dir.join("kubectl-cache").display().to_string();
    let prefix = hub.strip_suffix("-hub").context("the name of the switch's namespace")?;
    // Sudo does not hand variables on, so they are set on its other side.
    let scripts = [
        (
            "kubectl",
            format!(
                "exec sudo ip netns exec {hub} env KUBECONFIG={kubeconfig} KUBECACHEDIR={cache} {kubectl} \"$@\""
            ),
        ),
        ("on", format!("where=$1; shift\nexec sudo ip netns exec \"{prefix}-$where\" \"$@\"")),
    ];
    let mut paths = Vec::new();
    for (name, line) in scripts {
        let path = dir.join(name);
        // As administrator one needs no sudo, and may not have it.
        let text = format!("#!/bin/sh\nif [ \"$(id -u)\" = 0 ]; then sudo() {{ \"$@\"; }}; fi\n{line}\n");
        fs::write(&path, text.replace("exec sudo", "sudo"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        paths.push(path.display().to_string());
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    let [k, on] = paths.try_into().expect("two paths");
    let (ip, node) = (web.cluster[0], network.nodes[1].v4);
    say(&format!(
        "
The cluster runs. Its API server listens inside of the cluster's own network, so kubectl runs there, too:
  kubeconfig   {kubeconfig}
  kubectl      {k}
  on PLACE CMD {on}     PLACE: hub, client, node-a, node-b, pod-a1 to pod-a3, pod-b1 to pod-b3
  logs         {logs}

Try, in another terminal:
  k={k}; on={on}
  $k get rulepools,rulebundles,rulenodes           what is published, and what each node runs
  $on pod-a3 curl -s {ip}             a pod asks the Service: name, port, and who asks
  $on pod-a3 curl -s 'http://{ip6}'
  $on client curl -s {node}:{NODE_PORT}           from outside, through a nodePort
  $on client curl -s {LOAD_BALANCER_IP}                  and through a load balancer's address
  $on node-a nft list map ip rulecast service-ips  the rules, for people

Take an endpoint away and watch it go:
  $on node-a nft monitor &
  $k -n {NAMESPACE} patch endpointslice web-v4 --type=json -p '[{{\"op\": \"remove\", \"path\": \"/endpoints/0\"}}]'
Remove all rules, as an accident would, and look again:
  $on node-a nft flush ruleset; sleep 2; $on pod-a3 curl -s {ip}

Ctrl-C stops it and removes everything.",
        logs = dir.join("*.log").display(),
        ip6 = web.cluster[1],
    ));
    Ok(())
}

fn say(text: &str) {
    // A closed pipe is the reader's choice.
    let mut out = std::io::stdout();
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}
