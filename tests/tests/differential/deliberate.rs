//! Where rulecast differs from kube-proxy on purpose, and one of its modes from another.

use serde_json::Value;

use crate::config::{IPTABLES, IPVS, NFTABLES};
use crate::outcome::{KEPT, Outcome};
use crate::probes::{Probe, Source};
use crate::worlds::Worlds;

/// A deliberate difference.
struct Deliberate {
    /// Why rulecast does it in another way.
    reason: &'static str,
    /// Whether this is it.
    is: fn(&Seen<'_>) -> bool,
}

/// What was seen.
struct Seen<'a> {
    probe: &'a Probe,
    peer: &'a Outcome,
    ours: &'a Outcome,
    /// Whether the Service is not there any more.
    gone: bool,
}

impl Seen<'_> {
    fn at(&self, what: &str) -> bool {
        self.probe.target.what.contains(what)
    }

    fn of_node(&self) -> bool {
        matches!(self.probe.source, Source::Node(_))
    }

    fn at_external_address(&self) -> bool {
        self.at("load balancer address") || self.at("externalIP")
    }
}

/// In nftables mode from kube-proxy's: none.
const NFTABLES_FROM_NFTABLES: &[Deliberate] = &[];

/// In nftables mode from kube-proxy's iptables mode: rulecast does as kube-proxy's nftables mode does.
const NFTABLES_FROM_IPTABLES: &[Deliberate] = &[
    Deliberate {
        reason: "nodePorts answer on the primary address only unless the pool says otherwise",
        is: |s| s.at("second address") && s.ours.is("refused"),
    },
    Deliberate {
        reason: "nodePorts do not answer on loopback",
        is: |s| s.at("loopback") && s.ours.is("refused"),
    },
    Deliberate {
        reason: "an undefined port of a cluster IP is refused, not sent into the network",
        is: |s| s.at("clusterIP at a port it has not") && s.ours.is("refused"),
    },
    Deliberate {
        reason: "source ranges are looked at before it is known that there are no endpoints",
        is: |s| s.at("load balancer address") && s.peer.is("refused") && s.ours.is("no answer"),
    },
];

/// In iptables mode from kube-proxy's.
const IPTABLES_FROM_IPTABLES: &[Deliberate] = &[Deliberate {
    reason: "nodePorts without local endpoints are dropped only at addresses that answer nodePorts; [::1] does in neither",
    is: |s| {
        s.at("nodePort of loopback")
            && s.probe.target.to.is_ipv6()
            && s.peer.is("no answer")
            && s.ours.is("refused")
    },
}];

/// In IPVS mode from rulecast's iptables mode; `docs/ipvs.md` says the same to users.
const IPVS_FROM_IPTABLES: &[Deliberate] = &[
    Deliberate {
        reason: "nodePorts do not answer on loopback",
        is: |s| s.at("loopback") && s.ours.is("refused"),
    },
    Deliberate {
        reason: "an undefined port of a cluster IP is refused, not sent into the network",
        is: |s| s.at("clusterIP at a port it has not") && s.ours.is("refused"),
    },
    Deliberate {
        reason: "an address refuses until the last connections through it have ended",
        is: |s| {
            let left = s.peer.is("no answer") || s.peer.is("unreachable");
            s.gone && left && s.ours.is("refused")
        },
    },
    Deliberate {
        reason: "source ranges are looked at before it is known that there are no endpoints",
        is: |s| s.at("load balancer address") && s.peer.is("refused") && s.ours.is("no answer"),
    },
    Deliberate {
        reason: "source ranges do not hold for what the node itself sends: its source is the address itself",
        is: |s| {
            let restricted = s.probe.target.has_ranges && s.at("load balancer address");
            s.of_node() && restricted && s.peer.is("no answer") && s.ours.answered()
        },
    },
    Deliberate {
        reason: "what a node itself sends is masqueraded: its source would be the virtual server's address",
        is: |s| {
            let masqueraded = !s.ours.counts().keys().any(|end| end.ends_with(KEPT));
            s.of_node() && s.ours.answered() && masqueraded && s.ours.whom() == s.peer.whom()
        },
    },
    Deliberate {
        reason: "with policy Local pods and nodes, too, get the endpoints of the node that serves them, if it has any",
        is: |s| {
            // Its own node translates what is sent from inside, but for what is sent to the other one.
            let node = match s.probe.source {
                _ if s.at("nodePort of node-b") => "b",
                _ if s.at("nodePort of node-a") => "a",
                Source::Pod(name) => &name[..1],
                Source::Node(number) => ["a", "b"][number],
                Source::Client | Source::Blocked => return false,
            };
            // A UDP server of the node's own network answers from another address than it was asked at.
            let on_it = |who: &str| {
                let silent = who == "no answer" && s.peer.names(who);
                silent || who.trim_start_matches("node-").starts_with(node)
            };
            let outward = s.probe.target.is_local && !s.at("clusterIP");
            outward && s.ours.whom().into_iter().all(on_it)
        },
    },
];

/// In either mode from kube-proxy's iptables mode, where that can be bettered.
const FROM_IPTABLES: &[Deliberate] = &[
    Deliberate {
        reason: "a node is refused, too, by what has no endpoints; the packet does not leave it untranslated",
        is: |s| {
            let left = s.peer.is("no answer") || s.peer.is("unreachable");
            s.of_node() && s.at_external_address() && left && s.ours.is("refused")
        },
    },
    Deliberate {
        reason: "source ranges hold for an address that is an externalIP, too",
        is: |s| {
            s.probe.target.fixture == "ranges-and-external-ip" && s.peer.answered() && s.ours.is("no answer")
        },
    },
    Deliberate {
        reason: "a pod that reaches itself by way of another node is masqueraded only where it runs",
        is: |s| s.probe.source == Source::Pod("a1") && s.at("nodePort of node-b") && s.peer.names("a1 port"),
    },
];

/// A client outside sticks to an endpoint, and nothing masquerades it: what an endpoint on another node answers does not come back
/// through the node that translated.
fn is_chance(worlds: &Worlds, seen: &Seen<'_>) -> bool {
    let unmasked = !worlds.config.detect_local && !worlds.config.masquerade_all;
    let outside = matches!(seen.probe.source, Source::Client | Source::Blocked);
    let one_answered = seen.peer.answered() != seen.ours.answered();
    unmasked && outside && seen.probe.target.sticky && seen.at("clusterIP") && one_answered
}

/// Why a difference is meant to be; nothing if it is not.
pub(crate) fn reason(worlds: &Worlds, probe: &Probe, peer: &Outcome, ours: &Outcome) -> Option<&'static str> {
    let is_it = |service: &Value| service["metadata"]["name"] == probe.target.fixture.as_str();
    let gone = worlds.config.mode == IPVS && !worlds.services().is_ok_and(|all| all.iter().any(is_it));
    let seen = Seen { probe, peer, ours, gone };
    if is_chance(worlds, &seen) {
        return Some(
            "which endpoint a client sticks to is chance, and so whether its answer finds the way back",
        );
    }
    let lists = match (worlds.config.mode, worlds.config.peer_mode) {
        (NFTABLES, NFTABLES) => [NFTABLES_FROM_NFTABLES, &[]],
        (IPVS, _) => [IPVS_FROM_IPTABLES, &[]],
        (NFTABLES, IPTABLES) => [NFTABLES_FROM_IPTABLES, FROM_IPTABLES],
        _ => [IPTABLES_FROM_IPTABLES, FROM_IPTABLES],
    };
    lists.into_iter().flatten().find(|d| (d.is)(&seen)).map(|d| d.reason)
}
