//! The fixed nftables rules of a pool: a function of its options alone.
//!
//! A new connection passes `services` (NAT, before routing): masquerade marks by set membership, then one lookup leads
//! to the chain of its target. What is addressed to a Service and was not translated there is refused or dropped in
//! `untranslated`, one step later, so that a target without endpoints is simply absent from the maps. Established
//! connections meet one `ct state new` and nothing else.

use std::net::IpAddr;

use rulecast_bundle::name;
use rulecast_bundle::nft::{
    Affinity, Balancer, ChainDef, ChainKind, Data, Family, Field, Hook, HookPoint, Lane, NodeAddresses, Rule,
    Ruleset, SetDef, Statement as S,
};

use crate::model::{DetectLocal, NodePortAddresses, Options, Prefix};

const VIP: [Field; 3] = [Field::DestAddr, Field::Proto, Field::DestPort];
const NODE_PORT: [Field; 2] = [Field::Proto, Field::DestPort];
const ORIGINAL_VIP: [Field; 3] = [Field::OriginalDestAddr, Field::Proto, Field::OriginalDestPort];
const ORIGINAL_NODE_PORT: [Field; 2] = [Field::Proto, Field::OriginalDestPort];
const ENDPOINT: [Field; 2] = [Field::DestAddr, Field::DestPort];

/// Destination NAT happens at this priority (NF_IP_PRI_NAT_DST).
const DNAT: i32 = -100;
/// Source NAT happens at this priority (NF_IP_PRI_NAT_SRC).
const SNAT: i32 = 100;

/// The rules of one family.
pub(crate) fn ruleset(options: &Options, family: Family) -> Ruleset {
    let layout = Layout { options, family, mark: 1 << options.masquerade_bit };
    Ruleset {
        sets: layout.sets(),
        chains: layout.chains(),
        balancers: balancers(),
        lanes: lanes(),
        hairpin: Some(name("hairpin-connections")),
        node_addresses: layout.node_addresses(),
    }
}

struct Layout<'a> {
    options: &'a Options,
    family: Family,
    mark: u32,
}

/// The names that differ between the four balancers.
struct Target {
    /// Address family of keys: at a VIP, or at any node address.
    key: &'static [Field],
    original: &'static [Field],
    verdicts: &'static str,
    endpoints: &'static str,
    chain: &'static str,
    sticky: &'static str,
    clients: &'static str,
    members: &'static str,
    remember: &'static str,
}

/// In the order of the balancers' numbers.
const TARGETS: [Target; 4] = [
    Target {
        key: &VIP,
        original: &ORIGINAL_VIP,
        verdicts: "service-ips",
        endpoints: "endpoints",
        chain: "lb",
        sticky: "sticky",
        clients: "affinity",
        members: "members",
        remember: "remember",
    },
    Target {
        key: &VIP,
        original: &ORIGINAL_VIP,
        verdicts: "outside-ips",
        endpoints: "outside-endpoints",
        chain: "outside-lb",
        sticky: "outside-sticky",
        clients: "outside-affinity",
        members: "outside-members",
        remember: "remember",
    },
    Target {
        key: &NODE_PORT,
        original: &ORIGINAL_NODE_PORT,
        verdicts: "service-nodeports",
        endpoints: "nodeport-endpoints",
        chain: "nodeport-lb",
        sticky: "nodeport-sticky",
        clients: "nodeport-affinity",
        members: "nodeport-members",
        remember: "nodeport-remember",
    },
    Target {
        key: &NODE_PORT,
        original: &ORIGINAL_NODE_PORT,
        verdicts: "outside-nodeports",
        endpoints: "outside-nodeport-endpoints",
        chain: "outside-nodeport-lb",
        sticky: "outside-nodeport-sticky",
        clients: "outside-nodeport-affinity",
        members: "outside-nodeport-members",
        remember: "nodeport-remember",
    },
];

/// In the order of [`crate::lanes::Lane`].
fn lanes() -> Vec<Lane> {
    [
        (0, Some("cluster-ips")),
        (0, Some("external-cluster-ips")),
        (0, Some("external-local-ips")),
        (1, None),
        (2, Some("nodeports-cluster")),
        (2, Some("nodeports-local")),
        (3, None),
    ]
    .map(|(balancer, set)| Lane { balancer, sets: set.map(name).into_iter().collect() })
    .to_vec()
}

fn with(fields: &[Field], more: &[Field]) -> Vec<Field> {
    [fields, more].concat()
}

fn client_key(key: &[Field]) -> Vec<Field> {
    with(&[Field::SourceAddr], key)
}

fn balancers() -> Vec<Balancer> {
    TARGETS.iter().map(balancer).collect()
}

