//! How objects become the compiler's input, field by field.

#![expect(clippy::needless_pass_by_value, reason = "what json! makes is made on the spot")]

use std::path::Path;

use rulecast_bundle::Proto;
use rulecast_compiler::model::{DetectLocal, NodePortAddresses};
use serde_json::{Value, json};

use super::*;
use crate::release::Asked;

fn read(manifest: &Value) -> Result<Object, ManifestError> {
    let mut all = parse_manifests(&manifest.to_string(), Path::new("test.json"));
    assert_eq!(all.len(), 1, "{manifest}");
    all.remove(0)
}

fn service_with(spec: Value, status: Value) -> Value {
    let mut all = json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "shop" },
            "spec": all, "status": status })
}

fn service(spec: Value) -> Service {
    match read(&service_with(spec, json!({}))).unwrap().content {
        Content::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

fn slice_with(fields: Value) -> Value {
    let mut all = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } } });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all
}

fn slice(fields: Value) -> (Slice, Vec<String>) {
    let object = read(&slice_with(fields)).unwrap();
    match object.content {
        Content::Slice(slice) => (slice, object.warnings),
        other => panic!("{other:?}"),
    }
}

fn pool(spec: Value) -> Result<Object, ManifestError> {
    read(&json!({ "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": "edge" },
                  "spec": spec }))
}

