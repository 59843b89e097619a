//! What is in the kernel of a node, whoever wrote it.

use anyhow::ensure;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::nft::nft;

/// Both programs of that name, for both families: a node may have rules of both, and each shows its own only.
const SAVERS: [&str; 4] =
    ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"];
/// Chains that kube-proxy makes beside the kubelet and does not remove.
const KUBELETS: [&str; 3] = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];

/// Everything that iptables shows, of both kinds and families.
fn iptables(node: &Namespace) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for saver in SAVERS {
        let text = node.output(saver, &[])?;
        lines.extend(text.lines().map(|line| format!("{saver}: {line}")));
    }
    Ok(lines)
}

fn tables(node: &Namespace) -> anyhow::Result<String> {
    nft(node, &["list", "tables"])
}

/// Nothing of kube-proxy is left that concerns Services.
pub(crate) fn without_kube_proxy(node: &Namespace) -> anyhow::Result<()> {
    let tables = tables(node)?;
    ensure!(!tables.contains("kube-proxy"), "{tables}");
    let left: Vec<_> = iptables(node)?
        .into_iter()
        .filter(|line| line.contains("KUBE-") && !KUBELETS.iter().any(|chain| line.contains(chain)))
        .collect();
    ensure!(left.is_empty(), "left of kube-proxy: {left:#?}");
    Ok(())
}

/// kube-proxy in mode iptables leaves a sysctl that lets packets reach loopback addresses, and the rule that keeps strangers' out.
pub(crate) fn loopback_stays_guarded(node: &Namespace) -> anyhow::Result<()> {
    let path = "/proc/sys/net/ipv4/conf/all/route_localnet";
    let set = node.run(|| std::fs::read_to_string(path))??;
    let rules = iptables(node)?;
    let guarded = rules.iter().any(|line| line.contains("-A KUBE-FIREWALL") && line.contains("127.0.0.0/8"));
    ensure!(set.trim() == "1" && guarded, "route_localnet={set}, {rules:#?}");
    Ok(())
}

/// Nothing of rulecast's mode nftables is left.
pub(crate) fn without_nftables(node: &Namespace) -> anyhow::Result<()> {
    let tables = tables(node)?;
    ensure!(!tables.contains("rulecast"), "{tables}");
    Ok(())
}

/// Nothing of rulecast's mode iptables is left.
pub(crate) fn without_iptables(node: &Namespace) -> anyhow::Result<()> {
    let sets = node.output("ipset", &["list", "-n"])?;
    let lines = iptables(node)?.into_iter().chain(sets.lines().map(|name| format!("ipset {name}")));
    let left: Vec<_> = lines.filter(|line| line.contains("RC-")).collect();
    ensure!(left.is_empty(), "left of rulecast: {left:#?}");
    Ok(())
}

/// Nothing of rulecast is left.
pub(crate) fn without_rulecast(node: &Namespace) -> anyhow::Result<()> {
    without_nftables(node)?;
    without_iptables(node)
}

/// Removes everything, whoever wrote it; and what conntrack remembers: a SYN that came while nobody served is untranslated there
/// for two minutes, and with it the next connection from that port.
pub(crate) fn flush(node: &Namespace) -> anyhow::Result<()> {
    nft(node, &["flush", "ruleset"])?;
    for tool in ["iptables-legacy", "ip6tables-legacy"] {
        for table in ["nat", "filter", "mangle"] {
            node.output(tool, &["-w", "-t", table, "-F"])?;
            node.output(tool, &["-w", "-t", table, "-X"])?;
        }
    }
    node.output("ipset", &["destroy"])?;
    node.output("conntrack", &["--flush"])?;
    Ok(())
}
