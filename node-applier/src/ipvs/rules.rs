//! The iptables rules of IPVS mode: a few, which depend on the pool's options alone; Services are entries of ipsets. Pure.
//!
//! IPVS takes what comes in at the end of INPUT, and what this node sends itself in OUTPUT, behind NAT and before the filter.
//! So what must not reach it is dropped in mangle, and what is to be masqueraded is marked in nat, where a connection's first
//! packet passes. In filter there only arrives what no virtual server has taken.
//!
//! Rules are written as iptables-save prints them, so that the two can be compared.

use std::net::IpAddr;

use rulecast_bundle::FamilyOptions;
use rulecast_bundle::nft::Family;

use super::sets::Set;
use crate::iptables::rule::{Rule, of_pods};

/// One table's part that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Our chains with their rules.
    pub(super) chains: Vec<(&'static str, Vec<String>)>,
    /// What leads to them, as rules of the table's own chains; they come first there.
    pub(super) jumps: Vec<String>,
}

/// The rules of a family; `pods`: its own pods' addresses, when the pool says that they tell pods.
pub(super) fn tables(family: Family, options: &FamilyOptions, pod_cidrs: &[(IpAddr, u8)]) -> Vec<Table> {
    let pods = of_pods(family, options, pod_cidrs);
    let layout = Layout { family, options, pods };
    vec![layout.mangle(), layout.nat(), layout.filter()]
}

/// All chains that any version of the rules has.
pub(super) const CHAINS: [(&str, &[&str]); 3] = [
    ("mangle", &["RCV-DROP", "RCV-OUTSIDE"]),
    ("nat", &["RCV-SERVICES", "RCV-CLUSTER", "RCV-MARK", "RCV-POST"]),
    ("filter", &["RCV-INPUT", "RCV-OUTPUT", "RCV-FORWARD"]),
];

const MANGLE: [&str; 2] =
    ["PREROUTING -m conntrack --ctstate NEW -j RCV-DROP", "OUTPUT -m conntrack --ctstate NEW -j RCV-DROP"];
const NAT: [&str; 3] = ["PREROUTING -j RCV-SERVICES", "OUTPUT -j RCV-SERVICES", "POSTROUTING -j RCV-POST"];
const FILTER: [&str; 3] = ["INPUT -j RCV-INPUT", "OUTPUT -j RCV-OUTPUT", "FORWARD -j RCV-FORWARD"];

struct Layout<'a> {
    family: Family,
    options: &'a FamilyOptions,
    /// Matches that tell traffic of this node's pods, each for itself.
    pods: Vec<Rule>,
}

impl Layout<'_> {
    fn set(&self, set: Set, directions: &str) -> String {
        format!("-m set --match-set {} {directions}", set.name(self.family))
    }

    fn frontend(&self, set: Set) -> String {
        self.set(set, "dst,dst")
    }

    fn returns(&self) -> Vec<String> {
        self.pods.iter().map(|pods| pods.clone().leave().as_str().to_owned()).collect()
    }

    /// What no virtual server may get.
    fn mangle(&self) -> Table {
        let ranges = Set::Ranges.name(self.family);
        let (firewall, no_local) = (self.frontend(Set::Firewall), self.frontend(Set::NoLocal));
        let drop = vec![
            format!("{firewall} -m set ! --match-set {ranges} dst,dst,src -j DROP"),
            format!("{} -j DROP", self.frontend(Set::Dropped)),
            format!("{no_local} -j RCV-OUTSIDE"),
        ];
        let mut outside = self.returns();
        outside.extend(["-m addrtype --src-type LOCAL -j RETURN".to_owned(), "-j DROP".to_owned()]);
        let chains = vec![("RCV-DROP", drop), ("RCV-OUTSIDE", outside)];
        Table { name: "mangle", chains, jumps: MANGLE.map(str::to_owned).into() }
    }

    /// What is to be masqueraded: whatever comes from outside with policy Cluster, what comes to cluster IPs from elsewhere
    /// than pods, and all that this node sends itself, since its source is the VIP.
    fn nat(&self) -> Table {
        let mark = self.options.mark;
        let mut services = vec![
            format!("{} -j RCV-MARK", self.frontend(Set::Masquerade)),
            format!("{} -m addrtype --src-type LOCAL -j RCV-MARK", self.frontend(Set::Served)),
        ];
        let mut cluster = Vec::new();
        if self.options.masquerade_all || !self.pods.is_empty() {
            services.push(format!("{} -j RCV-CLUSTER", self.frontend(Set::ClusterIps)));
            if !self.options.masquerade_all {
                cluster = self.returns();
            }
            cluster.push("-j RCV-MARK".to_owned());
        }
        let post = vec![
            format!("{} -j MASQUERADE", self.set(Set::Hairpin, "dst,dst,src")),
            format!("-m mark ! --mark {mark:#x}/{mark:#x} -j RETURN"),
            format!("-j MARK --set-xmark {mark:#x}/0x0"),
            "-j MASQUERADE --random-fully".to_owned(),
        ];
        let marks = vec![format!("-j MARK --set-xmark {mark:#x}/{mark:#x}")];
        let chains = vec![
            ("RCV-SERVICES", services),
            ("RCV-CLUSTER", cluster),
            ("RCV-MARK", marks),
            ("RCV-POST", post),
        ];
        Table { name: "nat", chains, jumps: NAT.map(str::to_owned).into() }
    }

    /// The addresses are this node's, its own processes' are not: what is not served is refused. And what comes back from
    /// endpoints is let through.
    fn filter(&self) -> Table {
        let with = match self.family {
            Family::V4 => "icmp-port-unreachable",
            Family::V6 => "icmp6-port-unreachable",
        };
        let mark = self.options.mark;
        let vips = self.set(Set::Vips, "dst");
        let refuse = format!("-m conntrack --ctstate NEW {vips} -j REJECT --reject-with {with}");
        let input = vec![format!("{} -j RETURN", self.frontend(Set::Served)), refuse.clone()];
        let forward = vec![
            format!("-m mark --mark {mark:#x}/{mark:#x} -j ACCEPT"),
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        ];
        let chains = vec![("RCV-INPUT", input), ("RCV-OUTPUT", vec![refuse]), ("RCV-FORWARD", forward)];
        Table { name: "filter", chains, jumps: FILTER.map(str::to_owned).into() }
    }
}