fn options(spec: Value) -> rulecast_compiler::model::Options {
    match pool(spec).unwrap().content {
        Content::Pool(pool) => pool.pool.options,
        other => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn services_that_are_not_ours_are_ignored() {
    for spec in [
        json!({ "clusterIP": "None" }),
        json!({ "clusterIP": "" }),
        json!({ "clusterIP": null }),
        json!({ "clusterIP": "None", "clusterIPs": ["None"] }),
        json!({ "type": "ExternalName" }),
    ] {
        let object = read(&service_with(spec.clone(), json!({}))).unwrap();
        assert_eq!(object.content, Content::Ignored, "{spec}");
        assert_eq!(object.id, ObjectId::new(Kind::Service, "shop/web"));
    }
    let mut other = service_with(json!({}), json!({}));
    other["metadata"]["labels"] = json!({ "service.kubernetes.io/service-proxy-name": "cilium" });
    assert_eq!(read(&other).unwrap().content, Content::Ignored);
    // This label counts on EndpointSlices only.
    other["metadata"]["labels"] = json!({ "service.kubernetes.io/headless": "" });
    assert!(matches!(read(&other).unwrap().content, Content::Service(_)));
}

#[test]
fn service_addresses() {
    assert_eq!(service(json!({})).cluster_ips, ips(&["10.96.0.1"]));
    let dual = json!({ "clusterIPs": ["10.96.0.1", "fd00::1"] });
    assert_eq!(service(dual).cluster_ips, ips(&["10.96.0.1", "fd00::1"]));
    let twice = json!({ "clusterIPs": ["10.96.0.1", "10.96.0.2"] });
    assert_eq!(service(twice).cluster_ips, ips(&["10.96.0.1"]));
    assert_eq!(service(json!({ "clusterIP": "172.30.0.041" })).cluster_ips, ips(&["172.30.0.41"]));
    assert_eq!(
        service(json!({ "externalIPs": [" 1.2.3.4", "fd00::9"] })).external_ips,
        ips(&["1.2.3.4", "fd00::9"])
    );
    assert_eq!(
        service(json!({ "loadBalancerSourceRanges": [" 203.0.113.000/025"] })).source_ranges,
        [("203.0.113.0".parse().unwrap(), 25)]
    );
    let ingress = json!({ "loadBalancer": { "ingress": [
        { "ip": "192.0.2.1" }, { "ip": "192.0.2.2", "ipMode": "VIP" }, { "ip": "192.0.2.3", "ipMode": "Proxy" },
        { "hostname": "lb.example" },
    ] } });
    let Content::Service(service) = read(&service_with(json!({}), ingress)).unwrap().content else {
        panic!()
    };
    assert_eq!(service.load_balancer_ips, ips(&["192.0.2.1", "192.0.2.2"]));
}

#[test]
fn service_ports_and_policies() {
    let mut manifest = service_with(
        json!({ "ports": [
            { "name": "a", "port": 80, "protocol": "UDP", "nodePort": 30080 },
            { "name": "b", "port": 81, "protocol": "DCCP" },
            { "name": "c", "port": 82, "nodePort": 0 },
        ] }),
        json!(null),
    );
    let object = read(&manifest).unwrap();
    let Content::Service(service) = object.content else { panic!() };
    let ports: Vec<_> =
        service.ports.iter().map(|p| (p.name.as_str(), p.proto, p.port, p.node_port)).collect();
    assert_eq!(ports, [("a", Proto::Udp, 80, Some(30080)), ("c", Proto::Tcp, 82, None)]);
    assert_eq!(object.warnings.len(), 1);
    assert!(object.warnings[0].starts_with("spec.ports[1].protocol: \"DCCP\""), "{:?}", object.warnings);

    // The health check port is for LoadBalancers with external policy Local only.
    for (kind, policy, local, health) in [
        ("LoadBalancer", "Local", true, Some(31000)),
        ("LoadBalancer", "Cluster", false, None),
        ("NodePort", "Local", true, None),
        ("ClusterIP", "Local", false, None),
    ] {
        manifest["spec"]["type"] = json!(kind);
        manifest["spec"]["externalTrafficPolicy"] = json!(policy);
        manifest["spec"]["healthCheckNodePort"] = json!(31000);
        let Content::Service(service) = read(&manifest).unwrap().content else { panic!() };
        assert_eq!(
            (service.external_local, service.health_check_node_port),
            (local, health),
            "{kind} {policy}"
        );
    }
    let external = self::service(json!({ "externalTrafficPolicy": "Local", "externalIPs": ["1.2.3.4"] }));
    assert!(external.external_local);
    assert!(self::service(json!({ "internalTrafficPolicy": "Local" })).internal_local);
}

#[test]
fn session_affinity() {
    let config = |seconds| json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": seconds });
    assert_eq!(service(json!({ "sessionAffinity": "None" })).affinity, None);
    assert_eq!(service(config(json!(null))).affinity, Some(10_800));
    assert_eq!(service(config(json!({ "clientIP": { "timeoutSeconds": 30 } }))).affinity, Some(30));
    for bad in [0, 86_401, -1] {
        let spec = config(json!({ "clientIP": { "timeoutSeconds": bad } }));
        let error = read(&service_with(spec, json!({}))).unwrap_err();
        assert!(error.problem.starts_with("spec.sessionAffinityConfig.clientIP.timeoutSeconds"), "{error}");
    }
}

#[test]
fn errors_name_file_document_object_and_field() {
    for (spec, field) in [
        (json!({ "clusterIP": "10.96.0.256" }), "spec.clusterIP[0]"),
        (json!({ "clusterIPs": ["10.96.0.1", "x"] }), "spec.clusterIPs[1]"),
        (json!({ "externalIPs": ["1.2.3"] }), "spec.externalIPs[0]"),
        (json!({ "loadBalancerSourceRanges": ["1.2.3.4/8", "1.2.3.4"] }), "spec.loadBalancerSourceRanges[1]"),
        (json!({ "ports": [{ "port": 1 }, { "port": 70_000 }] }), "spec.ports[1].port"),
        (json!({ "ports": [{ "port": 0 }] }), "spec.ports[0].port"),
        (json!({ "ports": [{ "port": "http" }] }), "spec.ports[0].port"),
        (json!({ "ports": 7 }), "spec.ports"),
        (json!({ "sessionAffinity": "Cookie" }), "spec.sessionAffinity"),
    ] {
        let error = read(&service_with(spec, json!({}))).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("test.json: document 1: Service shop/web: {field}: ")), "{text}");
        assert_eq!(error.subject(), ObjectId::new(Kind::Service, "shop/web"));
    }
}

