//! A pool's options as its nodes get them in iptables and IPVS mode: a family's part of them.

use std::net::Ipv4Addr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{
    FamilyOptions, IpvsOptions, Mode, NodePortAddresses as Answering, Pods, prefix_contains,
};

use crate::model::{DetectLocal, NodePortAddresses, Options, Prefix};

/// The options of one family.
pub(crate) fn family_options(options: &Options, family: Family) -> FamilyOptions {
    let answering = node_port_addresses(options, family);
    let loopback = answering.as_ref().is_none_or(|(_, prefixes)| {
        prefixes.iter().any(|prefix| prefix_contains(*prefix, Ipv4Addr::LOCALHOST.into()))
    });
    FamilyOptions {
        mark: 1 << options.masquerade_bit,
        masquerade_all: options.masquerade_all,
        liberal: options.settings.tcp_be_liberal == Some(true),
        pods: pods(&options.detect_local, family),
        node_port_addresses: answering.map(|(primary, prefixes)| Answering { primary, prefixes }),
        localhost_node_ports: options.mode == Mode::Iptables
            && family == Family::V4
            && loopback
            && options.localhost_node_ports,
        ipvs: (options.mode == Mode::Ipvs).then(|| IpvsOptions {
            exclude: of_family(family, &options.ipvs.exclude),
            ..options.ipvs.clone()
        }),
    }
}

/// Prefixes of the other family alone tell nothing of this one's pods.
fn pods(detect: &DetectLocal, family: Family) -> Pods {
    match detect {
        DetectLocal::None => Pods::Unknown,
        DetectLocal::ClusterCidr(prefixes) => match of_family(family, prefixes) {
            none if none.is_empty() => Pods::Unknown,
            prefixes => Pods::Prefixes(prefixes),
        },
        DetectLocal::NodeCidr => Pods::NodeCidr,
        DetectLocal::BridgeInterface(name) => Pods::Interface { name: name.clone(), prefix: false },
        DetectLocal::InterfaceNamePrefix(name) => Pods::Interface { name: name.clone(), prefix: true },
    }
}

/// What answers nodePorts: the primary address, and all inside these prefixes; none: every local address. As with kube-proxy,
/// prefixes of the other family only mean no restriction for this one, and so does a prefix of length 0.
pub(crate) fn node_port_addresses(options: &Options, family: Family) -> Option<(bool, Vec<Prefix>)> {
    let (primary, prefixes) = match &options.node_port_addresses {
        NodePortAddresses::Default => (options.mode == Mode::Nftables, Vec::new()),
        NodePortAddresses::All => return None,
        NodePortAddresses::Only { primary, prefixes } => (*primary, of_family(family, prefixes)),
    };
    let everything = prefixes.iter().any(|(_, len)| *len == 0) || (prefixes.is_empty() && !primary);
    (!everything).then_some((primary, prefixes))
}

pub(crate) fn of_family<'p>(family: Family, prefixes: impl IntoIterator<Item = &'p Prefix>) -> Vec<Prefix> {
    prefixes.into_iter().copied().filter(|(addr, _)| Family::of(*addr) == family).collect()
}
