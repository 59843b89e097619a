//! The hooks of netfilter: a packet through the rules of one family's tables.

use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::Proto;

use crate::model::contains;
use crate::packet::{Machine, Outcome, Packet, Verdict};
use crate::rule::{Match, Target, What};
use crate::xtables::{Table, Tables};

/// Chains lead to chains no deeper than this.
const DEEPEST: u8 = 8;
/// By how much probabilities may differ that are to be equal: those of rules have 31 bits.
const EVEN: f64 = 1e-6;

/// A family's tables on a node.
pub(crate) struct Netfilter<'t> {
    nat: &'t Table,
    filter: &'t Table,
    machine: &'t Machine,
}

/// A packet on its way.
struct Walk<'c> {
    proto: Proto,
    src: IpAddr,
    to: SocketAddr,
    translated: bool,
    mark: u32,
    masqueraded: bool,
    interface: Option<&'static str>,
    /// What chance decides, in order, and how likely that was.
    chance: &'c mut Chance,
}

/// Goes through everything that chance may decide, one way after the other.
#[derive(Default)]
struct Chance {
    decisions: Vec<bool>,
    made: usize,
    probability: f64,
}

/// How a chain ends a packet's way through its hook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    Reject,
}

impl Chance {
    fn decide(&mut self, probability: f64) -> bool {
        if self.made == self.decisions.len() {
            self.decisions.push(true);
        }
        let yes = self.decisions[self.made];
        self.made += 1;
        self.probability *= if yes { probability } else { 1.0 - probability };
        yes
    }

    /// Another way, if there is one.
    fn next(&mut self) -> bool {
        while self.decisions.last() == Some(&false) {
            self.decisions.pop();
        }
        match self.decisions.last_mut() {
            Some(last) => {
                *last = false;
                true
            }
            None => false,
        }
    }
}

impl<'t> Netfilter<'t> {
    /// None: nothing was written there yet.
    pub(crate) fn new(tables: &'t Tables, machine: &'t Machine) -> Option<Self> {
        Some(Self { nat: tables.get("nat")?, filter: tables.get("filter")?, machine })
    }

    /// What becomes of a new connection, whatever chance decides. Endpoints have to be as likely as each other.
    pub(crate) fn verdict(&self, packet: &Packet) -> Verdict {
        let (mut verdict, mut chance, mut first) = (Verdict::new(), Chance::default(), None);
        loop {
            (chance.made, chance.probability) = (0, 1.0);
            let outcome = self.walk(packet, &mut chance);
            let all = *first.get_or_insert(chance.probability);
            assert!(
                (chance.probability - all).abs() < EVEN,
                "{packet}: {outcome:?} is not as likely as others"
            );
            verdict.insert(outcome);
            if !chance.next() {
                return verdict;
            }
        }
    }

    fn walk(&self, packet: &Packet, chance: &mut Chance) -> Outcome {
        let mut walk = Walk {
            proto: packet.proto,
            src: packet.src,
            to: SocketAddr::new(packet.dst, packet.dport),
            translated: false,
            mark: 0,
            masqueraded: false,
            interface: packet.interface,
            chance,
        };
        let from_here = self.machine.is_local(packet.src);
        self.run(self.nat, if from_here { "OUTPUT" } else { "PREROUTING" }, 0, &mut walk);
        // What a node sends to itself goes out and comes in.
        let hooks: &[&str] = match (from_here, self.machine.is_local(walk.to.ip())) {
            (true, false) => &["OUTPUT"],
            (true, true) => &["OUTPUT", "INPUT"],
            (false, true) => &["INPUT"],
            (false, false) => &["FORWARD"],
        };
        for hook in hooks {
            match self.run(self.filter, hook, 0, &mut walk) {
                None | Some(End::Accept) => {}
                Some(End::Drop) => return Outcome::Dropped,
                Some(End::Reject) => return Outcome::Rejected,
            }
        }
        // Also where it does not leave the node: what is masqueraded is said of all endpoints alike.
        self.run(self.nat, "POSTROUTING", 0, &mut walk);
        let masqueraded = walk.masqueraded;
        if walk.translated {
            Outcome::To { endpoint: walk.to, masqueraded }
        } else {
            Outcome::Untouched { masqueraded }
        }
    }

    /// A chain; none: its end was reached.
    fn run(&self, table: &Table, chain: &str, depth: u8, walk: &mut Walk<'_>) -> Option<End> {
        assert!(depth <= DEEPEST, "{chain} is in a loop");
        for rule in table.rules(chain) {
            if !rule.matches.iter().all(|m| self.holds(m, walk)) {
                continue;
            }
            match &rule.target {
                Target::Jump(chain) => {
                    let end = self.run(table, chain, depth + 1, walk);
                    if end.is_some() {
                        return end;
                    }
                }
                Target::Return => return None,
                Target::Remember => {}
                Target::Mark { value, mask } => walk.mark = (walk.mark & !mask) ^ value,
                Target::Dnat(to) => {
                    (walk.to, walk.translated) = (*to, true);
                    return Some(End::Accept);
                }
                Target::Masquerade => {
                    walk.masqueraded = true;
                    return Some(End::Accept);
                }
                Target::Accept => return Some(End::Accept),
                Target::Drop => return Some(End::Drop),
                Target::Reject => return Some(End::Reject),
            }
        }
        None
    }

    fn holds(&self, Match { not, what }: &Match, walk: &mut Walk<'_>) -> bool {
        let holds = match what {
            What::From(prefix) => contains(*prefix, walk.src),
            What::To(prefix) => contains(*prefix, walk.to.ip()),
            What::Input { name, prefix } => walk.interface.is_some_and(|interface| {
                interface == name || (*prefix && interface.starts_with(name.as_str()))
            }),
            What::Proto(proto) => walk.proto == *proto,
            What::Ports(first, last) => (*first..=*last).contains(&walk.to.port()),
            What::FromLocal => self.machine.is_local(walk.src),
            What::ToLocal => self.machine.is_local(walk.to.ip()),
            // The first packet of a connection, which conntrack understands.
            What::States(states) => {
                states.split(',').any(|state| state == "NEW" || (state == "DNAT" && walk.translated))
            }
            What::Mark { value, mask } => walk.mark & mask == *value,
            What::Chance(probability) => walk.chance.decide(*probability),
            What::Remembered => false,
        };
        holds != *not
    }
}