#[test]
fn slices() {
    let (slice, warnings) = self::slice(json!({
        "ports": [{ "name": "a", "port": 8080 }, { "name": null, "port": null }, { "port": 53, "protocol": "UDP" },
                  { "name": "x", "port": 1, "protocol": "X" }],
        "endpoints": [
            { "addresses": ["10.1.0.1", "10.1.0.2"], "nodeName": "n1" },
            { "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
            { "addresses": ["10.1.0.4"], "conditions": { "ready": false } },
            { "addresses": ["10.1.0.5"], "conditions": {}, "hints": { "forZones": [{ "name": "z1" }, { "name": "z2" }],
              "forNodes": [{ "name": "n5" }] } },
            { "addresses": ["fd00::1"] }, { "addresses": ["oops"] }, { "addresses": null },
        ],
    }));
    assert_eq!(slice.service, "shop/web");
    let ports: Vec<_> = slice.ports.iter().map(|p| (p.name.as_str(), p.proto, p.port)).collect();
    assert_eq!(ports, [("a", Proto::Tcp, 8080), ("", Proto::Udp, 53)]);
    let endpoints: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| (e.addr.to_string(), e.node.as_deref(), e.ready, e.serving, e.terminating))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("10.1.0.1".to_owned(), Some("n1"), true, true, false),
            ("10.1.0.3".to_owned(), None, false, true, true),
            // Unknown counts as serving; it is neither ready nor terminating, so that does not matter.
            ("10.1.0.4".to_owned(), None, false, true, false),
            ("10.1.0.5".to_owned(), None, true, true, false),
        ]
    );
    assert_eq!((slice.endpoints[3].zones.len(), slice.endpoints[3].nodes.len()), (2, 1));
    let fields: Vec<_> = warnings.iter().map(|w| w.split(": ").next().unwrap()).collect();
    let wanted = [
        "ports[3].protocol",
        "endpoints[4].addresses[0]",
        "endpoints[5].addresses[0]",
        "endpoints[6].addresses",
    ];
    assert_eq!(fields, wanted);
    let (empty, _) = self::slice(json!({ "ports": null, "endpoints": null }));
    assert!(empty.ports.is_empty() && empty.endpoints.is_empty());
}

