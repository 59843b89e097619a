//! Reads what a dump has in it. What cannot be read is noted, and the rest goes on.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, LogParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use rulecast_api::{RuleBundle, RuleChunk, RuleChunkSpec, RuleNode, RulePool, RuleRevision};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::redact::Named;
use crate::cluster::{Cluster, Problem, Request, Verb};
use crate::{check, fleet, status};

/// How much to read.
pub(super) struct Limits<'a> {
    pub(super) system: &'a str,
    pub(super) log_lines: i64,
    pub(super) log_pods: usize,
}

/// Files by name, and what could not be read.
#[derive(Default)]
pub(super) struct Dump {
    pub(super) files: BTreeMap<String, String>,
    pub(super) problems: Vec<String>,
    /// Names that must not be in it.
    pub(super) names: Vec<(Named, String)>,
}

/// What a file has in it.
pub(super) fn describe(name: &str) -> &'static str {
    match name {
        "versions.json" => "of this program and of the API server",
        "rulepools.json" => "RulePools, with spec and status",
        "rulebundles.json" => "RuleBundles; of a delta only its length",
        "rulerevisions.json" => "RuleRevisions, without the chunks' bytes",
        "rulenodes.json" => "what each node reports",
        "rulechunks.txt" => "RuleChunks: name, pool, kind and length in bytes",
        "events.json" => "Events about rulecast's objects and programs",
        "deployments.json" | "daemonsets.json" | "pods.json" => "in the namespace of controller and appliers",
        "check.json" => "kubectl rulecast check -o json",
        "status.json" => "kubectl rulecast status -o json",
        "nodes.json" => "kubectl rulecast nodes -o json",
        name if name.starts_with("logs/") => "the end of a log",
        _ => "",
    }
}

impl Dump {
    pub(super) fn add(&mut self, name: &str, content: String) {
        self.files.insert(name.to_owned(), content);
    }

    fn add_json(&mut self, name: &str, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.add(name, text + "\n"),
            Err(error) => self.problems.push(format!("{name}: {error}")),
        }
    }

    /// An answer; without any connection there is no dump.
    fn take<T>(&mut self, what: &str, answer: Result<T, Problem>) -> anyhow::Result<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(problem @ (Problem::Unreachable { .. } | Problem::Unauthorized { .. })) => {
                Err(problem.into())
            }
            Err(problem) => {
                self.problems.push(format!("{what}: {}", problem.to_string().replace("\n ", ";")));
                Ok(None)
            }
        }
    }
}

/// Reads everything.
pub(super) async fn collect(cluster: &Cluster, limits: &Limits<'_>) -> anyhow::Result<Dump> {
    let mut dump = Dump::default();
    versions(cluster, &mut dump).await?;
    kind::<RulePool>(cluster, &mut dump, "rulepools.json").await?;
    kind::<RuleBundle>(cluster, &mut dump, "rulebundles.json").await?;
    kind::<RuleRevision>(cluster, &mut dump, "rulerevisions.json").await?;
    kind::<RuleNode>(cluster, &mut dump, "rulenodes.json").await?;
    chunks(cluster, &mut dump).await?;
    events(cluster, &mut dump, limits.system).await?;
    let report = check::check(cluster, limits.system).await;
    if let Some(report) = dump.take("check", report)? {
        dump.add_json("check.json", &report);
    }
    match status::read(cluster, None).await {
        Ok(status) => dump.add_json("status.json", &status),
        Err(error) => dump.problems.push(format!("status: {error}")),
    }
    let fleet = fleet::read(cluster).await;
    if let Some(fleet) = dump.take("nodes", fleet)? {
        dump.add_json("nodes.json", &fleet::rows(&fleet, None));
    }
    namespaced::<Deployment>(cluster, &mut dump, limits.system, "deployments.json").await?;
    namespaced::<DaemonSet>(cluster, &mut dump, limits.system, "daemonsets.json").await?;
    let pods = namespaced::<Pod>(cluster, &mut dump, limits.system, "pods.json").await?;
    logs(cluster, &mut dump, &pods, limits).await?;
    names(cluster, &mut dump).await?;
    Ok(dump)
}

