//! Whether a cluster is ready for an installation.

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::{Report, Section, crds, kube_proxy};
use crate::cluster::{Cluster, Problem, Request, Verb};

/// The manifests need what came with it: selectable fields of custom resources, and tokens that name a pod's node.
const KUBERNETES: (u32, u32) = (1, 32);
/// nf_tables with concatenated sets and maps; docs/limits.md.
const KERNEL: (u32, u32) = (5, 13);

/// All checks before an installation.
pub(super) async fn check(cluster: &Cluster, system: &str) -> Result<Report, Problem> {
    let mut report = Report::default();
    report.add(api_server(cluster).await?);
    report.add(rights(cluster, system).await?);
    report.add(crds::installable(cluster).await?);
    report.add(kube_proxy::before(cluster).await?);
    report.add(service_cidrs(cluster).await?);
    report.add(nodes(cluster).await?);
    report.add(flow_control(cluster).await?);
    Ok(report)
}

async fn api_server(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("API server");
    let request = Request::about(Verb::Get, "version", "", "version");
    let version = cluster.ask(&request, cluster.client().apiserver_version()).await;
    let Some(version) = section.take("version", version)? else { return Ok(section) };
    section.good(format!("{} answers", cluster.address()));
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let found = (number(&version.major), number(&version.minor));
    section.judge(
        found >= KUBERNETES,
        format!("Kubernetes {}; {}.{} or later is needed", version.git_version, KUBERNETES.0, KUBERNETES.1),
        "without it nodes cannot prove that a report is their own, and revisions cannot be listed by pool: update first",
    );
    Ok(section)
}

/// What `kubectl apply -k manifests` makes.
async fn rights(cluster: &Cluster, system: &str) -> Result<Section, Problem> {
    let mut section = Section::new("your rights to install");
    let cluster_wide = [
        ("", "namespaces"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        ("rulecast.dev", "rulepools"),
    ];
    let namespaced = [
        ("", "serviceaccounts"),
        ("apps", "deployments"),
        ("apps", "daemonsets"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ];
    let all = cluster_wide.map(|what| (what, None)).into_iter();
    let mut missing = Vec::new();
    let mut asked = 0;
    for ((group, resource), namespace) in all.chain(namespaced.map(|what| (what, Some(system)))) {
        for verb in ["create", "patch"] {
            let allowed = may(cluster, verb, group, resource, namespace).await;
            let Some(allowed) = section.take("your rights", allowed)? else { return Ok(section) };
            asked += 1;
            if !allowed {
                missing.push((verb, group, resource));
            }
        }
    }
    if missing.is_empty() {
        section.good(format!("you may create and patch all {} kinds of the manifests", asked / 2));
    }
    for (verb, group, resource) in missing {
        let what = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        section.bad(
            format!("you may not {verb} {what}"),
            format!("ask an administrator (such as one with the ClusterRole cluster-admin); check: kubectl auth can-i {verb} {what}"),
        );
    }
    Ok(section)
}

async fn may(
    cluster: &Cluster,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Result<bool, Problem> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client());
    let request = Request::of::<SelfSubjectAccessReview>(Verb::Create);
    let review = cluster.ask(&request, api.create(&PostParams::default(), &review)).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

async fn service_cidrs(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("cluster IPs");
    let found = cluster.list::<ServiceCIDR>().await;
    if let Err(Problem::Other { said, .. }) = &found
        && said.contains("this cluster has no")
    {
        section.advise(
            "the cluster has no ServiceCIDR objects (before Kubernetes 1.33): packets to unallocated cluster IPs are not \
             dropped",
            "nothing has to be done",
        );
        return Ok(section);
    }
    let Some(found) = section.take("ServiceCIDRs", found)? else { return Ok(section) };
    let ranges: Vec<String> = found
        .iter()
        .flat_map(|cidr| cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()))
        .cloned()
        .collect();
    section.judge(
        !ranges.is_empty(),
        format!("ServiceCIDRs: {}", ranges.join(", ")),
        "the API server makes one from --service-cluster-ip-range: look at its log",
    );
    Ok(section)
}

async fn nodes(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("nodes");
    let found = cluster.list::<Node>().await;
    let Some(found) = section.take("Nodes", found)? else { return Ok(section) };
    let mut kernels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut others = 0;
    for node in &found {
        match node.status.as_ref().and_then(|status| status.node_info.as_ref()) {
            Some(info) if info.operating_system != "linux" => others += 1,
            Some(info) => kernels.entry(info.kernel_version.clone()).or_default().push(node.name_any()),
            None => kernels.entry(String::new()).or_default().push(node.name_any()),
        }
    }
    for (kernel, nodes) in &kernels {
        let some = nodes.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let some = format!(
            "{some}{}",
            if nodes.len() > 3 { format!(" and {} more", nodes.len() - 3) } else { String::new() }
        );
        match parse(kernel) {
            None => section.note(format!("kernel not known: {some}")),
            Some(version) => section.judge(
                version >= KERNEL,
                format!("kernel {kernel} ({}.{} or later is needed): {some}", KERNEL.0, KERNEL.1),
                "keep these nodes out of the pool by its nodeSelector, and kube-proxy on them",
            ),
        }
    }
    if others > 0 {
        section.note(format!("{others} nodes are not Linux and keep their kube-proxy"));
    }
    if found.is_empty() {
        section.note("the cluster has no nodes yet");
    }
    Ok(section)
}

/// `6.8.0-45-generic` begins with 6 and 8.
fn parse(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

async fn flow_control(cluster: &Cluster) -> Result<Section, Problem> {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    let mut section = Section::new("priority and fairness");
    let request = Request::about(Verb::List, "APIGroup", "", "apigroups");
    let groups = cluster.ask(&request, cluster.client().list_api_groups()).await;
    let Some(groups) = section.take("API groups", groups)? else { return Ok(section) };
    let group = groups.groups.iter().find(|group| group.name == GROUP);
    section.judge(
        group.is_some_and(|group| group.versions.iter().any(|version| version.version == "v1")),
        format!("{GROUP}/v1 is served, for levels of their own for nodes and controller"),
        "the API server runs without it (--enable-priority-and-fairness=false): leave manifests/flow-control out",
    );
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(parse("6.8.0-45-generic"), Some((6, 8)));
        assert_eq!(parse("5.4+"), Some((5, 4)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("unknown"), None);
        assert!(parse("5.10.1").unwrap() < KERNEL && parse("5.13.0-rc1").unwrap() >= KERNEL);
    }
}
