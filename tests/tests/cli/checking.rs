//! check, before and after an installation.

use anyhow::ensure;
use k8s::{daemon_set, deployment, lease, pod};
use serde_json::{Value, json};

use crate::objects::{bundle, condition, healthy, pool, report};
use crate::server::{Ran, Server};

/// What an installation has beside its custom resources.
pub(crate) mod k8s {
    use serde_json::{Value, json};

    fn template(name: &str) -> Value {
        json!({
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": name, "image": "none", "command": ["/bin/none"] }] },
        })
    }

    pub(super) fn deployment(available: u32) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "rulecast-controller", "namespace": "rulecast-system" },
            "spec": {
                "replicas": 2, "selector": { "matchLabels": { "app": "rulecast-controller" } },
                "template": template("rulecast-controller"),
            },
            "status": { "replicas": 2, "availableReplicas": available, "readyReplicas": available },
        })
    }

    pub(super) fn lease(holder: &str, renewed: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "rulecast-controller", "namespace": "rulecast-system" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 4, "renewTime": renewed },
        })
    }

    pub(super) fn daemon_set(mode: &str) -> [Value; 2] {
        let config = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n"
        );
        [
            json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
                "spec": { "selector": { "matchLabels": { "app": "kube-proxy" } }, "template": template("kube-proxy") },
                "status": { "currentNumberScheduled": 2, "numberMisscheduled": 0, "desiredNumberScheduled": 2, "numberReady": 2 },
            }),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "kube-proxy", "namespace": "kube-system" }, "data": { "config.conf": config },
            }),
        ]
    }

    pub(super) fn pod(name: &str, namespace: &str, app: (&str, &str), node: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { app.0: app.1 } },
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false, "serviceAccountName": "tester",
                "containers": [{ "name": "a", "image": "none", "env": [{ "name": "TOKEN", "value": "hunter2" }] }],
            },
        })
    }

    pub(crate) fn account(namespace: &str) -> [Value; 2] {
        [
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "tester", "namespace": namespace },
            }),
        ]
    }
}

pub(crate) fn a_cluster_before_an_installation(s: &mut Server) -> anyhow::Result<()> {
    let before = s.run(&["check", "--pre"])?.ended(0)?;
    before.prints(&[
        "Kubernetes v1.",
        "you may create and patch all 14 kinds",
        "5 of rulecast's CRDs are not there",
    ])?;
    s.run(&["check"])?
        .ended(1)?
        .prints(&["✗ not installed: rulepools.rulecast.dev", "kubectl apply --server-side -k"])?;

    let node = |name: &str, kernel: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "status": { "nodeInfo": {
                "kernelVersion": kernel, "operatingSystem": "linux", "architecture": "amd64", "bootID": "", "machineID": "",
                "systemUUID": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
            } },
        })
    };
    s.apply(&[node("node-new", "6.8.0-45-generic"), node("node-old", "5.4.0")])?;
    s.apply(&k8s::account("kube-system"))?;
    s.apply(&daemon_set("ipvs"))?;
    let ran = s.run(&["check", "--pre"])?.ended(1)?;
    ran.prints(&[
        "✗ kernel 5.4.0",
        "✓ kernel 6.8.0-45-generic",
        "kube-proxy runs on 2 nodes, mode ipvs",
        "import kube-proxy-config",
    ])?;

    let bob = s.somebody("nobody-yet")?;
    let ran = s.run_as(&bob, &["check", "--pre"])?.ended(1)?;
    ran.prints(&[
        "✗ you may not create customresourcedefinitions.apiextensions.k8s.io",
        "? Nodes: you may not list nodes",
        "kubectl auth can-i list nodes",
    ])?;
    s.kubectl(&["delete", "daemonset,configmap", "kube-proxy", "-n", "kube-system"])?;
    s.kubectl(&["delete", "nodes", "--all"]).map(drop)
}

