//! The fields of `KubeProxyConfiguration` that no RulePool has: what they are for, and what to do instead.

use rulecast_api::{Mode, RulePoolSpec};

use super::leaves::{Leaf, Leaves, Wrong};
use super::report::{Fate, Report};

/// Fields whose value makes no difference: their path (and all below it) and why.
const NOT_NEEDED: &[(&str, &str)] = &[
    (
        "clientConnection.kubeconfig",
        "the applier uses its Pod's service account; its flag --kubeconfig names another way",
    ),
    ("clientConnection.acceptContentTypes", "each node watches a single object"),
    ("clientConnection.contentType", "each node watches a single object"),
    ("clientConnection.qps", "each node watches a single object"),
    ("clientConnection.burst", "each node watches a single object"),
    ("configSyncPeriod", "nothing is read again by the clock; a watch that ends is begun anew"),
    ("portRange", "kube-proxy does not use it either"),
    ("showHiddenMetricsForVersion", "about kube-proxy's own metrics"),
    ("winkernel", "for Windows; keep kube-proxy on Windows nodes"),
    ("windowsRunAsService", "for Windows; keep kube-proxy on Windows nodes"),
    ("logging.flushFrequency", "log lines are written at once"),
    ("logging.options", "log lines are written to standard error"),
];

/// Fields whose loss can be felt: their path, and what to do instead.
const NOT_CARRIED: &[(&str, &str)] = &[
    (
        "hostnameOverride",
        "is of one node; start the applier with --hostname-override, or set its NODE_NAME (the DaemonSet does)",
    ),
    ("bindAddressHardFail", "start the applier with --bind-address-hard-fail"),
    ("enableProfiling", "there are no profiles to read; /metrics has the times and sizes"),
    (
        "oomScoreAdj",
        "kubelet sets it from the Pod's priority class: -997 with the system-node-critical of the DaemonSet",
    ),
    ("logging.format", "rulecast-controller has --log-format; the applier writes text"),
    ("logging.verbosity", "rulecast-controller and rulecast-node have --log-level (debug is about 4)"),
    ("logging.vmodule", "rulecast-controller and rulecast-node have --log-level for all of their parts"),
];

/// Feature gates that change nothing about the rules, or are always on in rulecast.
const GATES_WITHOUT_EFFECT: &[&str] = &[
    "APIResponseCompression",
    "ClientsAllowCBOR",
    "ClientsPreferCBOR",
    "ComponentFlagz",
    "ComponentSLIs",
    "ComponentStatusz",
    "ContextualLogging",
    "DisableNodeKubeProxyVersion",
    "InOrderInformers",
    "InformerResourceVersion",
    "KubeProxyIPVS",
    "LoggingAlphaOptions",
    "LoggingBetaOptions",
    "MinimizeIPTablesRestore",
    "NFTablesProxyMode",
    "NativeHistograms",
    "SupportIPVSProxyMode",
    "WatchListClient",
    "WinDSR",
    "WinOverlay",
];

/// Feature gates whose behaviour rulecast always has: what to do where it was turned off.
const GATES_ALWAYS_ON: &[(&str, &str)] = &[
    ("KubeProxyDrainingTerminatingNodes", "a node that is being removed always fails /healthz"),
    ("LoadBalancerIPMode", "ipMode of a load balancer's address is always honoured"),
    (
        "MultiCIDRServiceAllocator",
        "ServiceCIDR objects are read where there are any; else list the ranges in serviceCIDRs",
    ),
    (
        "PreferSameTrafficDistribution",
        "hints for nodes are always honoured; take trafficDistribution from the Services",
    ),
    ("ServiceTrafficDistribution", "hints are always honoured; take trafficDistribution from the Services"),
    ("TopologyAwareHints", "hints are always honoured; take trafficDistribution from the Services"),
];

/// Takes every field that has no counterpart in a pool, or one in another mode only, and notes it.
pub(super) fn note(
    leaves: &mut Leaves,
    report: &mut Report,
    from: Mode,
    spec: &mut RulePoolSpec,
) -> Result<(), Wrong> {
    for (fate, fields) in [(Fate::NotNeeded, NOT_NEEDED), (Fate::NotCarried, NOT_CARRIED)] {
        for (path, text) in fields {
            for leaf in leaves.below(path) {
                report.leaf(fate, &leaf, text);
            }
        }
    }
    addresses(leaves, report)?;
    localhost_node_ports(leaves, report, from, spec)?;
    for leaf in leaves.given_below("featureGates") {
        gate(&leaf, report)?;
    }
    Ok(())
}

