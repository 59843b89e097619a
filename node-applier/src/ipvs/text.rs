//! A node's IPVS mode as text, in the words of the tools that list it: `ipvsadm -Sn`, `ipset save`, `iptables-save`.
//!
//! What is shown is the state after a rebuild on an empty kernel; later, destinations that left and still have connections
//! are there with weight 0.

use std::fmt::Write as _;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_netlink::ipset::{Entry, MAX_ENTRIES};
use rulecast_netlink::ipvs::VirtualServer;

use super::DEVICE;
use super::plan::{self, plan};
use super::rules;
use super::sets::Set;
use super::state::State;
use super::wanted::Wanted;
use crate::view::View;

/// What a node with this view and these addresses holds; empty if the view is not for IPVS.
#[must_use]
pub fn render(view: &View, node_addrs: &[IpAddr]) -> String {
    let options = |family| view.options(family).and_then(|o| Some((family, o, o.ipvs.as_ref()?)));
    let families: Vec<_> = [Family::V4, Family::V6].into_iter().filter_map(options).collect();
    let Some((_, _, first)) = families.first() else { return String::new() };
    let served: Vec<Family> = families.iter().map(|(family, ..)| *family).collect();
    let wanted = Wanted::new(view, node_addrs, &served, &first.scheduler);
    let mut state = State::default();
    let all = plan(&state, &wanted, &plan::Touched::everything(&state, &wanted));
    state.apply(&all.make);
    state.apply(&all.remove);
    let mut text = String::from("# ipvsadm -Sn\n");
    text += &servers(&state);
    for family in served {
        let _ = writeln!(text, "# ipset save, {}", word(family));
        text += &sets(&state, family);
    }
    for (family, options, _) in families {
        let tool = if family == Family::V4 { "iptables-save" } else { "ip6tables-save" };
        let _ = writeln!(text, "# {tool}");
        text += &rules::restore(&rules::tables(family, options, &view.fact().pod_cidrs), "");
    }
    let _ = writeln!(text, "# ip address show dev {DEVICE}");
    let mut addrs: Vec<_> = state.addrs.iter().collect();
    addrs.sort_unstable();
    for addr in addrs {
        let (inet, len) = if addr.is_ipv4() { ("inet", 32) } else { ("inet6", 128) };
        let _ = writeln!(text, "{inet} {addr}/{len}");
    }
    text
}

fn word(family: Family) -> &'static str {
    if family == Family::V4 { "inet" } else { "inet6" }
}

/// As `ipvsadm -Sn` prints them, sorted.
fn servers(state: &State) -> String {
    let mut text = String::new();
    let mut all: Vec<_> = state.servers.iter().collect();
    all.sort_unstable_by_key(|(at, _)| **at);
    for (at, server) in all {
        let at = option(at);
        let _ = write!(text, "-A {at} -s {}", server.scheduling.scheduler);
        if let Some(seconds) = server.scheduling.persistence {
            let _ = write!(text, " -p {seconds}");
        }
        if server.scheduling.fallback {
            let _ = write!(text, " -b {}-fallback", server.scheduling.scheduler);
        }
        text.push('\n');
        for (to, weight) in &server.destinations {
            let _ = writeln!(text, "-a {at} -r {to} -m -w {weight}");
        }
    }
    text
}

fn option(at: &VirtualServer) -> String {
    let proto = match at.proto {
        6 => "-t",
        17 => "-u",
        _ => "--sctp-service",
    };
    format!("{proto} {}", std::net::SocketAddr::new(at.addr, at.port))
}

/// As `ipset save` prints them, without what depends on the tool's version, sorted.
fn sets(state: &State, family: Family) -> String {
    let mut text = String::new();
    for set in Set::ALL {
        let (name, kind) = (set.name(family), set.kind().name());
        let _ = writeln!(
            text,
            "create {name} {kind} family {} hashsize 1024 maxelem {MAX_ENTRIES}",
            word(family)
        );
        let ours = state.entries.iter().filter(|(s, e)| *s == set && Family::of(e.addr) == family);
        let mut entries: Vec<&Entry> = ours.map(|(_, entry)| entry).collect();
        entries.sort_unstable();
        for entry in entries {
            let _ = writeln!(text, "add {name} {}", self::entry(entry));
        }
    }
    text
}

/// As ipset prints an entry: `10.96.0.1,tcp:80,203.0.113.0/24`.
pub(super) fn entry(entry: &Entry) -> String {
    let mut text = entry.addr.to_string();
    if let Some((proto, port)) = entry.port {
        let proto = match proto {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            _ => "?",
        };
        let _ = write!(text, ",{proto}:{port}");
    }
    if let Some((addr, len)) = entry.second {
        let full = if addr.is_ipv4() { 32 } else { 128 };
        let _ = if len == full { write!(text, ",{addr}") } else { write!(text, ",{addr}/{len}") };
    }
    text
}