fn now() -> anyhow::Result<String> {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.000000Z"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

pub(crate) fn an_installation_and_each_way_it_fails(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.apply(&healthy())?;
    s.apply(&k8s::account("rulecast-system"))?;
    s.apply(&k8s::account("kube-system"))?;
    s.apply(&[deployment(2)])?;
    // The Lease is as old as the machine is slow.
    let check = |args: &[&str]| -> anyhow::Result<Ran> {
        s.apply(&[lease("controller-a_1", &now()?)])?;
        s.run(&[&["check"], args].concat())
    };
    let ran = check(&[])?.ended(0)?;
    ran.prints(&[
        "✓ controller-a_1 leads",
        "✓ 2 of 2 replicas",
        "✓ 2 of 2 nodes run what is published",
        "✓ default: ready",
    ])?;
    let json = check(&["-o", "json"])?.ended(0)?.json()?;
    ensure!(json["sections"][0]["checks"][0]["verdict"] == "good", "{json:#}");

    let fails = |objects: &[Value], texts: &[&str], back: &[Value]| -> anyhow::Result<()> {
        s.apply(objects)?;
        check(&[])?.ended(1)?.prints(texts)?;
        s.apply(back)?;
        check(&[])?.ended(0).map(drop)
    };
    let none = json!({});
    fails(&[deployment(0)], &["✗ 0 of 2 replicas"], &[deployment(2)])?;
    let error = json!({ "error": { "reason": "KernelRefused", "message": "No space left", "since": "2026-01-01T00:00:00Z" } });
    let well = report("node-b", "default", 40, &json!({ "error": null }));
    fails(&[report("node-b", "default", 40, &error)], &["✗ node-b: KernelRefused: No space left"], &[well])?;
    let quarantined = json!({
        "quarantined": [{ "service": "prod/web", "reason": "NotCompiled", "message": "its port is taken" }],
        "quarantinedCount": 1,
    });
    let fine = pool("default", &none, 3, &json!({ "quarantined": [] }));
    let bad = pool("default", &none, 3, &quarantined);
    fails(
        &[bad],
        &["✗ default: 1 Services keep their previous rules", "prod/web (its port is taken)"],
        std::slice::from_ref(&fine),
    )?;
    let failed = [condition("Ready", "False", "PublishFailed", "etcd is full")];
    let bad = pool("default", &none, 3, &json!({ "conditions": failed }));
    fails(&[bad], &["✗ default: Ready is False (PublishFailed): etcd is full"], &[fine])?;
    let astray = report("node-b", "default", 50, &none);
    fails(
        &[astray],
        &["✗ running what is not published (1): node-b"],
        &[report("node-b", "default", 40, &none)],
    )?;
    // Behind for a moment is no failure: nodes report one after the other.
    s.apply(&[bundle("default", 41)])?;
    check(&[])?.ended(0)?.prints(&["- 2 nodes have not reported the newest version yet"])?;

    s.apply(&[lease("controller-a_1", "2026-01-01T00:00:00.000000Z")])?;
    s.run(&["check"])?.ended(1)?.prints(&["✗ controller-a_1 leads; its Lease was renewed", "clock"])?;
    s.apply(&[pod("kube-proxy-x", "kube-system", ("k8s-app", "kube-proxy"), "node-a")])?;
    check(&[])?
        .ended(1)?
        .prints(&["✗ kube-proxy still runs on 1 nodes that have rulecast's rules: node-a", "--cleanup"])?;
    let ran = check(&["--wait", "--timeout", "1s"])?.ended(3)?;
    ran.says(&["1 failed", "gave up after 1s"])?;
    s.kubectl(&["delete", "pod", "kube-proxy-x", "-n", "kube-system", "--force", "--grace-period=0"])?;
    // A hold is what somebody wanted.
    s.kubectl(&["patch", "rulepool", "default", "--type=merge", "-p", r#"{"spec":{"hold":true}}"#])?;
    s.kubectl(&[
        "patch",
        "rulepool",
        "default",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"observedGeneration":9}}"#,
    ])?;
    check(&[])?
        .ended(0)?
        .prints(&["- default: held (spec.hold)", "kubectl rulecast resume default ends it"])
        .map(drop)
}

pub(crate) fn what_may_not_be_asked_is_not_passed(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    let bob = s.somebody("dave")?;
    let ran = s.run_as(&bob, &["check"])?.ended(1)?;
    ran.prints(&[
        "? rulepools.rulecast.dev: you may not get customresourcedefinitions.apiextensions.k8s.io",
        "? Deployment rulecast-controller: you may not get deployments.apps",
        "kubectl auth can-i get deployments.apps -n rulecast-system",
    ])?;
    let nobody = s.kubeconfig_with(None, Some("https://127.0.0.1:1"))?;
    for args in [&["check"][..], &["check", "--pre"]] {
        s.run_as(&nobody, args)?.ended(2)?.says(&["https://127.0.0.1:1", "nothing listens there"])?;
    }
    Ok(())
}

/// A pod of the applier, for a dump.
pub(crate) fn applier_pod(node: &str) -> Vec<Value> {
    let mut all = k8s::account("rulecast-system").to_vec();
    all.push(pod("rulecast-node-x", "rulecast-system", ("app.kubernetes.io/name", "rulecast-node"), node));
    all
}
