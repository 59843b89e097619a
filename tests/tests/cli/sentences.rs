//! What it says when something is in the way.

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::objects::{healthy, pool};
use crate::server::Server;

pub(crate) fn without_crds_it_says_how_to_install_them(s: &mut Server) -> anyhow::Result<()> {
    for args in [&["status"][..], &["status", "default"], &["nodes"], &["history", "default"]] {
        let ran = s.run(args)?.ended(2)?;
        ran.says(&["CRDs are not installed", "kubectl apply -k manifests"])?;
    }
    Ok(())
}

pub(crate) fn a_server_that_cannot_be_reached_is_named(s: &mut Server) -> anyhow::Result<()> {
    let nobody = s.kubeconfig_with(None, Some("https://127.0.0.1:1"))?;
    let ran = s.run_as(&nobody, &["status"])?.ended(2)?;
    ran.says(&["https://127.0.0.1:1", "nothing listens there", "kubectl cluster-info"])?;

    let nameless = s.kubeconfig_with(None, Some("https://api.example.invalid:6443"))?;
    s.run_as(&nameless, &["status"])?.ended(2)?.says(&["does not resolve"])?;

    // Without the authority that has signed the server's certificate.
    let text = std::fs::read_to_string(s.control_plane.kubeconfig())?;
    let start = text.find(", certificate-authority-data").context("an authority")?;
    let end = start + text[start..].find('}').context("its end")?;
    let trusting = s.dir().join("trusting.kubeconfig");
    std::fs::write(&trusting, format!("{}{}", &text[..start], &text[end..]))?;
    let ran = s.run_as(&trusting, &["status"])?.ended(2)?;
    ran.says(&["certificate", "kubectl config view --minify --raw"])?;

    let none = s.dir().join("no-such.kubeconfig").display().to_string();
    let ran = s.run(&["status", "--kubeconfig", &none])?.ended(2)?;
    ran.says(&["no-such.kubeconfig", "next:"])?;
    s.run(&["status", "--context", "nowhere"])?.ended(2)?.says(&["nowhere", "get-contexts"]).map(drop)
}

pub(crate) fn a_missing_right_is_named_with_its_rule(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    let bob = s.somebody("bob")?;
    let ran = s.run_as(&bob, &["status"])?.ended(2)?;
    let ran = ran.says(&[
        "you may not list rulepools.rulecast.dev",
        "system:serviceaccount:default:bob",
        r#"{apiGroups: ["rulecast.dev"], resources: [rulepools], verbs: [list]}"#,
        "kubectl auth can-i list rulepools.rulecast.dev",
    ])?;
    ensure!(ran.out.is_empty(), "{}", ran.out);
    // The advice is good: with that rule, and those that it asks for next, it works.
    s.apply(&healthy())?;
    s.apply(&[
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "bob" },
            "rules": [{
                "apiGroups": ["rulecast.dev"], "resources": ["rulepools", "rulenodes", "rulebundles"],
                "verbs": ["list"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "bob" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bob" },
            "subjects": [{ "kind": "ServiceAccount", "name": "bob", "namespace": "default" }],
        }),
    ])?;
    // Without the right to list Nodes it says what is missing in its answer.
    let ran = s.run_as(&bob, &["status"])?.ended(0)?;
    ran.prints(&["default"])?.says(&["you may not list Nodes"]).map(drop)
}

pub(crate) fn an_unknown_token_is_not_a_missing_right(s: &mut Server) -> anyhow::Result<()> {
    let stranger = s.kubeconfig_with(Some("not-a-token"), None)?;
    s.run_as(&stranger, &["status"])?.ended(2)?.says(&["does not know you", "kubectl auth whoami"]).map(drop)
}

pub(crate) fn a_pool_that_does_not_exist_is_offered_by_others(s: &mut Server) -> anyhow::Result<()> {
    s.fresh()?;
    s.run(&["status", "default"])?.ended(2)?.says(&["there is no RulePool default; there is none at all"])?;
    let none = json!({});
    s.apply(&[pool("default", &none, 1, &none), pool("canary", &none, 1, &none)])?;
    for args in [&["status", "defualt"][..], &["nodes", "--pool", "defualt"], &["show", "defualt/1"]] {
        let ran = s.run(args)?.ended(2)?;
        ran.says(&["there is no RulePool defualt; these exist: default, canary"])?;
    }
    Ok(())
}
