//! Writes a synthetic cluster into an API server, over several connections at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Protocol};
use crate::cluster::{Cluster, Size};
use crate::objects;
use crate::progress::Progress;

/// Connections that write at once: enough to keep the API server busy.
const WRITERS: usize = 8;
/// The range of nodePorts and health check ports: 1,000 and 1,000 and 1,000, with room.
pub(super) const NODE_PORT_RANGE: &str = "30000-35999";
/// From a nodePort to the health check port of the same Service.
const HEALTH_CHECK_PORTS: u64 = 3000;

/// What is created, and where.
pub(super) struct Create {
    /// The collection's path.
    path: String,
    object: Value,
}

/// Writes everything: namespaces, nodes, Services and EndpointSlices.
pub(super) async fn everything(
    api: &Api,
    token: &str,
    cluster: &Cluster,
    size: Size,
    progress: &mut Progress,
) -> Result<()> {
    let services = 0..size.services;
    let namespaces: BTreeSet<String> =
        services.map(|n| namespace(&cluster.service_name(n)).to_owned()).collect();
    let namespaces: Vec<_> = namespaces.into_iter().collect();
    let count = u32::try_from(namespaces.len())?;
    let make = |n: u32| vec![created_namespace(&namespaces[n as usize])];
    create(api, token, count, "namespaces", make, progress).await?;
    create(api, token, cluster.nodes(), "Nodes", |n| vec![node(cluster, n)], progress).await?;
    create(api, token, size.services, "Services", |n| vec![service(cluster, n)], progress).await?;
    create(api, token, size.services, "Services' EndpointSlices", |n| slices(cluster, n), progress).await
}

fn namespace(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

fn created_namespace(name: &str) -> Create {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    Create { path: "/api/v1/namespaces".to_owned(), object }
}

/// A Node.
pub(super) fn node(cluster: &Cluster, number: u32) -> Create {
    Create { path: "/api/v1/nodes".to_owned(), object: objects::node(cluster, number) }
}

/// The pod of a node's applier, which its token names.
pub(super) fn applier_pod(cluster: &Cluster, number: u32, namespace: &str, account: &str) -> Create {
    let name = cluster.node_name(number);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "serviceAccountName": account, "nodeName": name, "automountServiceAccountToken": false,
            "containers": [{ "name": "applier", "image": "none" }],
        },
    });
    Create { path: format!("/api/v1/namespaces/{namespace}/pods"), object }
}

fn service(cluster: &Cluster, number: u32) -> Create {
    let mut object = objects::service(cluster, number);
    let port = object["spec"]["ports"][0]["nodePort"].as_u64();
    let spec = &mut object["spec"];
    match port {
        // What the API server would choose may be what a later Service asks for.
        Some(port) if spec["externalTrafficPolicy"] == "Local" => {
            spec["healthCheckNodePort"] = (port + HEALTH_CHECK_PORTS).into();
        }
        None if spec["type"] == "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] = false.into(),
        _ => {}
    }
    let namespace = namespace(&cluster.service_name(number)).to_owned();
    Create { path: format!("/api/v1/namespaces/{namespace}/services"), object }
}

fn slices(cluster: &Cluster, number: u32) -> Vec<Create> {
    let namespace = namespace(&cluster.service_name(number)).to_owned();
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let slices = objects::slices(cluster, number).into_iter();
    slices.map(|object| Create { path: path.clone(), object }).collect()
}

/// Creates what `make` makes of the numbers below `count`, in about their order.
pub(super) async fn create(
    api: &Api,
    token: &str,
    count: u32,
    what: &str,
    make: impl Fn(u32) -> Vec<Create>,
    progress: &mut Progress,
) -> Result<()> {
    let next = AtomicU32::new(0);
    let write = async || {
        let mut connection = api.connect(Protocol::Http1, token).await?;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return anyhow::Ok(());
            }
            for create in make(n) {
                write_one(&mut connection, &create).await?;
            }
        }
    };
    let show = async {
        loop {
            progress
                .step(&format!("creating {what}: {} of {count}", next.load(Ordering::Relaxed).min(count)));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let writers = futures::future::try_join_all((0..WRITERS).map(|_| write()));
    tokio::select! {
        written = writers => written.map(drop).with_context(|| format!("creating {what}")),
        () = show => unreachable!("it goes on for ever"),
    }
}

async fn write_one(connection: &mut Connection, create: &Create) -> Result<()> {
    let made = connection.json(Method::POST, &create.path, Some(&create.object)).await?;
    let status = &create.object["status"];
    if create.object["kind"] == "Service" && status["loadBalancer"]["ingress"].is_array() {
        // A new Service has no status, whatever is asked for.
        let mut object = made;
        object["status"] = status.clone();
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let path = format!("{}/{name}/status", create.path);
        connection.json(Method::PUT, &path, Some(&object)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_check_ports_are_nobody_elses() {
        let cluster = Cluster::new(Size { services: 20_000, endpoints: 1 }).unwrap();
        let mut taken = BTreeSet::new();
        let (first, last) = NODE_PORT_RANGE.split_once('-').unwrap();
        let range = first.parse::<u64>().unwrap()..=last.parse().unwrap();
        for service in (0..20_000).map(|n| service(&cluster, n).object) {
            let spec = &service["spec"];
            let ports = [spec["ports"][0]["nodePort"].as_u64(), spec["healthCheckNodePort"].as_u64()];
            for port in ports.into_iter().flatten() {
                assert!(range.contains(&port) && taken.insert(port), "{port}");
            }
            let balanced = spec["type"] == "LoadBalancer";
            assert_eq!(balanced, ports[0].is_some() || spec["allocateLoadBalancerNodePorts"] == false);
        }
        assert_eq!(taken.len(), 3000);
    }
}