async fn versions(cluster: &Cluster, dump: &mut Dump) -> anyhow::Result<()> {
    let request = Request::about(Verb::Get, "version", "", "version");
    let server = cluster.ask(&request, cluster.client().apiserver_version()).await;
    let server = dump.take("version", server)?.map(|info| info.git_version);
    let versions = json!({ "kubectl-rulecast": env!("CARGO_PKG_VERSION"), "kubernetes": server });
    dump.add_json("versions.json", &versions);
    Ok(())
}

async fn kind<K>(cluster: &Cluster, dump: &mut Dump, file: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let all = cluster.list::<K>().await;
    if let Some(all) = dump.take(file, all)? {
        let all: Vec<Value> =
            all.iter().filter_map(|object| serde_json::to_value(object).ok()).map(strip).collect();
        dump.add_json(file, &all);
    }
    Ok(())
}

async fn namespaced<K>(
    cluster: &Cluster,
    dump: &mut Dump,
    namespace: &str,
    file: &str,
) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client(), namespace);
    let request = Request::of::<K>(Verb::List).within(namespace);
    let all = cluster.list_in(&api, &request, ListParams::default()).await;
    let Some(all) = dump.take(file, all)? else { return Ok(Vec::new()) };
    let stripped: Vec<Value> =
        all.iter().filter_map(|object| serde_json::to_value(object).ok()).map(strip).collect();
    dump.add_json(file, &stripped);
    Ok(all)
}

/// Takes out what may hold anything: annotations, managed fields, values of environment variables; and long bytes.
fn strip(mut object: Value) -> Value {
    strip_in(&mut object);
    if let Some(delta) = object.pointer_mut("/spec/delta") {
        *delta = json!(format!("{} characters", delta.as_str().map_or(0, str::len)));
    }
    object
}

fn strip_in(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A pod's template has metadata, too.
            if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                metadata.remove("annotations");
                metadata.remove("managedFields");
            }
            if let Some(Value::Array(variables)) = fields.get_mut("env") {
                for variable in variables.iter_mut().filter_map(Value::as_object_mut) {
                    if variable.contains_key("value") {
                        variable.insert("value".into(), json!("(left out)"));
                    }
                }
            }
            fields.values_mut().for_each(strip_in);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_in),
        _ => {}
    }
}

/// Chunks are many and long: a line each.
async fn chunks(cluster: &Cluster, dump: &mut Dump) -> anyhow::Result<()> {
    let chunks = cluster.list::<RuleChunk>().await;
    let Some(chunks) = dump.take("rulechunks.txt", chunks)? else { return Ok(()) };
    let line = |chunk: &RuleChunk| {
        let RuleChunkSpec { kind, pool, data } = &chunk.spec;
        format!("{} {pool} {kind:?} {}\n", chunk.name_any(), data.len() * 3 / 4)
    };
    dump.add("rulechunks.txt", chunks.iter().map(line).collect());
    Ok(())
}

async fn events(cluster: &Cluster, dump: &mut Dump, system: &str) -> anyhow::Result<()> {
    let events = cluster.list::<Event>().await;
    let Some(events) = dump.take("events.json", events)? else { return Ok(()) };
    let ours = |event: &&Event| {
        let about = event.regarding.as_ref();
        let group = about.and_then(|object| object.api_version.as_deref()).unwrap_or_default();
        group.starts_with(rulecast_api::GROUP) || about.and_then(|o| o.namespace.as_deref()) == Some(system)
    };
    let ours: Vec<Value> =
        events.iter().filter(ours).filter_map(|event| serde_json::to_value(event).ok()).map(strip).collect();
    dump.add_json("events.json", &ours);
    Ok(())
}

