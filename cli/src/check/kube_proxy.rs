//! The proxy that rulecast takes the place of.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};

use super::Section;
use crate::cluster::{Cluster, Problem, Request, Verb};
use crate::fleet::{Fleet, NodeState, rows};

/// Where kubeadm, and most others, install it.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-proxy";
const LABEL: &str = "k8s-app=kube-proxy";

/// Before an installation: whether it runs, and how.
pub(super) async fn before(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("kube-proxy");
    let found = cluster.find_namespaced::<DaemonSet>(NAMESPACE, NAME).await;
    let Some(found) = section.take("DaemonSet kube-proxy", found)? else { return Ok(section) };
    let Some(found) = found else {
        section.note(
            "there is no DaemonSet kube-proxy in kube-system: it runs in another way, or another proxy is in its place",
        );
        return Ok(section);
    };
    let nodes = found.status.as_ref().map_or(0, |status| status.number_ready);
    let config = cluster.find_namespaced::<ConfigMap>(NAMESPACE, NAME).await;
    let config = section.take("ConfigMap kube-proxy", config)?.flatten();
    let mode = flag(&found).or_else(|| config.as_ref().and_then(configured));
    let mode = match mode.as_deref() {
        None | Some("") => "iptables, its default".to_owned(),
        Some(mode) => mode.to_owned(),
    };
    section.good(format!("kube-proxy runs on {nodes} nodes, mode {mode}"));
    section.advise(
        "its configuration can be carried over",
        "kubectl get configmap kube-proxy -n kube-system -o yaml | kubectl-rulecast import kube-proxy-config -",
    );
    Ok(section)
}

/// The mode that its command line asks for, which comes before the file's.
fn flag(set: &DaemonSet) -> Option<String> {
    let pod = set.spec.template.spec.as_ref()?;
    let mut words =
        pod.containers.iter().flat_map(|c| c.command.iter().flatten().chain(c.args.iter().flatten()));
    let word = words.find_map(|word| word.strip_prefix("--proxy-mode="))?;
    Some(word.to_owned())
}

/// The mode in its file.
fn configured(map: &ConfigMap) -> Option<String> {
    let text = map.data.as_ref()?.get("config.conf")?;
    let config: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    Some(config.get("mode")?.as_str().unwrap_or_default().to_owned())
}

/// Beside appliers: both would write rules for the same Services.
pub(super) async fn beside(cluster: &Cluster, fleet: &Fleet) -> Result<Section, Problem> {
    let mut section = Section::new("kube-proxy");
    let api: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let request = Request::of::<Pod>(Verb::List).within(NAMESPACE);
    let pods = cluster.list_in(&api, &request, ListParams::default().labels(LABEL)).await;
    let Some(pods) = section.take("pods of kube-proxy", pods)? else { return Ok(section) };
    let running = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let running: BTreeSet<&str> = running.filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
    let ours = rows(fleet, None).into_iter().filter(|row| row.sequence > 0 && row.state != NodeState::Gone);
    let both: Vec<String> = ours.map(|row| row.node).filter(|node| running.contains(node.as_str())).collect();
    if both.is_empty() {
        section.good("no node runs both kube-proxy and rulecast's rules");
    } else {
        let some = both.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if both.len() > 5 { ", ..." } else { "" };
        section.bad(
            format!("kube-proxy still runs on {} nodes that have rulecast's rules: {some}{more}", both.len()),
            "keep it off these nodes with a nodeSelector or affinity in its DaemonSet, then once on each: kube-proxy \
             --cleanup",
        );
    }
    Ok(section)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_mode_is_in_the_file_or_on_the_command_line() {
        let map = |text: &str| {
            let map: ConfigMap = serde_json::from_value(json!({ "data": { "config.conf": text } })).unwrap();
            configured(&map)
        };
        assert_eq!(map("kind: KubeProxyConfiguration\nmode: ipvs\n").as_deref(), Some("ipvs"));
        assert_eq!(map("mode: \"\"\n").as_deref(), Some(""));
        assert_eq!(map("a: b\n"), None);
        let set: DaemonSet = serde_json::from_value(json!({ "metadata": {}, "spec": { "selector": {}, "template": {
            "spec": { "containers": [{ "name": "a", "command": ["kube-proxy", "--proxy-mode=nftables"] }] } } } }))
        .unwrap();
        assert_eq!(flag(&set).as_deref(), Some("nftables"));
    }
}
