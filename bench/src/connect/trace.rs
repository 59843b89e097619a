//! Counts the rules that a packet is compared with, from what the kernel tells of a traced packet.
//!
//! The kernel reports a rule only when all of it matches (`nft_do_chain` in `net/netfilter/nf_tables_core.c`). A rule that
//! does not match costs time just the same, so those between two reports are counted from the chain's listing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rulecast_tests::nft::nft;

use super::path::Path;
use crate::objects::{OUTSIDE, POD, SERVICE_CIDR};

/// A table of rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) family: &'static str,
    pub(super) name: &'static str,
}

/// nft tells of a packet within a fraction of this.
const QUIET: Duration = Duration::from_millis(150);

/// What a packet met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// Rules it was compared with, at least in part.
    pub(super) rules: u32,
    /// Chains it entered.
    pub(super) chains: u32,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        self.rules += other.rules;
        self.chains += other.chains;
    }
}

/// The table that marks packets, before anything else looks at them.
const TRACER: &str = "rulecast-bench-trace";

fn tracer() -> String {
    format!(
        "table ip {TRACER} {{
            chain prerouting {{
                type filter hook prerouting priority -400;
                ip saddr {{ {POD}, {OUTSIDE} }} meta l4proto tcp meta nftrace set 1;
            }}
            chain output {{
                type filter hook output priority -400;
                ip daddr {SERVICE_CIDR} meta l4proto tcp meta nftrace set 1;
            }}
        }}"
    )
}

/// A running trace.
pub(super) struct Trace<'a> {
    path: &'a Path,
    table: Table,
    monitor: Child,
    output: tempfile::NamedTempFile,
    /// Handles of the rules of each chain, in order.
    chains: HashMap<String, Vec<u64>>,
}

impl<'a> Trace<'a> {
    /// Begins to trace. nft reads the whole ruleset first, which may take it a while.
    pub(super) fn start(path: &'a Path, table: Table) -> Result<Self> {
        let mut rules = tempfile::NamedTempFile::new()?;
        rules.write_all(tracer().as_bytes())?;
        nft(&path.node, &["-f", &rules.path().display().to_string()])?;
        let output = tempfile::NamedTempFile::new()?;
        let stdout = File::create(output.path())?;
        let monitor = path.node.run(|| {
            let mut command = Command::new("nft");
            command.args(["-a", "monitor", "trace"]).stdin(Stdio::null()).stdout(stdout).spawn()
        })??;
        // All at once: to list a single chain, nft reads the whole table just the same.
        let listing = nft(&path.node, &["-a", "-t", "list", "table", table.family, table.name])?;
        Ok(Self { path, table, monitor, output, chains: chains(&listing) })
    }

    /// What the first packet of a connection meets, and what the next one does. `connect` makes one connection to `target`.
    pub(super) fn connection(
        &mut self,
        target: SocketAddr,
        connect: impl Fn(&Path) -> Result<()>,
    ) -> Result<[Met; 2]> {
        let end = Instant::now() + Duration::from_mins(15);
        loop {
            let from = fs::read_to_string(self.output.path())?.len();
            connect(self.path)?;
            let text = self.said_since(from)?;
            let packets = packets(&text)?;
            let to = format!("ip daddr {} ", target.ip());
            let of = |flags: &str| {
                let mark = format!("tcp flags == {flags} ");
                let found = packets.iter().find(|p| p.header.contains(&to) && p.header.contains(&mark));
                found.map(|packet| self.count(packet)).transpose()
            };
            if let (Some(first), Some(next)) = (of("syn")?, of("ack")?) {
                return Ok([first, next]);
            }
            ensure!(Instant::now() < end, "nft tells nothing of a packet to {target}:\n{text}");
        }
    }

    /// What nft says, when it has no more to say.
    fn said_since(&self, from: usize) -> Result<String> {
        let mut length = None;
        loop {
            sleep(QUIET);
            let text = fs::read_to_string(self.output.path())?.split_off(from);
            if length.replace(text.len()) == Some(text.len()) {
                return Ok(text);
            }
        }
    }

    fn count(&self, packet: &Packet<'_>) -> Result<Met> {
        let mut met = Met::default();
        for passage in packet.passages.iter().filter(|p| p.table == self.table.name) {
            count(&passage.events, &self.chains, &mut met)
                .with_context(|| format!("a trace that makes no sense: {:?}", passage.events))?;
        }
        Ok(met)
    }
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        let _gone = self.monitor.kill();
        let _gone = self.monitor.wait();
        let _gone = nft(&self.path.node, &["delete", "table", "ip", TRACER]);
    }
}

/// A packet's way through all tables.
#[derive(Debug)]
struct Packet<'a> {
    id: &'a str,
    /// What it looked like when it came.
    header: &'a str,
    passages: Vec<Passage<'a>>,
}

