//! A cluster in which one node changes hands. The other one stays with rulecast.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::{Cluster, Head, Service};
use rulecast_tests::namespace::{self, Namespace};
use rulecast_tests::network::{Network, Node};
use rulecast_tests::objects::{NAMESPACE, ready, service};
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER};
use rulecast_tests::serve::KEEP;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::rules;

/// The endpoints of most Services. `a3` and `b3` are clients.
pub(crate) const ENDPOINTS: &[&str] = &["a1", "a2", "b1", "b2"];
/// Those of them that are on the node.
pub(crate) const LOCAL: &[&str] = &["a1", "a2"];
/// A pool's mode.
pub(crate) const NFTABLES: &str = "nftables";
/// Another one.
pub(crate) const IPTABLES: &str = "iptables";
/// A load balancer's address.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The Services.
pub(crate) struct Services {
    /// A nodePort, policy Cluster.
    pub(crate) web: Service,
    /// A load balancer with policy Local, and so with a health check port.
    pub(crate) local: Service,
    /// A nodePort whose endpoints keep connections.
    pub(crate) keep: Service,
    /// With session affinity.
    pub(crate) sticky: Service,
    /// A nodePort whose endpoints change.
    pub(crate) moving: Service,
}

/// The cluster, and what runs on its first node.
pub(crate) struct Site {
    /// The cluster. Its first applier does not run.
    pub(crate) cluster: Cluster,
    /// The first node's applier; none: none was ever started.
    pub(crate) applier: Option<Process>,
    /// The first node's kube-proxy; none: none was ever started.
    pub(crate) kube_proxy: Option<Process>,
    /// The Services.
    pub(crate) services: Services,
}

impl Site {
    pub(crate) fn start() -> anyhow::Result<Self> {
        namespace::require(&["iptables-legacy", "iptables-nft", "ipset", "conntrack"])?;
        let mut cluster = Cluster::start("rc-move", 3)?;
        let services = services(&cluster)?;
        cluster.wait_until_in_force()?;
        cluster.appliers[0].terminate()?;
        let site = Self { cluster, applier: None, kube_proxy: None, services };
        site.clean_up_rulecast()?;
        Ok(site)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.cluster.network
    }

    pub(crate) fn node(&self) -> &Node {
        &self.network().nodes[0]
    }

    /// The namespace of the node that changes hands.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.node().namespace
    }

    /// A node on which nothing of any proxy is left, and nothing runs.
    pub(crate) fn empty(&mut self) -> anyhow::Result<()> {
        for mut process in self.applier.take().into_iter().chain(self.kube_proxy.take()) {
            if process.is_running()? {
                process.terminate()?;
            }
        }
        rules::flush(self.namespace())?;
        let state = self.cluster.dir().join("moved-state");
        if state.exists() {
            std::fs::remove_dir_all(state)?;
        }
        Ok(())
    }

    /// Starts the applier of this pool on the node, and waits until it reports what is published.
    pub(crate) fn start_applier(&mut self, pool: &str) -> anyhow::Result<()> {
        let mut applier = self.new_applier(pool)?;
        applier.start(self.namespace())?;
        self.applier = Some(applier);
        self.wait_until_in_force(pool).map(drop)
    }

    /// The applier of this pool, which does not run yet.
    pub(crate) fn new_applier(&self, pool: &str) -> anyhow::Result<Process> {
        let path = |name: &str| self.cluster.dir().join(name);
        let (config, state) = (path("node-a.kubeconfig"), path("moved-state"));
        let (config, state) = (config.display().to_string(), state.display().to_string());
        let args = ["run", "--pool", pool, "--kubeconfig", &config, "--state-dir", &state];
        let args =
            [&args[..], &["--hostname-override", &self.node().name, "--report-interval", "1"]].concat();
        let (name, log) = (format!("the applier of {pool}"), path(&format!("moved-{pool}.log")));
        // The same lock as kube-proxy's.
        let lock = format!("XTABLES_LOCKFILE={}", path("xtables.lock").display());
        let program = programs::folder()?.join(APPLIER).display().to_string();
        let args = [&[lock.as_str(), &program], &args[..]].concat();
        Ok(Process::new(&name, Path::new("/usr/bin/env"), &args, &log))
    }

    /// Waits until the node reports just what is published for this pool, and no problem.
    pub(crate) fn wait_until_in_force(&self, pool: &str) -> anyhow::Result<Head> {
        wait_for(&format!("the node to run what the pool {pool} has published"), PATIENCE, || {
            let head = self.cluster.head_of(pool)?;
            let status = self.cluster.node_status(&self.node().name)?;
            let same = status["pool"] == pool
                && status["sequence"] == head.sequence
                && status["digest"] == head.digest.as_str();
            ensure!(same && status.get("error").is_none(), "{head:?}: {status}");
            Ok(head)
        })
    }

    /// The health check port of the Service with policy Local.
    pub(crate) fn health_port(&self) -> anyhow::Result<u16> {
        let object = self.cluster.get(&format!("/api/v1/namespaces/{NAMESPACE}/services/local"))?;
        let port = object["spec"]["healthCheckNodePort"].as_u64();
        Ok(port.context("a healthCheckNodePort")?.try_into()?)
    }

    /// Stops the applier; its rules stay.
    pub(crate) fn stop_applier(&mut self) -> anyhow::Result<()> {
        let status = self.applier.as_mut().context("no applier runs")?.terminate()?;
        ensure!(status.success(), "the applier ended: {status}");
        Ok(())
    }

    /// `rulecast-node cleanup`.
    pub(crate) fn clean_up_rulecast(&self) -> anyhow::Result<()> {
        self.rulecast_node(&["cleanup"]).map(drop)
    }

    /// `rulecast-node ARGS` on the node; it must succeed.
    pub(crate) fn rulecast_node(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = programs::folder()?.join(APPLIER);
        let output = self.namespace().run(|| Command::new(program).args(args).output())??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "rulecast-node {}: {}\n{out}{err}", args.join(" "), output.status);
        Ok(out)
    }

    /// `rulecast-node verify`: the kernel holds what the applier wrote.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        let state = self.cluster.dir().join("moved-state").display().to_string();
        self.rulecast_node(&["verify", "--state-dir", &state]).map(drop)
    }

    pub(crate) fn print_logs(&self) {
        for process in self.applier.iter().chain(&self.kube_proxy) {
            println!("{}", process.log_tail());
        }
        println!("{}", self.cluster.controller.log_tail());
    }
}

fn services(cluster: &Cluster) -> anyhow::Result<Services> {
    let endpoints: Vec<_> = ENDPOINTS.iter().map(|pod| ready(pod)).collect();
    let make = |name: &str, kind: &str, more, port| {
        let made = cluster.set_service(&service(name, kind, &more))?;
        cluster.set_endpoints(name, port, &endpoints)?;
        anyhow::Ok(made)
    };
    let web = make("web", "NodePort", json!({}), 8080)?;
    let local = make("local", "LoadBalancer", json!({ "externalTrafficPolicy": "Local" }), 8080)?;
    cluster.set_ingress("local", &[VIP.into()])?;
    let keep = make("keep", "NodePort", json!({}), KEEP)?;
    let sticky = make("sticky", "ClusterIP", json!({ "sessionAffinity": "ClientIP" }), 8080)?;
    let moving = make("moving", "NodePort", json!({}), 8080)?;
    Ok(Services { web, local, keep, sticky, moving })
}
