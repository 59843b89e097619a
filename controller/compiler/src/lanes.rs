//! The classes of kernel keys, and how nftables serves each of them.

use rulecast_bundle::name;
use rulecast_bundle::nft::{Affinity, Detour, Field, Lane as Layout, Remember, Rule, Statement as S};

use crate::keys::{CLIENT, ENDPOINT, NODE_PORT, ORIGINAL_NODE_PORT, ORIGINAL_VIP, VIP, with};

/// Clients at the cluster list of a Service port, and at its local list.
const CLIENTS: &str = "affinity";
const LOCAL_CLIENTS: &str = "local-affinity";

/// The map that leads there, the chains, and which members go into which map of clients.
type Remembers = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What differs between lanes.
#[derive(Clone, Copy)]
struct Words {
    key: &'static [Field],
    original: &'static [Field],
    verdicts: &'static str,
    endpoints: &'static str,
    chain: &'static str,
    set: Option<&'static str>,
    detour: Option<(&'static str, &'static str)>,
    /// Traffic is masqueraded.
    masquerade: bool,
    sticky: &'static str,
    clients: &'static str,
    members: &'static str,
    remember: Option<Remembers>,
}

const CLUSTER_IP: Words = Words {
    key: &VIP,
    original: &ORIGINAL_VIP,
    verdicts: "service-ips",
    endpoints: "endpoints",
    chain: "lb",
    set: Some("cluster-ips"),
    detour: None,
    masquerade: false,
    sticky: "sticky",
    clients: CLIENTS,
    members: "members",
    remember: Some(("remember", "remember", &[("members", CLIENTS)])),
};

const NODE_PORT_CLUSTER: Words = Words {
    key: &NODE_PORT,
    original: &ORIGINAL_NODE_PORT,
    verdicts: "service-nodeports",
    endpoints: "nodeport-endpoints",
    chain: "nodeport-lb",
    set: Some("nodeports"),
    detour: None,
    masquerade: true,
    sticky: "nodeport-sticky",
    clients: CLIENTS,
    members: "nodeport-members",
    remember: Some(("nodeport-remember", "nodeport-remember", &[("nodeport-members", CLIENTS)])),
};

/// In the order of [`rulecast_bundle::Lane`].
const LANES: [Words; 8] = [
    CLUSTER_IP,
    Words {
        sticky: "local-sticky",
        clients: LOCAL_CLIENTS,
        remember: Some(("remember", "local-remember", &[("members", LOCAL_CLIENTS)])),
        ..CLUSTER_IP
    },
    Words {
        chain: "external-lb",
        set: Some("external-ips"),
        masquerade: true,
        sticky: "external-sticky",
        ..CLUSTER_IP
    },
    Words {
        verdicts: "inside-ips",
        set: Some("external-ips"),
        detour: Some(("service-ips", "local-policy-ips")),
        sticky: "inside-sticky",
        remember: None,
        ..CLUSTER_IP
    },
    Words {
        verdicts: "outside-ips",
        endpoints: "outside-endpoints",
        chain: "outside-lb",
        set: None,
        sticky: "outside-sticky",
        clients: LOCAL_CLIENTS,
        members: "outside-members",
        // Which of the two lists was used does not show afterwards; a client of both keeps its endpoint.
        remember: Some((
            "remember",
            "outside-remember",
            &[("members", CLIENTS), ("outside-members", LOCAL_CLIENTS)],
        )),
        ..CLUSTER_IP
    },
    NODE_PORT_CLUSTER,
    Words {
        verdicts: "inside-nodeports",
        chain: "inside-nodeport-lb",
        detour: Some(("service-nodeports", "local-policy-nodeports")),
        masquerade: false,
        sticky: "inside-nodeport-sticky",
        remember: None,
        ..NODE_PORT_CLUSTER
    },
    Words {
        verdicts: "outside-nodeports",
        endpoints: "outside-nodeport-endpoints",
        chain: "outside-nodeport-lb",
        set: None,
        masquerade: false,
        sticky: "outside-nodeport-sticky",
        clients: LOCAL_CLIENTS,
        members: "outside-nodeport-members",
        remember: Some((
            "nodeport-remember",
            "outside-nodeport-remember",
            &[("nodeport-members", CLIENTS), ("outside-nodeport-members", LOCAL_CLIENTS)],
        )),
        ..NODE_PORT_CLUSTER
    },
];

/// How the node serves the lanes; `mark` marks what is to be masqueraded.
pub(crate) fn layout(mark: u32) -> Vec<Layout> {
    LANES.iter().map(|words| lane(words, mark)).collect()
}

fn lane(words: &Words, mark: u32) -> Layout {
    let marked = |statement| {
        let mark = words.masquerade.then_some(S::MarkOr(mark));
        mark.into_iter().chain([statement]).collect::<Rule>()
    };
    let random = S::Dnat { key: with(words.key, &[Field::RandomIndex]), map: name(words.endpoints) };
    let known = S::Dnat { key: CLIENT.to_vec(), map: name(words.clients) };
    Layout {
        verdicts: name(words.verdicts),
        endpoints: name(words.endpoints),
        chain: name(words.chain),
        pick: vec![marked(random)],
        affinity: Some(Affinity {
            chain: name(words.sticky),
            look: vec![marked(known), vec![S::Goto(name(words.chain))]],
            members: name(words.members),
            remember: words.remember.map(|(verdicts, chain, maps)| Remember {
                verdicts: name(verdicts),
                chain: name(chain),
                rules: maps.iter().map(|(members, clients)| remember(words, members, clients)).collect(),
            }),
        }),
        sets: words.set.map(name).into_iter().collect(),
        detour: words.detour.map(|(map, chain)| Detour { map: name(map), chain: name(chain) }),
    }
}

fn remember(words: &Words, members: &'static str, clients: &'static str) -> Rule {
    let key = with(words.original, &ENDPOINT);
    vec![
        S::InSet { key, set: name(members), negate: false },
        S::Remember { key: CLIENT.to_vec(), data: ENDPOINT.to_vec(), map: name(clients) },
    ]
}