/// A packet's way through one base chain and what it leads to.
#[derive(Debug)]
struct Passage<'a> {
    table: &'a str,
    events: Vec<Event<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    /// A rule that matched.
    Rule { chain: &'a str, handle: u64, verdict: &'a str },
    /// The end of a base chain.
    Policy { chain: &'a str },
}

/// Where a verdict leads, and whether it comes back.
fn target(verdict: &str) -> Option<(&str, bool)> {
    let jump = verdict.strip_prefix("jump ").map(|chain| (chain, true));
    jump.or_else(|| verdict.strip_prefix("goto ").map(|chain| (chain, false)))
}

/// Reads lines `trace id ID FAMILY TABLE CHAIN packet: …|rule … # handle N (verdict V)|policy …`. Each base chain begins
/// with the packet, and each packet with our own.
fn packets(text: &str) -> Result<Vec<Packet<'_>>> {
    let mut packets: Vec<Packet<'_>> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(7, ' ');
        let (Some("trace"), Some("id"), Some(id), Some(_), Some(table), Some(chain), Some(rest)) = (
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
        ) else {
            continue;
        };
        let passed = rest.strip_prefix("packet: ");
        if let Some(header) = passed.filter(|_| table == TRACER) {
            packets.push(Packet { id, header, passages: Vec::new() });
        }
        // The number is a hash of where the packet lies in memory: the next packet may well have the same.
        let Some(packet) = packets.iter_mut().rev().find(|packet| packet.id == id) else { continue };
        if passed.is_some() {
            packet.passages.push(Passage { table, events: Vec::new() });
            continue;
        }
        let Some(passage) = packet.passages.last_mut() else { continue };
        if rest.starts_with("policy ") {
            passage.events.push(Event::Policy { chain });
        } else if rest.starts_with("rule ") {
            let (_, end) = rest.rsplit_once("# handle ").with_context(|| format!("no handle: {line}"))?;
            let (handle, verdict) =
                end.split_once(" (verdict ").with_context(|| format!("no verdict: {line}"))?;
            let verdict = verdict.trim_end().trim_end_matches(')');
            passage.events.push(Event::Rule { chain, handle: handle.parse()?, verdict });
        }
    }
    Ok(packets)
}

/// The handles of the rules of each chain, in order, from a table's listing.
fn chains(listing: &str) -> HashMap<String, Vec<u64>> {
    let mut chains: HashMap<_, Vec<u64>> = HashMap::new();
    let mut current = None;
    for line in listing.lines() {
        let Some((text, handle)) = line.rsplit_once("# handle ") else { continue };
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("chain"), Some(name), Some("{")) => {
                current = Some(chains.entry(name.to_owned()).or_default());
            }
            (Some("table" | "set" | "map" | "counter"), Some(_), Some("{")) => current = None,
            _ => {
                // A long rule's handle is at the end of its last line.
                if let (Some(rules), Ok(handle)) = (&mut current, handle.trim().parse()) {
                    rules.push(handle);
                }
            }
        }
    }
    chains
}