/// The ends of the programs' logs: of all controllers, and of some appliers.
async fn logs(cluster: &Cluster, dump: &mut Dump, pods: &[Pod], limits: &Limits<'_>) -> anyhow::Result<()> {
    let name = |pod: &Pod| pod.labels().get("app.kubernetes.io/name").cloned().unwrap_or_default();
    let (mut appliers, controllers): (Vec<_>, Vec<_>) = pods
        .iter()
        .filter(|pod| name(pod).starts_with("rulecast-"))
        .partition(|pod| name(pod) == "rulecast-node");
    let reports: Vec<RuleNode> = cluster.list().await.unwrap_or_default();
    let failing = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        reports.iter().any(|report| {
            report.metadata.name.as_deref() == node
                && report.status.as_ref().is_some_and(|s| s.error.is_some())
        })
    };
    appliers.sort_by_key(|pod| (!failing(pod), pod.name_any()));
    if appliers.len() > limits.log_pods {
        dump.problems
            .push(format!("logs of {} more appliers (--log-pods)", appliers.len() - limits.log_pods));
        appliers.truncate(limits.log_pods);
    }
    let api: Api<Pod> = Api::namespaced(cluster.client(), limits.system);
    for pod in controllers.into_iter().chain(appliers) {
        let name = pod.name_any();
        let restarted = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten())
            .any(|c| c.restart_count > 0);
        for previous in [false, true].into_iter().filter(|previous| !previous || restarted) {
            let params = LogParams {
                tail_lines: Some(limits.log_lines),
                previous,
                timestamps: true,
                ..LogParams::default()
            };
            let request = Request::about(Verb::Get, "log", "", "pods/log").named(&name).within(limits.system);
            let log = cluster.ask(&request, api.logs(&name, &params)).await;
            let file = format!("logs/{name}{}.log", if previous { "-previous" } else { "" });
            if let Some(log) = dump.take(&file, log)? {
                dump.add(&file, log);
            }
        }
    }
    Ok(())
}

/// Names that nobody outside needs.
async fn names(cluster: &Cluster, dump: &mut Dump) -> anyhow::Result<()> {
    for (kind, found) in [
        (Named::Node, metadata::<Node>(cluster).await),
        (Named::Namespace, metadata::<Namespace>(cluster).await),
        (Named::Service, metadata::<Service>(cluster).await),
    ] {
        let what = format!("names of {kind:?}s, so those that only messages quote may still be in it");
        for object in dump.take(&what, found)?.unwrap_or_default() {
            dump.names.push((kind, object));
        }
    }
    let reports: Vec<RuleNode> = cluster.list().await.unwrap_or_default();
    dump.names.extend(reports.iter().map(|report| (Named::Node, report.name_any())));
    let pools: Vec<RulePool> = cluster.list().await.unwrap_or_default();
    for service in pools.iter().flat_map(|pool| &pool.status).flat_map(|status| &status.quarantined) {
        if let Some((namespace, name)) = service.service.split_once('/') {
            dump.names.push((Named::Namespace, namespace.to_owned()));
            dump.names.push((Named::Service, name.to_owned()));
        }
    }
    Ok(())
}

async fn metadata<K>(cluster: &Cluster) -> Result<Vec<String>, Problem>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(cluster.client());
    let request = Request::of::<K>(Verb::List);
    let mut params = ListParams::default().limit(500);
    let mut names = Vec::new();
    loop {
        let list = cluster.ask(&request, api.list_metadata(&params)).await?;
        names.extend(list.items.iter().map(kube::ResourceExt::name_any));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_anything_is_taken_out() {
        let stripped = strip(json!({
            "metadata": { "name": "a", "annotations": { "x": "secret" }, "managedFields": [{}] },
            "spec": {
                "delta": "AAAA",
                "template": { "metadata": { "annotations": { "y": "secret" } }, "spec": { "containers": [{
                    "env": [{ "name": "TOKEN", "value": "secret" }, { "name": "NODE", "valueFrom": {} }],
                }] } },
            },
        }));
        let text = stripped.to_string();
        assert!(
            !text.contains("secret") && !text.contains("managedFields") && text.contains("TOKEN"),
            "{text}"
        );
        assert_eq!(stripped["spec"]["delta"], "4 characters");
    }
}
