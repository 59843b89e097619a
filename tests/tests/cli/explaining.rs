//! explain, with what the real controller publishes.

use anyhow::ensure;
use rulecast_tests::process::Process;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::checking::k8s::account;
use crate::objects::{node, report};
use crate::server::Server;

/// A pod of a Service `name`, ready or not.
fn pod(name: &str, app: &str, port: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "labels": { "app": app } },
        "spec": {
            "automountServiceAccountToken": false, "serviceAccountName": "tester",
            "containers": [{ "name": "a", "image": "none", "ports": [{ "name": port, "containerPort": 8080 }] }],
        },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": ready, "message": "the probe fails", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        },
    })
}

fn slice(service: &str, endpoints: &[(&str, &str, bool)]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(addr, node, ready)| {
            json!({ "addresses": [addr], "nodeName": node, "conditions": { "ready": ready, "serving": ready } })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": "shop", "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
    })
}

fn service(name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "selector": { "app": name },
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": "http" }],
        },
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

/// The Service shop/web on two nodes, published by the real controller.
pub(crate) fn shop(s: &mut Server) -> anyhow::Result<Process> {
    s.fresh()?;
    s.apply(&account("shop"))?;
    s.kubectl(&[
        "delete",
        "services,endpointslices,pods",
        "--all",
        "-n",
        "shop",
        "--force",
        "--grace-period=0",
    ])?;
    s.apply(&[
        node("node-a", &json!({})),
        node("node-b", &json!({})),
        service("web", &json!({ "type": "NodePort", "externalTrafficPolicy": "Local" })),
        slice("web", &[("10.244.0.2", "node-a", true), ("10.244.0.3", "node-a", true)]),
        pod("web-1", "web", "http", true),
        pod("web-2", "web", "http", true),
        json!({ "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "default" }, "spec": {} }),
    ])?;
    let controller = s.controller()?;
    wait_for("the first publication", PATIENCE, || {
        let ran = s.run(&["explain", "shop/web"])?;
        ensure!(ran.code == 0, "{}{}", ran.out, ran.err);
        Ok(())
    })?;
    Ok(controller)
}

/// What nodes would report of what is published now.
fn reports(s: &Server, nodes: &[&str]) -> anyhow::Result<()> {
    let head: Value = serde_json::from_str(&s.kubectl(&["get", "rulebundle", "default", "-o", "json"])?)?;
    let (sequence, digest) = (head["spec"]["sequence"].as_u64().unwrap_or(0), &head["spec"]["digest"]);
    let one = |node: &&str| report(node, "default", sequence, &json!({ "digest": digest }));
    s.apply(&nodes.iter().map(one).collect::<Vec<_>>())
}

pub(crate) fn from_a_service_to_the_rules_of_a_node(s: &mut Server) -> anyhow::Result<()> {
    let _controller = shop(s)?;
    let object: Value =
        serde_json::from_str(&s.kubectl(&["get", "service", "web", "-n", "shop", "-o", "json"])?)?;
    let ip = object["spec"]["clusterIP"].as_str().unwrap_or_default();
    let node_port = object["spec"]["ports"][0]["nodePort"].to_string();
    let ran = s.run(&["explain", "web", "-n", "shop"])?.ended(0)?;
    ran.prints(&[
        "✓ type NodePort, cluster IPs",
        "✓ 2 of them ready",
        "2 pods have a container port named http",
        "port 80/TCP: 2 of 2 endpoints are ready (target port 8080)",
        &format!("cluster IP {ip}:80"),
        &format!("nodePort {node_port} from outside"),
        "1 of 2 nodes have endpoints",
        "packets are dropped",
    ])?;
    reports(s, &["node-a", "node-b"])?;
    let ran = s.run(&["explain", "shop/web", "--node", "node-a"])?.ended(0)?;
    ran.prints(&[
        "✓ it runs what the pool default has published",
        "10.244.0.2:8080 on this node",
        "10.244.0.3:8080 on this node",
    ])?;
    let ran = s.run(&["explain", "shop/web", "--node", "node-b"])?.ended(0)?;
    let ran = ran.prints(&[
        "the node takes everybody's list: 10.244.0.2:8080, 10.244.0.3:8080",
        "no endpoint for this node",
    ])?;
    ensure!(!ran.out.contains("8080 on this node"), "{}", ran.out);
    s.run(&["explain", "shop/web", "--node", "node-z"])?.ended(1)?.prints(&["✗ there is no such Node"])?;

    let breaks = |objects: &[Value], texts: &[&str]| -> anyhow::Result<()> {
        s.apply(objects)?;
        wait_for("what is wrong", PATIENCE, || {
            s.run(&["explain", "shop/web"])?.ended(1)?.prints(texts).map(drop)
        })
    };
    s.apply(&[pod("web-1", "web", "http", false)])?;
    s.run(&["explain", "shop/web"])?.ended(0)?.prints(&["- web-1 is not ready: the probe fails"])?;
    breaks(
        &[slice("web", &[("10.244.0.2", "node-a", false)])],
        &["✗ port 80/TCP: 0 of 1 endpoints are ready", "refused at once"],
    )?;
    s.kubectl(&["delete", "endpointslice", "web-1", "-n", "shop"])?;
    breaks(&[], &["✗ there is none", "kube-controller-manager"])?;
    s.kubectl(&["delete", "pod", "web-1", "web-2", "-n", "shop", "--force", "--grace-period=0"])?;
    breaks(
        &[pod("web-3", "web", "metrics", true)],
        &["0 of 1 pod have a container port named http", "metrics=8080/TCP"],
    )?;
    breaks(
        &[service("web", &json!({ "selector": { "app": "wbe" } }))],
        &["✗ no pod in shop has the labels app=wbe", "--show-labels"],
    )?;

    // Of a Service that came while the pool is held the rules know nothing, and it says why.
    s.run(&["hold", "default", "--wait", "--timeout", "30s"])?.ended(0)?;
    s.apply(&[service("late", &json!({}))])?;
    wait_for("the shape that waits", PATIENCE, || {
        let ran = s.run(&["explain", "shop/late"])?.ended(1)?;
        ran.prints(&[
            "✗ the published rules do not have this Service",
            "next: kubectl rulecast resume default",
        ])
        .map(drop)
    })
}

pub(crate) fn what_no_proxy_has_a_part_in(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&account("shop"))?;
    let label = json!({ "service.kubernetes.io/service-proxy-name": "other" });
    let mut other = service("other", &json!({}));
    other["metadata"]["labels"] = label;
    s.apply(&[
        service("headless", &json!({ "clusterIP": "None" })),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "outside", "namespace": "shop" },
            "spec": { "type": "ExternalName", "externalName": "db.example.com" },
        }),
        other,
    ])?;
    for (name, text) in [
        ("headless", "it is headless"),
        ("outside", "answers with db.example.com"),
        ("other", "gives it to another proxy, other"),
    ] {
        s.run(&["explain", &format!("shop/{name}")])?.ended(0)?.prints(&[text])?;
    }
    Ok(())
}

pub(crate) fn a_service_that_does_not_exist_is_offered_by_others(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&account("shop"))?;
    s.apply(&[service("checkout", &json!({}))])?;
    let ran = s.run(&["explain", "chekout", "-n", "shop"])?.ended(2)?;
    ran.says(&["there is no Service shop/chekout; these exist: shop/checkout"])?;
    let bob = s.somebody("frank")?;
    let ran = s.run_as(&bob, &["explain", "shop/checkout"])?.ended(2)?;
    ran.says(&[
        "you may not get services checkout in namespace shop",
        "kubectl auth can-i get services -n shop",
    ])
    .map(drop)
}