/// Walks the chains of a passage as the kernel did.
fn count(events: &[Event<'_>], chains: &HashMap<String, Vec<u64>>, met: &mut Met) -> Result<()> {
    // Chains that are entered and not left, with the number of rules already done.
    let mut stack: Vec<(&str, usize)> = Vec::new();
    let mut entered = false;
    let rules = |chain: &str| chains.get(chain).map_or(&[][..], Vec::as_slice);
    let rest = |(chain, done): (&str, usize)| u32::try_from(rules(chain).len() - done);
    for event in events {
        let (Event::Rule { chain, .. } | Event::Policy { chain }) = event;
        if stack.is_empty() {
            // A base chain that returns ends with its policy.
            if entered {
                break;
            }
            stack.push((chain, 0));
            met.chains += 1;
            entered = true;
        }
        // What is on top and says nothing more has come to its end, unless this is of the same chain.
        while let Some(&top) = stack.last()
            && (top.0 != *chain || matches!(event, Event::Policy { .. }))
        {
            met.rules += rest(top)?;
            stack.pop();
        }
        let Event::Rule { handle, verdict, .. } = event else { continue };
        let top = stack.last_mut().with_context(|| format!("{chain} was not entered"))?;
        let at = rules(chain).iter().position(|known| known == handle);
        let at = at.with_context(|| format!("{chain} has no rule {handle}"))? + 1;
        ensure!(at > top.1, "{chain} went backwards");
        met.rules += u32::try_from(at - top.1)?;
        top.1 = at;
        match (*verdict, target(verdict)) {
            ("continue", _) => {}
            ("return", _) => drop(stack.pop()),
            (_, Some((next, comes_back))) => {
                if !comes_back {
                    stack.pop();
                }
                stack.push((next, 0));
                met.chains += 1;
            }
            ("accept" | "drop" | "stolen", None) => stack.clear(),
            (other, None) => bail!("an unknown verdict {other}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
trace id e1 ip rulecast-bench-trace out packet: oif \"lo\" ip daddr 10.96.0.1 tcp dport 81 tcp flags == syn tcp window 65495
trace id e1 ip rulecast-bench-trace out rule meta nftrace set 1 # handle 4 (verdict continue)
trace id e1 ip rulecast-bench-trace out policy accept
trace id e1 ip k pre packet: oif \"lo\" ip daddr 10.96.0.1 tcp dport 81 tcp flags == syn tcp window 65495
trace id e1 ip k pre rule jump s # handle 17 (verdict jump s)
trace id e1 ip k s rule tcp dport vmap @m # handle 15 (verdict goto z)
trace id e1 ip k z rule numgen random mod 2 vmap { 0 : goto y, 1 : goto y } # handle 11 (verdict goto y)
trace id e1 ip k y rule redirect to :99 # handle 13 (verdict accept)
trace id e1 ip k f packet: oif \"lo\" ip daddr 127.0.0.1 tcp dport 99 tcp flags == syn tcp window 65495
trace id e1 ip k f rule ct state new jump g # handle 18 (verdict jump g)
trace id e1 ip k g rule ct status dnat counter packets 0 bytes 0 # handle 20 (verdict continue)
trace id e1 ip k g rule ct status dnat return # handle 21 (verdict return)
trace id e1 ip k f policy accept meta mark 0x00004000
trace id e1 ip rulecast-bench-trace out packet: oif \"lo\" ip daddr 10.96.0.1 tcp dport 81 tcp flags == ack tcp window 65495
trace id e1 ip k p packet: oif \"lo\" ip daddr 127.0.0.1 tcp dport 99 tcp flags == ack tcp window 65495
trace id e1 ip k p rule meta mark 0 return # handle 41 (verdict return)
trace id e1 ip k p policy accept";

    fn listed() -> HashMap<String, Vec<u64>> {
        let list = |chain: &str, handles: &[u64]| (chain.to_owned(), handles.to_vec());
        let chains: [_; 7] = [
            list("pre", &[17]),
            list("s", &[14, 15, 16]),
            list("z", &[9, 11]),
            list("y", &[12, 13]),
            list("f", &[18, 30, 31]),
            list("g", &[19, 20, 21, 22]),
            list("p", &[40, 41, 42]),
        ];
        chains.into()
    }

    #[test]
    fn rules_that_did_not_match_count_up_to_the_one_that_left() {
        let packets = packets(TRACE).unwrap();
        let [packet, next] = packets.as_slice() else { panic!("{packets:?}") };
        assert!(packet.header.contains("ip daddr 10.96.0.1 "));
        assert_eq!(packet.passages.iter().map(|p| p.table).collect::<Vec<_>>(), [TRACER, "k", "k"]);
        let met = |packet: &Packet<'_>, at: usize| {
            let mut met = Met::default();
            count(&packet.passages[at].events, &listed(), &mut met).unwrap();
            met
        };
        // jump; 14 missed, 15; 9 missed, 11; 12 missed, 13.
        assert_eq!(met(packet, 1), Met { rules: 7, chains: 4 });
        // jump; 19 missed, 20, 21 returns; 30 and 31 missed.
        assert_eq!(met(packet, 2), Met { rules: 6, chains: 2 });
        // 40 missed, 41 returns, which ends a base chain.
        assert_eq!(met(next, 1), Met { rules: 2, chains: 1 });
    }

    #[test]
    fn a_chain_that_says_nothing_is_counted_to_its_end() {
        let events =
            [Event::Rule { chain: "pre", handle: 17, verdict: "jump s" }, Event::Policy { chain: "pre" }];
        let mut met = Met::default();
        count(&events, &listed(), &mut met).unwrap();
        assert_eq!(met, Met { rules: 4, chains: 2 });
        let unknown = [Event::Rule { chain: "pre", handle: 99, verdict: "accept" }];
        assert!(count(&unknown, &listed(), &mut met).is_err());
    }

    #[test]
    fn handles_are_those_of_rules() {
        let listing = "\
table ip k { # handle 1
\tset x { # handle 2
\t\ttype ipv4_addr
\t}
\tchain s { # handle 3
\t\ttype filter hook input priority 0; policy accept;
\t\ttcp dport 80 drop # handle 14
\t\ttcp dport vmap { 1 : drop,
\t\t\t 2 : drop } # handle 15
\t}

\tchain empty { # handle 4
\t}
}";
        let wanted = [("s".to_owned(), vec![14, 15]), ("empty".to_owned(), vec![])];
        assert_eq!(chains(listing), wanted.into());
    }
}
