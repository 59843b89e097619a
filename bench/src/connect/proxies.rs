//! The two proxies, each on its own node, fed with the same objects.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rulecast_tests::http;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use rulecast_tests::wait::wait_for;
use serde_json::{Value, json};

use super::path::Path;
use super::{api_server, trace};
use crate::cluster::{Cluster, POOL, Size};
use crate::objects::{self, CLUSTER_CIDR, served};

/// kube-proxy takes half a minute for 10,000 Services on an idle machine.
const FULL_SYNC: Duration = Duration::from_mins(20);
const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";

/// A proxy at work on its path.
pub(super) struct Side {
    /// Its name.
    pub(super) name: &'static str,
    /// What its packets pass.
    pub(super) path: Path,
    /// The table with its rules.
    pub(super) table: trace::Table,
    /// Ends before the namespaces do.
    _process: Process,
}

/// All objects of a cluster.
struct Objects {
    services: Vec<Value>,
    slices: Vec<Value>,
    node: Value,
}

impl Objects {
    fn new(cluster: &Cluster, size: Size) -> Self {
        Self {
            services: (0..size.services).map(|n| served(objects::service(cluster, n))).collect(),
            slices: (0..size.services).flat_map(|n| objects::slices(cluster, n)).map(served).collect(),
            node: served(objects::node(cluster, 0)),
        }
    }
}

/// Starts kube-proxy in nftables mode and waits until it has written all rules.
pub(super) fn kube_proxy(cluster: &Cluster, size: Size, prefix: &str, dir: &FilePath) -> Result<Side> {
    let program = rulecast_tests::control_plane::peers()?.join("kube-proxy");
    let path = Path::new(&format!("{prefix}-kube-proxy"), cluster)?;
    let Objects { services, slices, node } = Objects::new(cluster, size);
    let server = api_server::serve(
        &path.node,
        [
            ("/api/v1/services", services),
            ("/apis/discovery.k8s.io/v1/endpointslices", slices),
            ("/api/v1/nodes", vec![node]),
            ("/apis/networking.k8s.io/v1/servicecidrs", vec![served(objects::service_cidr())]),
        ],
    )?;
    let kubeconfig = dir.join("kubeconfig");
    let config = dir.join("kube-proxy.json");
    let context = json!([{ "name": "c", "context": { "cluster": "c", "user": "u" } }]);
    let value = json!({
        "apiVersion": "v1", "kind": "Config", "contexts": context, "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{server}") } }],
        "users": [{ "name": "u", "user": {} }],
    });
    fs::write(&kubeconfig, value.to_string())?;
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": { "kubeconfig": kubeconfig, "contentType": "application/json" },
        "hostnameOverride": cluster.node_name(0), "clusterCIDR": CLUSTER_CIDR,
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    fs::write(&config, value.to_string())?;
    let config = format!("--config={}", config.display());
    let mut process = Process::new("kube-proxy", &program, &[&config], &dir.join("kube-proxy.log"));
    process.start(&path.node)?;
    wait_for("kube-proxy's rules", FULL_SYNC, || {
        // An end by itself is reported when time is up, which is soon enough for what never happens.
        let (_, page) = http::get(&path.node, SocketAddr::from(([127, 0, 0, 1], 10_249)), "/metrics")?;
        ensure!(http::metric(&page, LAST_SYNC)? > 0.0, "it has not written any");
        Ok(())
    })
    .inspect_err(|_| eprintln!("{}", process.log_tail()))?;
    let table = trace::Table { family: "ip", name: "kube-proxy" };
    Ok(Side { name: "kube-proxy", path, table, _process: process })
}

/// Compiles the objects with the real controller, starts the real applier and waits until the rules are in the kernel.
pub(super) fn rulecast(cluster: &Cluster, size: Size, prefix: &str, dir: &FilePath) -> Result<Side> {
    let path = Path::new(&format!("{prefix}-rulecast"), cluster)?;
    let [manifests, bundles, state] = ["manifests", "bundles", "state"].map(|name| dir.join(name));
    for folder in [&manifests, &bundles, &state] {
        fs::create_dir_all(folder)?;
    }
    let Objects { services, slices, node } = Objects::new(cluster, size);
    let items = [services, slices, vec![node, objects::service_cidr(), objects::pool()]].concat();
    let mut file = BufWriter::new(File::create(manifests.join("cluster.json"))?);
    serde_json::to_writer(&mut file, &json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
    file.flush()?;
    let programs = programs::folder()?;
    let output = Command::new(programs.join(CONTROLLER))
        .args(["run", "--once", "--strict", "--log-level", "warn"])
        .arg("--manifests")
        .arg(&manifests)
        .arg("--output")
        .arg(&bundles)
        .output()?;
    ensure!(output.status.success(), "{CONTROLLER}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let [bundles, state] = [bundles, state].map(|folder| folder.display().to_string());
    let name = cluster.node_name(0);
    let args = [
        "run",
        "--pool",
        POOL,
        "--hostname-override",
        &name,
        "--bundle-dir",
        &bundles,
        "--state-dir",
        &state,
    ];
    let mut process = Process::new(APPLIER, &programs.join(APPLIER), &args, &dir.join("rulecast-node.log"));
    process.start(&path.node)?;
    wait_for("rulecast's rules", Duration::from_mins(1), || {
        let (code, body) = http::get(&path.node, SocketAddr::from(([127, 0, 0, 1], 10_256)), "/healthz")?;
        ensure!(code == 200, "/healthz: {code} {body}");
        Ok(())
    })
    .inspect_err(|_| eprintln!("{}", process.log_tail()))
    .context("the applier")?;
    let table = trace::Table { family: "ip", name: "rulecast" };
    Ok(Side { name: "rulecast", path, table, _process: process })
}
