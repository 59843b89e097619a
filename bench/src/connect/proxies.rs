//! The two proxies, each on its own node, fed with the same objects.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
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

/// kube-proxy at work, with the objects that it was given.
pub(crate) struct KubeProxy {
    path: Path,
    process: Process,
    server: api_server::Server,
}

impl KubeProxy {
    /// What it says of itself.
    pub(crate) fn metrics(&self) -> Result<String> {
        let at = SocketAddr::from(([127, 0, 0, 1], 10_249));
        Ok(http::get(&self.path.node, at, "/metrics")?.1)
    }

    /// Tells it of an EndpointSlice that changed.
    pub(crate) fn change(&self, slice: &Value) -> Result<()> {
        let told = self.server.change(SLICES, slice)?;
        ensure!(told > 0, "kube-proxy does not watch EndpointSlices");
        Ok(())
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// Starts kube-proxy in nftables mode and waits until it has written all rules.
pub(super) fn kube_proxy(cluster: &Cluster, size: Size, prefix: &str, dir: &FilePath) -> Result<Side> {
    let KubeProxy { path, process, .. } = kube_proxy_in("nftables", cluster, size, prefix, dir)?;
    let table = trace::Table { family: "ip", name: "kube-proxy" };
    Ok(Side { name: "kube-proxy", path, table, _process: process })
}

/// Starts kube-proxy in a mode and waits until it has written all rules. In mode iptables it uses the legacy tools, which take a
/// fiftieth of the time for that many rules.
pub(crate) fn kube_proxy_in(
    mode: &str,
    cluster: &Cluster,
    size: Size,
    prefix: &str,
    dir: &FilePath,
) -> Result<KubeProxy> {
    let program = rulecast_tests::control_plane::peers()?.join("kube-proxy");
    let path = Path::new(&format!("{prefix}-kube-proxy"), cluster)?;
    let Objects { services, slices, node } = Objects::new(cluster, size);
    let server = api_server::serve(
        &path.node,
        [
            ("/api/v1/services", services),
            (SLICES, slices),
            ("/api/v1/nodes", vec![node]),
            ("/apis/networking.k8s.io/v1/servicecidrs", vec![served(objects::service_cidr())]),
        ],
    )?;
    let kubeconfig = dir.join("kubeconfig");
    let config = dir.join("kube-proxy.json");
    let context = json!([{ "name": "c", "context": { "cluster": "c", "user": "u" } }]);
    let value = json!({
        "apiVersion": "v1", "kind": "Config", "contexts": context, "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", server.address) } }],
        "users": [{ "name": "u", "user": {} }],
    });
    fs::write(&kubeconfig, value.to_string())?;
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
        "clientConnection": { "kubeconfig": kubeconfig, "contentType": "application/json" },
        "hostnameOverride": cluster.node_name(0), "clusterCIDR": CLUSTER_CIDR,
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    fs::write(&config, value.to_string())?;
    let config = format!("--config={}", config.display());
    let path_of_tools = format!("PATH={}:{}", legacy_tools(dir)?.display(), std::env::var("PATH")?);
    let args = [path_of_tools.as_str(), &program.display().to_string(), &config];
    let mut process =
        Process::new("kube-proxy", FilePath::new("/usr/bin/env"), &args, &dir.join("kube-proxy.log"));
    process.start(&path.node)?;
    wait_for("kube-proxy's rules", FULL_SYNC, || {
        // An end by itself is reported when time is up, which is soon enough for what never happens.
        let (_, page) = http::get(&path.node, SocketAddr::from(([127, 0, 0, 1], 10_249)), "/metrics")?;
        ensure!(http::metric(&page, LAST_SYNC)? > 0.0, "it has not written any");
        Ok(())
    })
    .inspect_err(|_| eprintln!("{}", process.log_tail()))?;
    Ok(KubeProxy { path, process, server })
}

/// A folder in which iptables' programs are those of the legacy variant.
fn legacy_tools(dir: &FilePath) -> Result<PathBuf> {
    let folder = dir.join("legacy");
    fs::create_dir_all(&folder)?;
    for program in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            let find = |folder: PathBuf| {
                let at = folder.join(format!("{program}-legacy{end}"));
                at.exists().then_some(at)
            };
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).find_map(find);
            let found = found.context("iptables' legacy variant is missing: install the package iptables")?;
            let link = folder.join(format!("{program}{end}"));
            if !link.exists() {
                std::os::unix::fs::symlink(found, link)?;
            }
        }
    }
    Ok(folder)
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
