//! The CEL rules of the definitions, evaluated without an API server.
//!
//! The evaluator is not the API server's own; `manifests/` has been tried on a real one as well, which also accepts or
//! refuses the rules for their cost.

use kube::core::cel::{RootContext, Validator};
use serde_json::{Value, json};

/// The messages that the definition of `plural` has for `object`; none when it is accepted.
fn refusals(plural: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let crd = rulecast_api::crds().into_iter().find(|crd| crd.spec.names.plural == plural).unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let root = RootContext {
        api_version: "rulecast.dev/v1alpha1".to_owned(),
        api_group: "rulecast.dev".to_owned(),
        kind: crd.spec.names.kind,
    };
    Validator::new()
        .validate_with_defaults_and_context(&serde_json::to_value(schema).unwrap(), object, old, Some(&root))
        .err()
        .map_or_else(Vec::new, |errors| errors.into_vec().into_iter().map(|error| error.message).collect())
}

fn pool(spec: &Value) -> Vec<String> {
    refusals("rulepools", &json!({ "metadata": { "name": "default" }, "spec": spec }), None)
}

#[test]
fn pools_that_make_sense_are_accepted() {
    for spec in [
        json!({}),
        json!({ "clusterCIDR": "" }),
        json!({ "clusterCIDR": "10.244.0.0/16,fd00:10::/56", "serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"] }),
        json!({ "nodePortAddresses": ["primary"], "publishInterval": "100ms" }),
        json!({ "nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64"], "publishInterval": "10s" }),
        json!({ "detectLocalMode": "BridgeInterface", "detectLocal": { "bridgeInterface": "cni0" } }),
        json!({ "promotion": { "from": "canary", "soak": "30m" } }),
    ] {
        assert_eq!(pool(&spec), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn pools_that_make_no_sense_are_refused_and_told_why() {
    for (spec, why) in [
        (json!({ "clusterCIDR": "10.244.0.0" }), "must be one CIDR"),
        (json!({ "clusterCIDR": "10.0.0.0/8,10.1.0.0/16" }), "must be one CIDR, or an IPv4 and an IPv6 one"),
        (json!({ "clusterCIDR": "10.0.0.0/8,fd00::/8,fd01::/16" }), "must be one CIDR, or"),
        (json!({ "serviceCIDRs": ["10.96.0.0/33"] }), "each entry must be a CIDR"),
        (json!({ "nodePortAddresses": ["primary", "10.0.0.0/8"] }), "must be \"primary\" alone"),
        (json!({ "publishInterval": "50ms" }), "from 100ms to 10s"),
        (json!({ "publishInterval": "1m" }), "from 100ms to 10s"),
        (json!({ "detectLocalMode": "BridgeInterface" }), "needs detectLocal.bridgeInterface"),
        (
            json!({ "detectLocalMode": "InterfaceNamePrefix", "detectLocal": { "interfaceNamePrefix": "" } }),
            "needs detectLocal.interfaceNamePrefix",
        ),
        (json!({ "promotion": { "from": "default", "soak": "30m" } }), "must be another pool"),
    ] {
        let refusals = pool(&spec);
        assert!(refusals.len() == 1 && refusals[0].contains(why), "{spec}: {refusals:?}");
    }
}

#[test]
fn bundles_only_go_forward() {
    let bundle = |epoch: u64, sequence: u64| {
        let mut spec =
            json!({ "sequence": sequence, "digest": "d".repeat(27), "checkpoint": "c".repeat(32) });
        if epoch > 0 {
            spec["epoch"] = epoch.into();
        }
        json!({ "metadata": { "name": "default" }, "spec": spec })
    };
    for (old, new, accepted) in [
        ((0, 5), (0, 6), true),
        ((0, 5), (0, 5), true), // a change of metadata only
        ((0, 5), (0, 4), false),
        ((0, 5), (1, 1), true),
        ((1, 5), (1, 4), false),
        ((1, 5), (0, 9), false),
        ((2, 5), (1, 9), false),
    ] {
        let refusals = refusals("rulebundles", &bundle(new.0, new.1), Some(&bundle(old.0, old.1)));
        assert_eq!(refusals.is_empty(), accepted, "{old:?} -> {new:?}: {refusals:?}");
    }
    assert_eq!(refusals("rulebundles", &bundle(0, 1), None), Vec::<String>::new());
}

#[test]
fn chunks_never_change() {
    let chunk = |name: &str, data: &str| json!({ "metadata": { "name": name }, "spec": { "kind": "delta", "pool": "default", "data": data } });
    let (name, old) = ("a".repeat(32), chunk(&"a".repeat(32), "AAAA"));
    assert_eq!(refusals("rulechunks", &old, Some(&old)), Vec::<String>::new());
    assert!(refusals("rulechunks", &chunk(&name, "AAAB"), Some(&old))[0].contains("immutable"));
    assert!(refusals("rulechunks", &chunk("delta-1", "AAAA"), None)[0].contains("hash of the content"));
}
