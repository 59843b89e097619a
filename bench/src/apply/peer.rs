//! The same objects through the real kube-proxy in iptables mode, with the legacy tools: its own figures of a full sync, and of
//! one after a change of one endpoint.

use std::time::Duration;

use anyhow::{Result, ensure};
use rulecast_tests::wait::wait_for;
use rulecast_tests::{http, namespace};

use crate::cluster::{Cluster, Size};
use crate::connect::proxies::kube_proxy_in;
use crate::objects;

/// Changes that are timed.
const CHANGES: u32 = 5;
/// How long one may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// Beginning of the namespaces' names.
const PREFIX: &str = "rc-bench-peer";
const FULL: &str = "kubeproxy_sync_full_proxy_rules_duration_seconds";
const PARTIAL: &str = "kubeproxy_sync_partial_proxy_rules_duration_seconds";

/// What kube-proxy took, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// The first sync, in which everything is written.
    pub(super) full_ms: f64,
    /// Those after one endpoint was replaced.
    pub(super) change_ms: Vec<f64>,
}

/// Times and number of a kind of sync, of IPv4.
fn syncs(page: &str, name: &str) -> Result<(f64, f64)> {
    let of = |end: &str| http::metric(page, &format!("{name}_{end}{{ip_family=\"IPv4\"}}"));
    Ok((of("sum")? * 1e3, of("count")?))
}

/// Runs kube-proxy once.
pub(super) fn measure(size: Size) -> Result<Peer> {
    namespace::require(&["ip", "iptables"])?;
    namespace::remove_leftovers(PREFIX)?;
    let cluster = Cluster::new(size)?;
    let dir = tempfile::tempdir()?;
    let prefix = format!("{PREFIX}-{}", std::process::id());
    let proxy = kube_proxy_in("iptables", &cluster, size, &prefix, dir.path())?;
    let (all, count) = syncs(&proxy.metrics()?, FULL)?;
    ensure!(count > 0.0, "kube-proxy made no full sync");
    let mut peer = Peer { full_ms: all / count, change_ms: Vec::new() };
    for number in 0..CHANGES {
        let (before, syncs_before) = syncs(&proxy.metrics()?, PARTIAL).unwrap_or_default();
        let service = cluster.scattered_service(number);
        let mut slice = objects::served(objects::slices(&cluster, service).swap_remove(0));
        slice["metadata"]["resourceVersion"] = (number + 2).to_string().into();
        slice["endpoints"][0]["addresses"][0] = format!("10.255.255.{}", number + 1).into();
        proxy.change(&slice)?;
        let mut took = 0.0;
        wait_for("kube-proxy's sync", PATIENCE, || {
            let (now, syncs) = syncs(&proxy.metrics()?, PARTIAL)?;
            ensure!(syncs > syncs_before, "there was none");
            took = (now - before) / (syncs - syncs_before);
            Ok(())
        })?;
        peer.change_ms.push(took);
    }
    Ok(peer)
}