fn balancer(target: &Target) -> Balancer {
    let random = S::Dnat { key: with(target.key, &[Field::RandomIndex]), map: name(target.endpoints) };
    let known = S::Dnat { key: client_key(target.key), map: name(target.clients) };
    // Both targets behind one remember map share its chains, so each chain serves both.
    let same_map = TARGETS.iter().filter(|t| t.remember == target.remember);
    let update = same_map.map(|t| {
        vec![
            S::InSet { key: with(t.original, &ENDPOINT), set: name(t.members), negate: false },
            S::Remember { key: client_key(t.original), data: ENDPOINT.to_vec(), map: name(t.clients) },
        ]
    });
    Balancer {
        verdicts: name(target.verdicts),
        endpoints: name(target.endpoints),
        chain: name(target.chain),
        pick: vec![vec![random.clone()]],
        affinity: Some(Affinity {
            chain: name(target.sticky),
            pick: vec![vec![known], vec![random]],
            clients: name(target.clients),
            verdicts: name(target.remember),
            remember: name(target.remember),
            update: update.collect(),
            members: name(target.members),
        }),
    }
}

fn in_set(key: &[Field], set: &'static str) -> S {
    S::InSet { key: key.to_vec(), set: name(set), negate: false }
}

fn vmap(key: &[Field], map: &'static str) -> S {
    S::VerdictMap { key: key.to_vec(), map: name(map) }
}

fn jump(chain: &'static str) -> S {
    S::Jump(name(chain))
}

fn prefix(field: Field, (addr, len): Prefix, negate: bool) -> S {
    S::InPrefix { field, negate, addr, len }
}

fn set(set: &'static str, key: &[Field], data: Data) -> SetDef {
    SetDef { name: name(set), key: key.to_vec(), data, interval: false, dynamic: false, size: 0 }
}

/// The most clients that one affinity map remembers.
const MAX_CLIENTS: u32 = 1 << 16;

