//! The fixed nftables rules of a pool: a function of its options alone.
//!
//! A new connection passes `services` (NAT, before routing): one lookup leads to the chain of its target, which also marks
//! it for masquerading where that is due. What is addressed to a Service and was not translated there is refused or dropped
//! one step later, so that a target without endpoints is simply absent from the maps. Established connections meet one
//! `ct state new` and nothing else.

use std::net::IpAddr;

use rulecast_bundle::name;
use rulecast_bundle::nft::{
    ChainDef, ChainKind, Data, Family, Field, Hook, HookPoint, NodeAddresses, Rule, Ruleset, SetDef,
    Statement as S,
};

use crate::keys::{CLIENT, ENDPOINT, NODE_PORT, ORIGINAL_NODE_PORT, ORIGINAL_VIP, VIP, with};
use crate::model::{DetectLocal, Options, Prefix};
use crate::{lanes, options};

/// Destination NAT happens at this priority (NF_IP_PRI_NAT_DST).
const DNAT: i32 = -100;
/// Source NAT happens at this priority (NF_IP_PRI_NAT_SRC).
const SNAT: i32 = 100;

/// The rules of one family.
pub(crate) fn ruleset(options: &Options, family: Family) -> Ruleset {
    let layout = Layout { options, family, mark: 1 << options.masquerade_bit };
    Ruleset {
        sets: layout.sets(),
        port_maps: ["affinity", "local-affinity"].map(clients).to_vec(),
        chains: layout.chains(),
        lanes: lanes::layout(layout.mark),
        hairpin: Some(name("hairpin-connections")),
        node_addresses: layout.node_addresses(),
        sources: Some(name("firewall-ranges")),
    }
}

struct Layout<'a> {
    options: &'a Options,
    family: Family,
    mark: u32,
}

fn in_set(key: &[Field], set: &'static str) -> S {
    S::InSet { key: key.to_vec(), set: name(set), negate: false }
}

fn vmap(key: &[Field], map: &'static str) -> S {
    S::VerdictMap { key: key.to_vec(), map: name(map) }
}

fn prefix(field: Field, (addr, len): Prefix, negate: bool) -> S {
    S::InPrefix { field, negate, addr, len }
}

fn set(set: &'static str, key: &[Field], data: Data) -> SetDef {
    SetDef { name: name(set), key: key.to_vec(), data, interval: false, dynamic: false, size: 0 }
}

fn endpoint() -> Data {
    Data::Fields(ENDPOINT.to_vec())
}

/// The most clients that are remembered for one Service port.
const MAX_CLIENTS: u32 = 1 << 16;

/// The map from a client to the endpoint that it uses.
fn clients(map: &'static str) -> SetDef {
    SetDef { dynamic: true, size: MAX_CLIENTS, ..set(map, &CLIENT, endpoint()) }
}

