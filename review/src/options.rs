//! A family's options in the modes whose layout the nodes know, by their names in a RulePool.

use std::collections::BTreeMap;

use rulecast_bundle::nft::text;
use rulecast_bundle::{FamilyOptions, IpvsOptions, NodePortAddresses, Pods};

/// The options that say something, by name.
pub(crate) fn named(options: &FamilyOptions) -> BTreeMap<String, String> {
    let FamilyOptions {
        mark,
        masquerade_all,
        liberal: _said_by_conntrack,
        pods,
        node_port_addresses,
        localhost_node_ports,
        ipvs,
    } = options;
    let mut named = BTreeMap::from([
        ("masqueradeBit".to_owned(), mark.trailing_zeros().to_string()),
        ("masqueradeAll".to_owned(), masquerade_all.to_string()),
        ("detectLocal".to_owned(), local(pods)),
        ("nodePortAddresses".to_owned(), answering(node_port_addresses.as_ref())),
        ("iptables.localhostNodePorts".to_owned(), localhost_node_ports.to_string()),
    ]);
    named.extend(ipvs.iter().flat_map(of_ipvs));
    named
}

fn of_ipvs(options: &IpvsOptions) -> impl Iterator<Item = (String, String)> {
    let IpvsOptions { scheduler, strict_arp, exclude, tcp_timeout, tcp_fin_timeout, udp_timeout } = options;
    let seconds = |seconds: &u32| (*seconds > 0).then(|| format!("{seconds}s"));
    let told = [
        ("scheduler", Some(scheduler.clone())),
        ("strictARP", strict_arp.then(|| "true".to_owned())),
        ("excludeCIDRs", (!exclude.is_empty()).then(|| prefixes(exclude))),
        ("tcpTimeout", seconds(tcp_timeout)),
        ("tcpFinTimeout", seconds(tcp_fin_timeout)),
        ("udpTimeout", seconds(udp_timeout)),
    ];
    told.into_iter().filter_map(|(name, value)| Some((format!("ipvs.{name}"), value?)))
}

fn local(pods: &Pods) -> String {
    match pods {
        Pods::Unknown => "nothing is known to be a pod's".to_owned(),
        Pods::Prefixes(known) => format!("from {}", prefixes(known)),
        Pods::NodeCidr => "from the node's pod CIDRs".to_owned(),
        Pods::Interface { name, prefix } => format!("through {name}{}", if *prefix { "*" } else { "" }),
    }
}

fn answering(addresses: Option<&NodePortAddresses>) -> String {
    let Some(NodePortAddresses { primary, prefixes }) = addresses else { return "all".to_owned() };
    let primary = primary.then(|| "primary".to_owned());
    let inside = prefixes.iter().map(|(addr, len)| text::prefix(*addr, *len));
    primary.into_iter().chain(inside).collect::<Vec<_>>().join(", ")
}

fn prefixes(prefixes: &[(std::net::IpAddr, u8)]) -> String {
    prefixes.iter().map(|(addr, len)| text::prefix(*addr, *len)).collect::<Vec<_>>().join(", ")
}
