//! `kubectl-rulecast import kube-proxy-config`, as a program: what it prints for whole files, and for broken ones.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kube::core::cel::{RootContext, Validator};
use rulecast_compiler::model::{DetectLocal, NodePortAddresses};
use rulecast_controller::objects::{Content, PoolConfig, parse_manifests};
use serde_json::Value;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import");

fn import(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-rulecast"))
        .args(["import", "kube-proxy-config"])
        .args(args)
        .current_dir(DIR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read.
    let _closed_pipe = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Compares with the file of what is expected; with RULECAST_BLESS set, writes it instead.
fn expect(name: &str, printed: &str) {
    let path = Path::new(DIR).join("expected").join(name);
    if std::env::var_os("RULECAST_BLESS").is_some() {
        std::fs::write(&path, printed).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(printed, expected, "{name}: if this is what it should be, run the test with RULECAST_BLESS=1");
}

/// What the API server would say of the pool: its schema, and the rules beside it.
fn refusals(pool: &str) -> Vec<String> {
    let pool: Value = serde_saphyr::from_str(pool).unwrap();
    let crd = rulecast_api::crds().into_iter().find(|crd| crd.spec.names.plural == "rulepools").unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let root = RootContext {
        api_version: "rulecast.dev/v1alpha1".to_owned(),
        api_group: "rulecast.dev".to_owned(),
        kind: crd.spec.names.kind,
    };
    Validator::new()
        .validate_with_defaults_and_context(&serde_json::to_value(schema).unwrap(), &pool, None, Some(&root))
        .err()
        .map_or_else(Vec::new, |errors| errors.into_vec().into_iter().map(|error| error.message).collect())
}

/// What the controller makes of the pool.
fn controller(pool: &str) -> PoolConfig {
    let mut objects = parse_manifests(pool, &PathBuf::from("pool.yaml"));
    assert_eq!(objects.len(), 1);
    let object = objects.remove(0).unwrap();
    assert_eq!(object.warnings, Vec::<String>::new());
    let Content::Pool(config) = object.content else { panic!("not a pool: {pool}") };
    *config
}

/// What importing `file` prints, compared with what is expected, and taken by the API server's validation.
fn golden(name: &str, file: &str, more: &[&str], code: i32) -> String {
    let output = import(&[&[file], more].concat(), "");
    assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output.stderr));
    expect(&format!("{name}.yaml"), text(&output.stdout));
    expect(&format!("{name}.txt"), text(&output.stderr));
    assert_eq!(refusals(text(&output.stdout)), Vec::<String>::new(), "{name}");
    text(&output.stdout).to_owned()
}

#[test]
fn kubeadms_defaults() {
    let config = controller(&golden("kubeadm", "kubeadm.yaml", &[], 0));
    assert_eq!(config.pool.options.mode, rulecast_bundle::Mode::Iptables);
    assert_eq!(config.pool.options.node_port_addresses, NodePortAddresses::Default);
    let settings = &config.pool.options.settings;
    assert_eq!((settings.conntrack_max_per_core, settings.conntrack_min), (Some(32_768), Some(131_072)));
    assert_eq!(
        (settings.tcp_established_timeout, settings.tcp_close_wait_timeout),
        (Some(86_400), Some(3_600))
    );
    assert_eq!(
        config.pool.options.detect_local,
        DetectLocal::ClusterCidr(vec![("10.244.0.0".parse().unwrap(), 16)])
    );
}

#[test]
fn kubeadms_defaults_for_nftables_keep_answering_everywhere() {
    let pool = golden("kubeadm-nftables", "kubeadm.yaml", &["--mode", "nftables", "--name", "workers"], 0);
    let config = controller(&pool);
    assert_eq!(config.pool.options.mode, rulecast_bundle::Mode::Nftables);
    // A prefix of length 0 is every address.
    let everywhere = [("0.0.0.0".parse().unwrap(), 0), ("::".parse().unwrap(), 0)].to_vec();
    let expected = NodePortAddresses::Only { primary: false, prefixes: everywhere };
    assert_eq!(config.pool.options.node_port_addresses, expected);
}

#[test]
fn kinds_defaults() {
    let config = controller(&golden("kind", "kind.yaml", &[], 0));
    assert_eq!(config.pool.options.mode, rulecast_bundle::Mode::Nftables);
    assert_eq!(config.pool.options.node_port_addresses, NodePortAddresses::Default);
}

#[test]
fn every_field_in_mode_iptables() {
    let config = controller(&golden("iptables-all", "iptables-all.yaml", &[], 0));
    let options = config.pool.options;
    assert!(options.masquerade_all && !options.allow_external_ips);
    assert_eq!(options.masquerade_bit, 0);
    assert_eq!(config.publish_interval.as_secs(), 10);
}

#[test]
fn every_field_in_mode_ipvs_from_a_list() {
    let config = controller(&golden("ipvs-all", "ipvs-all.json", &[], 0));
    assert_eq!(config.pool.options.masquerade_bit, 31, "ipvs marks as iptables does");
    assert_eq!(config.publish_interval.as_millis(), 500);
    golden("ipvs-to-nftables", "ipvs-all.json", &["--mode", "nftables"], 0);
}

#[test]
fn two_families_in_mode_nftables() {
    let config = controller(&golden("nftables-dual", "nftables-dual.yaml", &[], 0));
    assert_eq!(config.pool.options.masquerade_bit, 20);
    golden("nftables-to-iptables", "nftables-dual.yaml", &["--mode", "iptables"], 0);
}

#[test]
fn local_detection_by_interface() {
    let config = controller(&golden("bridge", "bridge.yaml", &[], 0));
    assert_eq!(config.pool.options.detect_local, DetectLocal::BridgeInterface("cni0".to_owned()));
}

#[test]
fn fields_that_nobody_knows_show_in_the_exit_code() {
    golden("not-understood", "not-understood.yaml", &[], 1);
}

#[test]
fn json_and_yaml_say_the_same() {
    let json = import(&["kind.yaml", "-o", "json"], "");
    let yaml = import(&["kind.yaml"], "");
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json, serde_saphyr::from_str::<Value>(text(&yaml.stdout)).unwrap());
    let stdin = import(&["-"], &std::fs::read_to_string(Path::new(DIR).join("kind.yaml")).unwrap());
    assert_eq!(stdin.stdout, yaml.stdout);
    assert!(text(&stdin.stderr).starts_with("standard input: config.conf of ConfigMap kube-proxy"));
}

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn in_config_map(config: &str) -> String {
    let config = config.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kube-proxy\ndata:\n  config.conf: |\n    {config}\n"
    )
}