/// The addresses of kube-proxy itself.
fn addresses(leaves: &mut Leaves, report: &mut Report) -> Result<(), Wrong> {
    let mut v6 = false;
    if let Some(leaf) = leaves.nonzero("bindAddress") {
        let address = leaf.text()?;
        v6 = address.contains(':');
        match address {
            "0.0.0.0" | "::" => {
                report.leaf(Fate::NotNeeded, &leaf, "says nothing: the Node object has the address");
            }
            _ => {
                let text = "rulecast takes the node's primary addresses from its Node object; kubelet's --node-ip sets them";
                report.leaf(Fate::NotCarried, &leaf, text);
            }
        }
    }
    for (path, flag, port, v4, v6_default) in [
        ("healthzBindAddress", "--healthz-bind-address", 10256, "0.0.0.0", "[::]"),
        ("metricsBindAddress", "--metrics-bind-address", 10249, "127.0.0.1", "[::1]"),
    ] {
        let instead = |address: &str| format!("start the applier with {flag} {address}");
        let same = format!("{v4}:{port}");
        match leaves.nonzero(path) {
            Some(leaf) => {
                let address = with_port(leaf.text()?, port);
                if address == same {
                    report.leaf(Fate::NotNeeded, &leaf, "the applier's default");
                } else {
                    report.leaf(Fate::NotCarried, &leaf, &instead(&address));
                }
            }
            None if v6 => {
                let address = format!("{v6_default}:{port}");
                let text = format!(
                    "{address}, kube-proxy's default with an IPv6 bindAddress: {}",
                    instead(&address)
                );
                report.add(Fate::NotCarried, path, text);
            }
            None => {}
        }
    }
    Ok(())
}

/// kube-proxy adds its own port to an address without one.
fn with_port(address: &str, port: u16) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(addr) => std::net::SocketAddr::new(addr, port).to_string(),
        Err(_) => address.to_owned(),
    }
}

/// On unless it is turned off, in mode iptables and for IPv4.
fn localhost_node_ports(
    leaves: &mut Leaves,
    report: &mut Report,
    from: Mode,
    spec: &mut RulePoolSpec,
) -> Result<(), Wrong> {
    let path = "iptables.localhostNodePorts";
    let given = leaves.given(path);
    let on = given.as_ref().map(Leaf::bool).transpose()?.unwrap_or(true);
    match (from, &given) {
        (Mode::Iptables, given) if spec.mode == Mode::Iptables => {
            spec.options.iptables.localhost_node_ports = on;
            if let Some(leaf) = given {
                report.leaf(Fate::Carried, leaf, "");
            }
        }
        (Mode::Iptables, _) if on => {
            let origin = if given.is_some() { "true" } else { "true, kube-proxy's default" };
            let text = format!(
                "{origin}: rulecast does not answer at 127.0.0.1:nodePort (mode {}); use the node's own address or the cluster IP",
                spec.mode
            );
            report.add(Fate::NotCarried, path, text);
        }
        (Mode::Iptables, Some(leaf)) => {
            report.leaf(Fate::Carried, leaf, "this mode never answers at loopback addresses");
        }
        (_, Some(leaf)) => report.leaf(Fate::NotNeeded, leaf, "kube-proxy reads it in mode iptables only"),
        _ => {}
    }
    Ok(())
}

fn gate(leaf: &Leaf, report: &mut Report) -> Result<(), Wrong> {
    let name = leaf.path.trim_start_matches("featureGates.");
    let on = leaf.bool()?;
    if GATES_WITHOUT_EFFECT.contains(&name) {
        report.leaf(Fate::NotNeeded, leaf, "changes nothing about the rules");
    } else if let Some((_, text)) = GATES_ALWAYS_ON.iter().find(|(gate, _)| *gate == name) {
        let (fate, text) =
            if on { (Fate::NotNeeded, "always so in rulecast") } else { (Fate::NotCarried, *text) };
        report.leaf(fate, leaf, text);
    } else if name == "KubeProxyNFTablesLocalhostNodePorts" && on {
        report.leaf(
            Fate::NotCarried,
            leaf,
            "rulecast does not answer at loopback addresses; use the node's own address",
        );
    } else {
        report.leaf(
            Fate::NotCarried,
            leaf,
            "rulecast has no such gate; find out whether Services depend on it",
        );
    }
    Ok(())
}
