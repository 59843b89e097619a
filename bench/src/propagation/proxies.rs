//! The two proxies on one API server, each with the rights that its manifests give it, and with its own defaults.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rulecast_tests::http;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER};
use rulecast_tests::wait::wait_for;
use serde_json::{Value, json};

use super::NODE;
use crate::live::{Live, Protocol};
use crate::objects::CLUSTER_CIDR;
use crate::progress::Progress;

const KUBE_PROXY: &str = "kube-proxy";
/// kube-proxy takes half a minute for 10,000 Services on an idle machine.
const FULL_SYNC: Duration = Duration::from_mins(20);
const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";
/// rulecast's controller and applier take seconds.
const FULL_LOAD: Duration = Duration::from_mins(2);

/// Starts kube-proxy in nftables mode in a namespace and waits until it has written all rules.
pub(super) fn kube_proxy(live: &Live, namespace: &Namespace) -> Result<Process> {
    let account = format!("kube-system:{KUBE_PROXY}");
    live.kubectl(&["create", "serviceaccount", KUBE_PROXY, "-n", "kube-system"])?;
    let binding = ["create", "clusterrolebinding", "rulecast-bench:kube-proxy"];
    let role = ["--clusterrole", "system:node-proxier", "--serviceaccount", &account];
    live.kubectl(&[&binding[..], &role].concat())?;
    let token = ["create", "token", KUBE_PROXY, "-n", "kube-system", "--duration", "24h"];
    let kubeconfig = live.kubeconfig(KUBE_PROXY, live.kubectl(&token)?.trim())?;
    let config = live.dir().join("kube-proxy.json");
    let value = configuration(&kubeconfig.display().to_string(), &live.cluster().node_name(NODE));
    fs::write(&config, value.to_string())?;
    let program = rulecast_tests::control_plane::peers()?.join(KUBE_PROXY);
    let config = format!("--config={}", config.display());
    let mut process = Process::new(KUBE_PROXY, &program, &[&config], &live.dir().join("kube-proxy.log"));
    process.start(namespace)?;
    wait_for("kube-proxy's rules", FULL_SYNC, || {
        let (_, page) = http::get(namespace, SocketAddr::from(([127, 0, 0, 1], 10_249)), "/metrics")?;
        ensure!(http::metric(&page, LAST_SYNC)? > 0.0, "it has not written any");
        Ok(())
    })
    .with_context(|| process.log_tail())?;
    Ok(process)
}

/// kube-proxy's configuration: its defaults, but for what belongs to the whole machine and cannot be set in a namespace.
/// In particular minSyncPeriod (1 s), syncPeriod (30 s) and the content type (protobuf) are what they are anywhere.
fn configuration(kubeconfig: &str, node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": { "kubeconfig": kubeconfig }, "hostnameOverride": node, "clusterCIDR": CLUSTER_CIDR,
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// Starts the controller next to the API server and waits until it has published.
pub(crate) fn controller(live: &Live) -> Result<Process> {
    let mut process = live.controller()?;
    process.start(&live.hub)?;
    wait_for("the first bundle", FULL_LOAD, || {
        healthy(&live.hub, SocketAddr::from(([127, 0, 0, 1], 10_266)), "/readyz")
    })
    .with_context(|| process.log_tail())?;
    Ok(process)
}

/// Starts the applier in a namespace and waits until it has written all rules.
pub(crate) fn applier(live: &Live, namespace: &Namespace, progress: &mut Progress) -> Result<Process> {
    let token = live.run(async || {
        live.add_appliers(NODE..NODE + 1, progress).await?;
        let mut connection = live.api().connect(Protocol::Http1, live.admin()).await?;
        live.applier_token(&mut connection, NODE).await
    })?;
    let kubeconfig = live.kubeconfig(APPLIER, &token)?.display().to_string();
    let (state, node) = (live.dir().join("state").display().to_string(), live.cluster().node_name(NODE));
    let args = ["run", "--kubeconfig", &kubeconfig, "--state-dir", &state, "--hostname-override", &node];
    let log = live.dir().join("rulecast-node.log");
    let mut process = Process::new(APPLIER, &programs::folder()?.join(APPLIER), &args, &log);
    process.start(namespace)?;
    wait_for("rulecast's rules", FULL_LOAD, || {
        healthy(namespace, SocketAddr::from(([127, 0, 0, 1], 10_256)), "/healthz")
    })
    .with_context(|| process.log_tail())?;
    Ok(process)
}

fn healthy(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<()> {
    let (code, body) = http::get(namespace, address, path)?;
    ensure!(code == 200, "{path}: {code} {body}");
    Ok(())
}