impl Layout<'_> {
    fn sets(&self) -> Vec<SetDef> {
        let verdicts = |map, key: &[Field]| set(map, key, Data::Verdict);
        let endpoints = |map, key: &[Field]| set(map, &with(key, &[Field::RandomIndex]), endpoint());
        let plain = |name, key: &[Field]| set(name, key, Data::None);
        let mut sets = vec![
            verdicts("service-ips", &VIP),
            verdicts("inside-ips", &VIP),
            verdicts("outside-ips", &VIP),
            verdicts("service-nodeports", &NODE_PORT),
            verdicts("inside-nodeports", &NODE_PORT),
            verdicts("outside-nodeports", &NODE_PORT),
            endpoints("endpoints", &VIP),
            endpoints("outside-endpoints", &VIP),
            endpoints("nodeport-endpoints", &NODE_PORT),
            endpoints("outside-nodeport-endpoints", &NODE_PORT),
            verdicts("remember", &ORIGINAL_VIP),
            verdicts("nodeport-remember", &ORIGINAL_NODE_PORT),
            plain("members", &with(&ORIGINAL_VIP, &ENDPOINT)),
            plain("outside-members", &with(&ORIGINAL_VIP, &ENDPOINT)),
            plain("nodeport-members", &with(&ORIGINAL_NODE_PORT, &ENDPOINT)),
            plain("outside-nodeport-members", &with(&ORIGINAL_NODE_PORT, &ENDPOINT)),
            plain("cluster-ips", &[Field::DestAddr]),
            plain("external-ips", &VIP),
            plain("nodeports", &NODE_PORT),
            plain("firewall-ips", &VIP),
            plain("hairpin-connections", &with(&[Field::SourceAddr], &VIP)),
        ];
        let ranges = plain("firewall-ranges", &with(&VIP, &[Field::SourceAddr]));
        sets.push(SetDef { interval: true, ..ranges });
        if self.node_addresses().is_some() {
            sets.push(plain("nodeport-ips", &[Field::DestAddr]));
        }
        sets
    }

    fn chains(&self) -> Vec<ChainDef> {
        let base = |chain, kind, point, priority, rules| ChainDef {
            name: name(chain),
            hook: Some(Hook { kind, point, priority }),
            rules,
        };
        let regular = |chain, rules| ChainDef { name: name(chain), hook: None, rules };
        let new = |chain| vec![vec![S::StateNew, S::Goto(name(chain))]];
        let services = || vec![vec![S::Jump(name("services"))]];
        let (pre, out) = (HookPoint::Prerouting, HookPoint::Output);
        vec![
            regular("services", self.services()),
            regular("local-policy-ips", self.local_policy(&VIP, "inside-ips", "outside-ips")),
            regular(
                "local-policy-nodeports",
                self.local_policy(&NODE_PORT, "inside-nodeports", "outside-nodeports"),
            ),
            regular("translated", translated()),
            regular("after-dnat", self.after_dnat()),
            base("nat-prerouting", ChainKind::Nat, pre, DNAT, services()),
            base("nat-output", ChainKind::Nat, out, DNAT, services()),
            base("filter-prerouting", ChainKind::Filter, pre, DNAT + 1, new("after-dnat")),
            base("filter-output", ChainKind::Filter, out, DNAT + 1, new("after-dnat")),
            base("nat-postrouting", ChainKind::Nat, HookPoint::Postrouting, SNAT, self.postrouting()),
        ]
    }

    fn of_family<'p>(&self, prefixes: impl IntoIterator<Item = &'p Prefix>) -> Vec<Prefix> {
        options::of_family(self.family, prefixes)
    }

    /// Alternatives by which traffic of this node's own pods is known; none: there is no way to tell.
    fn pods(&self) -> Vec<S> {
        let interface =
            |name: &String, prefix| vec![S::InputInterface { name: name.clone(), prefix, negate: false }];
        match &self.options.detect_local {
            DetectLocal::None => Vec::new(),
            DetectLocal::ClusterCidr(prefixes) => {
                self.of_family(prefixes).into_iter().map(|p| prefix(Field::SourceAddr, p, false)).collect()
            }
            DetectLocal::NodeCidr => vec![S::FromPods { negate: false }],
            DetectLocal::BridgeInterface(name) => interface(name, false),
            DetectLocal::InterfaceNamePrefix(name) => interface(name, true),
        }
    }

    fn services(&self) -> Vec<Rule> {
        let mut rules = vec![vec![
            in_set(&VIP, "firewall-ips"),
            S::InSet { key: with(&VIP, &[Field::SourceAddr]), set: name("firewall-ranges"), negate: true },
            S::Drop,
        ]];
        let pods = self.pods();
        if self.options.masquerade_all || !pods.is_empty() {
            let mut rule = vec![in_set(&[Field::DestAddr], "cluster-ips")];
            if !self.options.masquerade_all {
                rule.extend(pods.into_iter().map(negated));
            }
            rule.push(S::MarkOr(self.mark));
            rules.push(rule);
        }
        rules.push(vec![vmap(&VIP, "service-ips")]);
        rules.push(self.at_node_address(vmap(&NODE_PORT, "service-nodeports")));
        rules
    }

    /// Traffic from this node's pods and from the node itself may use all endpoints; the node's is masqueraded.
    fn local_policy(&self, key: &[Field], inside: &'static str, outside: &'static str) -> Vec<Rule> {
        let mut rules: Vec<Rule> =
            self.pods().into_iter().map(|pods| vec![pods, vmap(key, inside)]).collect();
        let own = S::IsLocal { field: Field::SourceAddr, negate: false };
        rules.push(vec![own, S::MarkOr(self.mark), vmap(key, inside)]);
        rules.push(vec![vmap(key, outside)]);
        rules
    }

    /// `verdict` for what is addressed to a node address that answers nodePorts.
    fn at_node_address(&self, verdict: S) -> Rule {
        if self.node_addresses().is_some() {
            return vec![in_set(&[Field::DestAddr], "nodeport-ips"), verdict];
        }
        let loopback = match self.family {
            Family::V4 => (IpAddr::from([127, 0, 0, 0]), 8),
            Family::V6 => (IpAddr::from(1u128.to_be_bytes()), 128),
        };
        vec![
            S::IsLocal { field: Field::DestAddr, negate: false },
            prefix(Field::DestAddr, loopback, true),
            verdict,
        ]
    }

    /// What answers nodePorts; none: every local address but loopback.
    fn node_addresses(&self) -> Option<NodeAddresses> {
        let (primary, prefixes) = options::node_port_addresses(self.options, self.family)?;
        Some(NodeAddresses { set: name("nodeport-ips"), primary, prefixes })
    }

    fn after_dnat(&self) -> Vec<Rule> {
        let mut rules = vec![
            vec![S::StatusDnat, S::Goto(name("translated"))],
            vec![in_set(&[Field::DestAddr], "cluster-ips"), S::Reject],
            vec![in_set(&VIP, "external-ips"), S::Reject],
        ];
        let unallocated = self.of_family(&self.options.service_cidrs);
        rules.extend(unallocated.into_iter().map(|p| vec![prefix(Field::DestAddr, p, false), S::Drop]));
        let mut rule = self.at_node_address(in_set(&NODE_PORT, "nodeports"));
        rule.push(S::Reject);
        rules.push(rule);
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        let itself = with(&[Field::SourceAddr], &VIP);
        vec![
            vec![S::StatusDnat, in_set(&itself, "hairpin-connections"), S::Masquerade],
            vec![S::MarkIs { bits: self.mark, set: true }, S::MarkXor(self.mark), S::Masquerade],
        ]
    }
}

/// A VIP may have the same port as a nodePort with affinity: the chain looks at the endpoint.
fn translated() -> Vec<Rule> {
    vec![vec![vmap(&ORIGINAL_VIP, "remember")], vec![vmap(&ORIGINAL_NODE_PORT, "nodeport-remember")]]
}

fn negated(statement: S) -> S {
    match statement {
        S::InPrefix { field, addr, len, .. } => S::InPrefix { field, negate: true, addr, len },
        S::FromPods { .. } => S::FromPods { negate: true },
        S::InputInterface { name, prefix, .. } => S::InputInterface { name, prefix, negate: true },
        other => other,
    }
}