#[test]
fn slices_that_are_not_ours_are_ignored() {
    let labels = |labels| {
        let mut manifest = slice_with(json!({}));
        manifest["metadata"]["labels"] = labels;
        manifest
    };
    for manifest in [
        slice_with(json!({ "addressType": "FQDN" })),
        labels(json!({})),
        labels(json!(null)),
        labels(json!({ "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "" })),
    ] {
        assert_eq!(read(&manifest).unwrap().content, Content::Ignored, "{manifest}");
    }
    let error = read(&slice_with(json!({ "addressType": "Unix" }))).unwrap_err();
    assert!(error.problem.starts_with("addressType: "), "{error}");
}

#[test]
fn nodes() {
    let mut manifest = json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": "z1", "pool": "edge" } },
        "spec": { "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd01::/64"] },
        "status": { "addresses": [
            { "type": "ExternalIP", "address": "192.0.2.1" }, { "type": "InternalIP", "address": "10.0.0.1" },
            { "type": "InternalIP", "address": "10.0.0.2" }, { "type": "InternalIP", "address": "fd00::1" },
            { "type": "Hostname", "address": "n1" },
        ] } });
    let node = |manifest: &Value| match read(manifest).unwrap().content {
        Content::Node(node) => node,
        other => panic!("{other:?}"),
    };
    let plain = node(&manifest);
    assert_eq!(plain.zone.as_deref(), Some("z1"));
    assert_eq!(plain.addrs, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(plain.pod_cidrs.len(), 2);
    assert_eq!(plain.labels["pool"], "edge");
    assert!(!plain.draining);
    manifest["spec"]["taints"] = json!([{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }]);
    assert!(node(&manifest).draining);
    manifest["spec"] = json!({ "podCIDR": "10.1.0.0/24" });
    manifest["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z");
    assert!(node(&manifest).draining);
    assert_eq!(node(&manifest).pod_cidrs.len(), 1);
}

#[test]
fn pools() {
    let plain = options(json!({}));
    assert_eq!(plain, rulecast_compiler::model::Options::default());
    let full = options(json!({
        "clusterCIDR": "10.1.0.0/16,fd01::/48", "nodePortAddresses": ["192.0.2.0/24"], "masqueradeAll": true,
        "serviceCIDRs": ["10.96.0.0/12"], "allowServiceExternalIPs": false,
    }));
    let DetectLocal::ClusterCidr(cidrs) = &full.detect_local else { panic!("{full:?}") };
    assert_eq!(cidrs.len(), 2);
    let NodePortAddresses::Only { primary: false, prefixes } = &full.node_port_addresses else { panic!() };
    assert_eq!(prefixes.len(), 1);
    assert!(full.masquerade_all && !full.allow_external_ips && full.service_cidrs.len() == 1);
    for (spec, expected) in [
        (json!({ "detectLocalMode": "NodeCIDR" }), DetectLocal::NodeCidr),
        (
            json!({ "detectLocalMode": "BridgeInterface", "detectLocal": { "bridgeInterface": "cni0" } }),
            DetectLocal::BridgeInterface("cni0".to_owned()),
        ),
        (
            json!({ "detectLocalMode": "InterfaceNamePrefix", "detectLocal": { "interfaceNamePrefix": "veth" } }),
            DetectLocal::InterfaceNamePrefix("veth".to_owned()),
        ),
    ] {
        assert_eq!(options(spec).detect_local, expected);
    }
    let settings =
        options(json!({ "conntrack": { "maxPerCore": 0, "min": 7, "tcpCloseWaitTimeout": "1h" } })).settings;
    assert_eq!((settings.conntrack_max_per_core, settings.conntrack_min), (None, Some(7)));
    assert_eq!((settings.tcp_close_wait_timeout, settings.udp_timeout), (Some(3600), None));
    assert_eq!(options(json!({ "mode": "iptables" })).node_port_addresses, NodePortAddresses::Default);
    for (spec, field) in [
        (json!({ "clusterCIDR": "10.0.0.0" }), "spec.clusterCIDR[0]"),
        (json!({ "detectLocalMode": "BridgeInterface" }), "spec.detectLocal.bridgeInterface"),
        (
            json!({ "detectLocalMode": "InterfaceNamePrefix", "detectLocal": { "interfaceNamePrefix": "a b" } }),
            "spec.detectLocal.interfaceNamePrefix",
        ),
        (json!({ "nodePortAddresses": ["primary", "10.0.0.0/8"] }), "spec.nodePortAddresses[0]"),
        (json!({ "publishInterval": "1ms" }), "spec.publishInterval"),
        (json!({ "masqueradeBit": 32 }), "spec.masqueradeBit"),
        (json!({ "mode": "userspace" }), "spec.mode"),
    ] {
        let error = pool(spec).unwrap_err();
        assert!(error.problem.contains(field.rsplit('.').next().unwrap()), "{error}");
    }
    let asked = |spec: Value| {
        let Content::Pool(config) = pool(spec).unwrap().content else { panic!() };
        config.asked
    };
    assert_eq!(asked(json!({})), Asked::default());
    let digest = "A".repeat(27);
    let all = asked(json!({
        "approval": "Manual", "approved": { "revision": 4, "digest": digest }, "hold": true, "pinnedRevision": 3,
        "promotion": { "from": "canary", "soak": "10m" }, "waves": { "pause": "2m" }, "revisionHistoryLimit": 5,
    }));
    assert!(all.manual && all.hold && all.pinned == Some(3) && all.history == 5);
    assert_eq!(all.approved.unwrap().digest.to_string(), digest);
    assert_eq!(all.promotion.unwrap().soak, std::time::Duration::from_mins(10));
    assert_eq!(all.waves, Some(std::time::Duration::from_mins(2)));
    let replay = |until: &str| pool(json!({ "exactReplay": { "revision": 1, "until": until } }));
    assert!(replay("2020-01-01T00:00:00Z").is_ok(), "it is over");
    assert!(replay("9000-01-01T00:00:00Z").unwrap_err().problem.contains("an hour away"));
    assert!(
        pool(json!({ "approved": { "digest": "x" } })).unwrap_err().problem.contains("spec.approved.digest")
    );
    let escape = json!({ "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool",
                         "metadata": { "name": "../etc" }, "spec": {} });
    assert!(read(&escape).unwrap_err().problem.starts_with("metadata.name: "));
}

#[test]
fn yaml_documents_lists_and_unknown_kinds() {
    let text = "# leading comment\n---\nkind: ServiceCIDR\napiVersion: networking.k8s.io/v1\nmetadata:\n  name: k\n\
                spec: {cidrs: [10.96.0.0/12]}\n---\n# nothing\n---\n{broken\n--- # comment\n\
                kind: Deployment\napiVersion: apps/v1\nmetadata: {name: x}\n---\n\
                apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n\
                - apiVersion: v1\n  kind: Node\n  metadata: {name: m}\n  spec: {podCIDRs: [x]}\n\
                - apiVersion: serving.knative.dev/v1\n  kind: Service\n  metadata: {name: other}\n";
    let all = parse_manifests(text, Path::new("dir/x.yaml"));
    let shown: Vec<String> =
        all.iter().map(|r| r.as_ref().map_or_else(ToString::to_string, |o| o.id.to_string())).collect();
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert_eq!(shown[0], "ServiceCIDR k");
    assert!(shown[1].starts_with("dir/x.yaml: document 3: not YAML: "), "{}", shown[1]);
    assert_eq!(shown[2], "Node n");
    assert!(shown[3].starts_with("dir/x.yaml: document 5: Node m: spec.podCIDRs[0]: "), "{}", shown[3]);
}

#[test]
fn a_broken_item_hides_no_other() {
    let item = |name: &str, port: &str| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata:\n    name: {name}\n  spec:\n    clusterIP: 10.96.0.1\n    \
             ports:\n    - port: {port}\n"
        )
    };
    let items = [item("a", "80"), item("b", "{"), item("c", "443")].concat();
    let all = parse_manifests(&format!("apiVersion: v1\nitems:\n{items}kind: List\n"), Path::new("x.yaml"));
    let shown: Vec<String> =
        all.iter().map(|r| r.as_ref().map_or_else(ToString::to_string, |o| o.id.to_string())).collect();
    assert_eq!((shown[0].as_str(), shown[2].as_str()), ("Service default/a", "Service default/c"));
    assert!(shown[1].starts_with("x.yaml: document 1: items[1]: not YAML: "), "{}", shown[1]);
}

#[test]
fn what_is_cut_off_is_noticed() {
    let whole = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  clusterIP: 10.96.0.1\n";
    assert!(parse_manifests(whole, Path::new("x.yaml"))[0].is_ok());
    for cut in [
        "apiVersion: v1\n",
        "apiVersion: v1\nkind: Service\n",
        "apiVersion: v1\nkind: Service\nmetadata:\n  na",
    ] {
        let all = parse_manifests(cut, Path::new("x.yaml"));
        let error = all[0].as_ref().unwrap_err();
        assert_eq!(error.subject().kind, Kind::File, "{cut:?}: {error}");
    }
    for nothing in ["", "\n# only a comment\n", "---\n---\n"] {
        assert!(parse_manifests(nothing, Path::new("x.yaml")).is_empty(), "{nothing:?}");
    }
}
