//! `kubectl rulecast explain`.

mod endpoints;
mod node;
mod pods;
mod rules;
mod service;
mod targets;

use clap::Args;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::check::{Report, Section};
use crate::cluster::{Cluster, ClusterArgs, Problem, Request, Verb, block_on};
use crate::exit::Outcome;
use crate::fleet::{self, Fleet};
use crate::output::{OutputArgs, print};
use crate::published;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast explain web -n prod
  kubectl rulecast explain prod/web --node worker-1
  kubectl rulecast explain prod/web -o json

It goes from the Service to its pods, their EndpointSlices, the published rules and, with --node, what that node does with
them. The first ✗ is where to begin. Exit code 1: something is wrong.";

/// The options of `explain`.
#[derive(Args)]
pub(crate) struct Options {
    /// The Service; with its namespace as in prod/web, or without.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Its namespace, instead of the context's.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// As this node has it.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        let (namespace, name) = match options.service.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => (options.namespace.as_deref().unwrap_or(cluster.namespace()), options.service.as_str()),
        };
        let report = explain(&cluster, namespace, name, options.node.as_deref()).await?;
        print(&report, options.output.output)?;
        Ok(if report.passed() { Outcome::Fine } else { Outcome::Different })
    })
}

async fn explain(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    node: Option<&str>,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let Some(service) = cluster.find_namespaced::<Service>(namespace, name).await? else {
        return Err(no_such_service(cluster, namespace, name).await.into());
    };
    let (section, proxied) = service::section(&service);
    report.add(section);
    if !proxied {
        return Ok(report);
    }
    report.add(pods(cluster, namespace, &service).await?);
    report.add(slices(cluster, namespace, name, &service).await?);
    let fleet = fleet::read(cluster).await?;
    let names = match node {
        None => fleet.pools.keys().cloned().collect(),
        Some(node) => match node::pool_of(&fleet, node) {
            Ok((section, pool)) => {
                report.add(section);
                vec![pool]
            }
            Err(section) => {
                report.add(section);
                return Ok(report);
            }
        },
    };
    if names.is_empty() {
        let mut section = Section::new("rules");
        section.bad("there is no RulePool, so nothing is published", "kubectl apply -k manifests/samples");
        report.add(section);
    }
    for pool in &names {
        report.add(rules(cluster, &fleet, pool, &format!("{namespace}/{name}"), &service, node).await?);
    }
    Ok(report)
}

/// What a pool makes of it, and a node of that.
async fn rules(
    cluster: &Cluster,
    fleet: &Fleet,
    pool: &str,
    owner: &str,
    service: &Service,
    node: Option<&str>,
) -> anyhow::Result<Section> {
    let mut section = Section::new(format!("rules of the pool {pool}"));
    let head = match node.and_then(|node| node::bundle_of(fleet, node)) {
        // A node of a wave follows the bundle of the next shape.
        Some(next) => next,
        None => pool.to_owned(),
    };
    let replica = match published::read(cluster, &head).await {
        Ok(replica) => replica,
        Err(error) if error.downcast_ref::<Problem>().is_some() => return Err(error),
        Err(error) => {
            section.bad(format!("{error:#}"), format!("kubectl rulecast status {pool}"));
            return Ok(section);
        }
    };
    let targets = targets::of(replica.bundle(), owner);
    let object = fleet.pools.get(pool);
    rules::conflicts(&mut section, object, owner);
    if targets.is_empty() {
        rules::absent(&mut section, object, pool);
        return Ok(section);
    }
    rules::addresses(&mut section, service, &targets, object);
    match node {
        Some(node) => node::members(&mut section, replica.bundle(), node, &targets),
        None => rules::members(&mut section, replica.bundle(), &targets),
    }
    Ok(section)
}

async fn pods(cluster: &Cluster, namespace: &str, service: &Service) -> Result<Section, Problem> {
    let mut section = Section::new("pods");
    let Some(selector) = pods::selector(service) else {
        section.note("the Service has no selector: whoever made it writes its EndpointSlices, too");
        return Ok(section);
    };
    let found = list::<Pod>(cluster, namespace, &selector).await;
    if let Some(found) = section.take("pods", found)? {
        pods::check(&mut section, namespace, service, &selector, &found);
    }
    Ok(section)
}

async fn slices(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    service: &Service,
) -> Result<Section, Problem> {
    let mut section = Section::new("EndpointSlices");
    let found =
        list::<EndpointSlice>(cluster, namespace, &format!("kubernetes.io/service-name={name}")).await;
    if let Some(found) = section.take("EndpointSlices", found)? {
        endpoints::check(&mut section, namespace, service, &found);
    }
    Ok(section)
}

async fn list<K>(cluster: &Cluster, namespace: &str, labels: &str) -> Result<Vec<K>, Problem>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let request = Request::of::<K>(Verb::List).within(namespace);
    let api: Api<K> = Api::namespaced(cluster.client(), namespace);
    cluster.list_in(&api, &request, ListParams::default().labels(labels)).await
}

/// The Services that may have been meant: of all namespaces, or of this one where only that may be read.
async fn no_such_service(cluster: &Cluster, namespace: &str, name: &str) -> Problem {
    let wanted = format!("{namespace}/{name}");
    let params = ListParams::default().limit(5000);
    let mut names = None;
    for api in [Api::all(cluster.client()), Api::namespaced(cluster.client(), namespace)] {
        let api: Api<Service> = api;
        if let Ok(list) = cluster.ask(&Request::of::<Service>(Verb::List), api.list_metadata(&params)).await {
            let full = |o: &PartialObjectMeta<Service>| {
                format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any())
            };
            names = Some(list.items.iter().map(full).collect());
            break;
        }
    }
    Problem::not_found(&Request::of::<Service>(Verb::Get).named(&wanted), names)
}