#[test]
fn what_cannot_be_imported_is_named_with_its_place_and_nothing_is_printed() {
    let wrong = |fields: &str| format!("{HEAD}{fields}");
    for (input, says) in [
        (String::new(), &["standard input: it is empty", "kubectl get configmap kube-proxy"][..]),
        ("# nothing\n---\n".to_owned(), &["it is empty"]),
        ("mode: [".to_owned(), &["it is not YAML", "line 1"]),
        ("mode: nftables\n".to_owned(), &["a document without a kind", "kubectl get configmap"]),
        ("kind: DaemonSet\napiVersion: apps/v1\n".to_owned(), &["but a DaemonSet"]),
        ("kind: List\napiVersion: v1\nitems: []\n".to_owned(), &["an empty List"]),
        (
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: kube-proxy}\n".to_owned(),
            &["the ConfigMap kube-proxy, which has no data"],
        ),
        (
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata: {kubeconfig.conf: 'kind: Config'}\n"
                .to_owned(),
            &["the ConfigMap x with the keys kubeconfig.conf"],
        ),
        (
            in_config_map(&wrong("mode: [")),
            &["config.conf of ConfigMap kube-proxy: it is not YAML", "line 3"],
        ),
        (in_config_map(&wrong("mode: userspace")), &["line 3: mode: userspace is gone", "nftables"]),
        (format!("{HEAD}---\n{HEAD}"), &["2 KubeProxyConfigurations in it"]),
        (
            HEAD.replace("v1alpha1", "v1alpha2"),
            &["kubeproxy.config.k8s.io/v1alpha2", "only kubeproxy.config.k8s.io/v1alpha1"],
        ),
        (wrong("mode: kernelspace"), &["line 3: mode", "Windows"]),
        (wrong("mode: Nftables"), &["\"Nftables\" is not one of nftables, iptables, ipvs"]),
        (wrong("mode: nftables\nmode: ipvs"), &["it is not YAML", "line 4"]),
        (wrong("conntrack: 5"), &["line 3: conntrack: 5 stands where fields are wanted"]),
        (
            wrong("conntrack:\n  min: -1"),
            &["line 4: conntrack.min: -1 is not a whole number from 0 to 2147483647"],
        ),
        (wrong("conntrack:\n  udpTimeout: 30"), &["line 4: conntrack.udpTimeout: 30 is not a duration"]),
        (
            wrong("iptables: {masqueradeBit: 32}"),
            &["iptables.masqueradeBit: 32 is not a whole number from 0 to 31"],
        ),
        (wrong("iptables: {masqueradeAll: sometimes}"), &["\"sometimes\" is not true or false"]),
        (wrong("clusterCIDR: 10.0.0.0"), &["line 3: clusterCIDR: \"10.0.0.0\" is not one CIDR"]),
        (wrong("clusterCIDR: 10.0.0.0/8,11.0.0.0/8"), &["or an IPv4 and an IPv6 one"]),
        (wrong("detectLocalMode: Bridge"), &["\"Bridge\" is not one of ClusterCIDR, NodeCIDR"]),
        (
            wrong("detectLocalMode: BridgeInterface"),
            &["detectLocal.bridgeInterface: detectLocalMode BridgeInterface needs it"],
        ),
        (
            wrong("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: 'a b'}"),
            &["\"a b\" is not an interface name"],
        ),
        (wrong("nodePortAddresses: 10.0.0.0/8"), &["nodePortAddresses: is not a list"]),
        (wrong("nodePortAddresses: [primary, 10.0.0.0/8]"), &["\"primary\" and CIDRs together"]),
        (wrong("nodePortAddresses: [10.0.0.1]"), &["\"10.0.0.1\" is not a CIDR"]),
        (wrong("mode: ipvs\nipvs: {scheduler: 'a b'}"), &["no name of a scheduler"]),
        (wrong("mode: ipvs\nipvs: {excludeCIDRs: [x]}"), &["\"x\" is not a CIDR"]),
        (wrong("featureGates: {AllowServiceExternalIPs: 1}"), &["1 is not true or false"]),
    ] {
        let output = import(&["-"], &input);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{input}: {error}");
        assert_eq!(text(&output.stdout), "", "{input}");
        assert!(error.starts_with("kubectl-rulecast: standard input"), "{input}: {error}");
        assert!(says.iter().all(|part| error.contains(part)), "{input}: {error}");
    }
    let missing = import(&["no-such-file"], "");
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("no-such-file: cannot be read: No such file"));
    assert_eq!(import(&["kind.yaml", "--name", "No"], "").status.code(), Some(2));
}
