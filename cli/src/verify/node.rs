//! One node's kernel, beside what its applier wrote: only the applier can look there, so it is asked in its pod.

use std::process::Command;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use crate::cluster::{Cluster, ClusterArgs, Request, Verb};
use crate::exit::Outcome;
use crate::output::write;

/// Where the manifests put the appliers, and how their pods are found.
const NAMESPACE: &str = "rulecast-system";
const LABEL: &str = "app.kubernetes.io/name=rulecast-node";
/// `rulecast-node verify`: the same, different.
const SAME: i32 = 0;
const DIFFERENT: i32 = 1;

/// Asks the applier of a node, and prints what it says.
pub(super) async fn verify(
    cluster: &Cluster,
    args: &ClusterArgs,
    node: &str,
    json: bool,
) -> anyhow::Result<Outcome> {
    let pod = pod_on(cluster, node).await?;
    let mut command = Command::new("kubectl");
    if let Some(file) = &args.kubeconfig {
        command.arg("--kubeconfig").arg(file);
    }
    if let Some(context) = &args.context {
        command.args(["--context", context]);
    }
    command.args(["exec", "-n", NAMESPACE, &pod, "--", "rulecast-node", "verify"]);
    if json {
        command.args(["-o", "json"]);
    }
    let output = command.output().with_context(|| {
        format!("kubectl is needed to ask the applier in pod {pod}; or run rulecast-node verify on {node}")
    })?;
    match output.status.code() {
        Some(code @ (SAME | DIFFERENT)) if !output.stdout.is_empty() => {
            write(&String::from_utf8_lossy(&output.stdout))?;
            Ok(if code == SAME { Outcome::Fine } else { Outcome::Different })
        }
        _ => bail!(
            "the applier on {node} could not be asked (kubectl exec in pod {pod}: {}); to ask it there: rulecast-node verify",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

async fn pod_on(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let params = ListParams::default().labels(LABEL);
    let all = cluster.list_in(&pods, &Request::of::<Pod>(Verb::List), params).await?;
    let on_node = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
    let pod = all.iter().find(on_node).with_context(|| {
        format!(
            "no applier's pod is on a node {node} (kubectl get pods -n {NAMESPACE} -l {LABEL} -o wide shows where they are); \
             on the node itself: rulecast-node verify"
        )
    })?;
    Ok(pod.name_any())
}