impl Layout<'_> {
    fn sets(&self) -> Vec<SetDef> {
        let endpoint = || Data::Fields(ENDPOINT.to_vec());
        let mut sets = Vec::new();
        for target in &TARGETS {
            sets.push(set(target.verdicts, target.key, Data::Verdict));
            sets.push(set(target.endpoints, &with(target.key, &[Field::RandomIndex]), endpoint()));
            sets.push(set(target.members, &with(target.original, &ENDPOINT), Data::None));
            let clients = set(target.clients, &client_key(target.key), endpoint());
            sets.push(SetDef { dynamic: true, size: MAX_CLIENTS, ..clients });
        }
        sets.push(set("remember", &ORIGINAL_VIP, Data::Verdict));
        sets.push(set("nodeport-remember", &ORIGINAL_NODE_PORT, Data::Verdict));
        sets.push(set("cluster-ips", &[Field::DestAddr], Data::None));
        sets.push(set("external-cluster-ips", &VIP, Data::None));
        sets.push(set("external-local-ips", &VIP, Data::None));
        sets.push(set("nodeports-cluster", &NODE_PORT, Data::None));
        sets.push(set("nodeports-local", &NODE_PORT, Data::None));
        sets.push(set("firewall-ips", &VIP, Data::None));
        let ranges = set("firewall-ranges", &with(&VIP, &[Field::SourceAddr]), Data::None);
        sets.push(SetDef { interval: true, ..ranges });
        sets.push(set("hairpin-connections", &client_key(&VIP), Data::None));
        if self.node_addresses().is_some() {
            sets.push(set("nodeport-ips", &[Field::DestAddr], Data::None));
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
        let new = |chain| vec![vec![S::StateNew, jump(chain)]];
        let (pre, out) = (HookPoint::Prerouting, HookPoint::Output);
        vec![
            regular("services", self.services()),
            regular("nodeports", nodeports(self.mark)),
            regular("local-policy-ips", self.local_policy(vmap(&VIP, "outside-ips"))),
            regular("local-policy-nodeports", self.local_policy(vmap(&NODE_PORT, "outside-nodeports"))),
            regular("untranslated-nodeports", refuse_nodeports()),
            regular("after-dnat", self.after_dnat()),
            base("nat-prerouting", ChainKind::Nat, pre, DNAT, vec![vec![jump("services")]]),
            base("nat-output", ChainKind::Nat, out, DNAT, vec![vec![jump("services")]]),
            base("filter-prerouting", ChainKind::Filter, pre, DNAT + 1, new("after-dnat")),
            base("filter-output", ChainKind::Filter, out, DNAT + 1, new("after-dnat")),
            base("nat-postrouting", ChainKind::Nat, HookPoint::Postrouting, SNAT, self.postrouting()),
        ]
    }

    fn of_family<'p>(&self, prefixes: impl IntoIterator<Item = &'p Prefix>) -> Vec<Prefix> {
        prefixes.into_iter().copied().filter(|(addr, _)| Family::of(*addr) == self.family).collect()
    }

    /// The prefixes of this node's own pods.
    fn pods(&self) -> Vec<Prefix> {
        match &self.options.detect_local {
            DetectLocal::None => Vec::new(),
            DetectLocal::ClusterCidr(prefixes) => self.of_family(prefixes),
        }
    }

    fn services(&self) -> Vec<Rule> {
        let mut rules = vec![vec![
            in_set(&VIP, "firewall-ips"),
            S::InSet { key: with(&VIP, &[Field::SourceAddr]), set: name("firewall-ranges"), negate: true },
            S::Drop,
        ]];
        let pods = self.pods();
        if self.options.masquerade_all {
            rules.push(vec![in_set(&[Field::DestAddr], "cluster-ips"), S::MarkOr(self.mark)]);
        } else if !pods.is_empty() {
            let mut rule = vec![in_set(&[Field::DestAddr], "cluster-ips")];
            rule.extend(pods.into_iter().map(|p| prefix(Field::SourceAddr, p, true)));
            rule.push(S::MarkOr(self.mark));
            rules.push(rule);
        }
        rules.push(vec![in_set(&VIP, "external-cluster-ips"), S::MarkOr(self.mark)]);
        rules.push(vec![in_set(&VIP, "external-local-ips"), jump("local-policy-ips")]);
        rules.push(vec![vmap(&VIP, "service-ips")]);
        rules.push(self.at_node_address(jump("nodeports")));
        rules
    }

    /// Traffic from this node's pods and from the node itself may use all endpoints; the node's is masqueraded.
    fn local_policy(&self, outside: S) -> Vec<Rule> {
        let pods = self.pods().into_iter().map(|p| vec![prefix(Field::SourceAddr, p, false), S::Return]);
        let mut rules: Vec<Rule> = pods.collect();
        let own = S::IsLocal { field: Field::SourceAddr, negate: false };
        rules.push(vec![own, S::MarkOr(self.mark), S::Return]);
        rules.push(vec![outside]);
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

    /// What answers nodePorts; none: every local address but loopback. As with kube-proxy, prefixes of the other
    /// family only mean no restriction for this one, and so does a prefix of length 0.
    fn node_addresses(&self) -> Option<NodeAddresses> {
        let NodePortAddresses::Only { primary, prefixes } = &self.options.node_port_addresses else {
            return None;
        };
        let (primary, prefixes) = (*primary, self.of_family(prefixes));
        let everything = prefixes.iter().any(|(_, len)| *len == 0) || (prefixes.is_empty() && !primary);
        (!everything).then(|| NodeAddresses { set: name("nodeport-ips"), primary, prefixes })
    }

    fn after_dnat(&self) -> Vec<Rule> {
        let mut rules = vec![
            vec![S::StatusDnat, vmap(&ORIGINAL_VIP, "remember")],
            // A VIP may have the same port as a nodePort with affinity: the chain checks the endpoint.
            vec![S::StatusDnat, vmap(&ORIGINAL_NODE_PORT, "nodeport-remember")],
            vec![S::StatusDnat, S::Return],
            vec![in_set(&[Field::DestAddr], "cluster-ips"), S::Reject],
            vec![in_set(&VIP, "external-cluster-ips"), S::Reject],
            vec![in_set(&VIP, "external-local-ips"), S::Reject],
        ];
        let unallocated = self.of_family(&self.options.service_cidrs);
        rules.extend(unallocated.into_iter().map(|p| vec![prefix(Field::DestAddr, p, false), S::Drop]));
        rules.push(self.at_node_address(jump("untranslated-nodeports")));
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        vec![
            vec![S::StatusDnat, in_set(&client_key(&VIP), "hairpin-connections"), S::Masquerade],
            vec![S::MarkIs { bits: self.mark, set: false }, S::Return],
            vec![S::MarkXor(self.mark)],
            vec![S::Masquerade],
        ]
    }
}

fn nodeports(mark: u32) -> Vec<Rule> {
    vec![
        vec![in_set(&NODE_PORT, "nodeports-cluster"), S::MarkOr(mark)],
        vec![in_set(&NODE_PORT, "nodeports-local"), jump("local-policy-nodeports")],
        vec![vmap(&NODE_PORT, "service-nodeports")],
    ]
}

fn refuse_nodeports() -> Vec<Rule> {
    ["nodeports-cluster", "nodeports-local"].map(|set| vec![in_set(&NODE_PORT, set), S::Reject]).to_vec()
}