/// What `iptables-restore --noflush` takes to make our chains as they should be: in one step for each table. `there` is what
/// iptables-save prints: only jumps that are missing are inserted.
pub(super) fn restore(tables: &[Table], there: &str) -> String {
    let mut text = Vec::new();
    for table in tables {
        text.push(format!("*{}", table.name));
        text.extend(table.chains.iter().map(|(chain, _)| format!(":{chain} - [0:0]")));
        for (chain, rules) in &table.chains {
            text.extend(rules.iter().map(|rule| format!("-A {chain} {rule}")));
        }
        for jump in table.jumps.iter().rev() {
            if !lines(there, table.name).any(|line| line.strip_prefix("-A ") == Some(jump)) {
                let (chain, rule) = jump.split_once(' ').unwrap_or((jump, ""));
                text.push(format!("-I {chain} 1 {rule}"));
            }
        }
        text.push("COMMIT".to_owned());
    }
    joined(&text)
}

/// What it takes to remove what is there of ours.
pub(super) fn removal(there: &str) -> String {
    let mut text = Vec::new();
    for (table, chains) in CHAINS {
        let is_there = |chain: &&str| lines(there, table).any(|l| l.starts_with(&format!(":{chain} ")));
        let ours: Vec<&str> = chains.iter().copied().filter(is_there).collect();
        if ours.is_empty() {
            continue;
        }
        text.push(format!("*{table}"));
        // Of a chain that is named, restoring empties it.
        text.extend(ours.iter().map(|chain| format!(":{chain} - [0:0]")));
        for line in lines(there, table).filter_map(|line| line.strip_prefix("-A ")) {
            let own = chains.iter().any(|chain| line.starts_with(&format!("{chain} ")));
            if !own && chains.iter().any(|chain| line.ends_with(&format!("-j {chain}"))) {
                text.push(format!("-D {line}"));
            }
        }
        text.extend(ours.iter().map(|chain| format!("-X {chain}")));
        text.push("COMMIT".to_owned());
    }
    joined(&text)
}

/// Lines, each with its end.
fn joined(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The lines of one table in what iptables-save prints.
pub(super) fn lines<'a>(saved: &'a str, table: &'a str) -> impl Iterator<Item = &'a str> {
    let begin = move |line: &&str| line.strip_prefix('*') != Some(table);
    saved.lines().skip_while(begin).skip(1).take_while(|line| *line != "COMMIT")
}

/// What differs, in words, and how many chains and rules were compared.
pub(super) fn differences(tables: &[Table], there: &str, mut tell: impl FnMut(String)) -> (usize, usize) {
    let (mut chains, mut count) = (0, 0);
    for table in tables {
        let name = table.name;
        for jump in &table.jumps {
            if !lines(there, name).any(|line| line.strip_prefix("-A ") == Some(jump)) {
                tell(format!("table {name}: -A {jump} is missing"));
            }
        }
        for (chain, rules) in &table.chains {
            (chains, count) = (chains + 1, count + rules.len());
            let begin = format!("-A {chain} ");
            let found: Vec<&str> = lines(there, name).filter_map(|line| line.strip_prefix(&begin)).collect();
            if !lines(there, name).any(|line| line.starts_with(&format!(":{chain} "))) {
                tell(format!("table {name}, chain {chain}: missing"));
            } else if found != *rules {
                tell(format!("table {name}, chain {chain}: other rules: {found:?} instead of {rules:?}"));
            }
        }
    }
    (chains, count)
}
