//! nf_tables, as far as the statements of a bundle go: a packet through one family's chains.

use std::net::SocketAddr;

use rulecast_bundle::nft::{ChainDef, ChainKind, Family, Field, HookPoint, Rule, Ruleset, Statement as S};
use rulecast_bundle::{Name, Proto};
use rulecast_compiler::model::Prefix;
use rulecast_node::view::View;

use crate::model::contains;
use crate::packet::{Machine, Outcome, Packet, Verdict};
use crate::sets::{Chain, Content, Sets, Value};

/// A family's table on a node.
pub(crate) struct Kernel<'v> {
    rules: &'v Ruleset,
    sets: Sets,
    machine: &'v Machine,
    /// The node's own pod CIDRs of the family.
    pods: Vec<Prefix>,
}

/// A packet on its way.
struct Walk {
    proto: Proto,
    src: std::net::IpAddr,
    to: SocketAddr,
    /// Before translation.
    original: SocketAddr,
    translated: bool,
    mark: u32,
    masqueraded: bool,
    /// The number that `numgen` gives, before the modulus.
    random: u32,
    interface: Option<&'static str>,
    /// The most members of a chain that it came through.
    members: u32,
}

/// How a chain ends a packet's way through its hook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    Reject,
}

/// What a statement leads to.
enum Flow {
    /// The next statement.
    Next,
    /// The next rule.
    NextRule,
    /// The end of this chain.
    Return,
    End(End),
}

impl<'v> Kernel<'v> {
    /// What a node's view of a bundle makes of the kernel; none where the bundle has no rules of the family.
    pub(crate) fn new(view: &'v View, family: Family, machine: &'v Machine) -> Option<Self> {
        let rules = view.rules(family)?;
        let of_family = |prefix: &&Prefix| Family::of(prefix.0) == family;
        let pods = view.fact().pod_cidrs.iter().filter(of_family).copied().collect();
        Some(Self { rules, sets: Sets::of(view, family, rules, machine), machine, pods })
    }

    /// What becomes of a new connection, over all numbers that `numgen` may give.
    pub(crate) fn verdict(&self, packet: &Packet) -> Verdict {
        let mut verdict = Verdict::new();
        let (mut random, mut members) = (0, 1);
        while random < members {
            let (outcome, seen) = self.walk(packet, random);
            verdict.insert(outcome);
            members = members.max(seen);
            random += 1;
        }
        verdict
    }

    fn walk(&self, packet: &Packet, random: u32) -> (Outcome, u32) {
        let to = SocketAddr::new(packet.dst, packet.dport);
        let mut walk = Walk {
            proto: packet.proto,
            src: packet.src,
            to,
            original: to,
            translated: false,
            mark: 0,
            masqueraded: false,
            random,
            interface: packet.interface,
            members: 1,
        };
        // The node's own traffic begins with the output hook.
        let first = if self.machine.is_local(packet.src) { HookPoint::Output } else { HookPoint::Prerouting };
        for point in [first, HookPoint::Postrouting] {
            match self.hook(point, &mut walk) {
                End::Accept => {}
                End::Drop => return (Outcome::Dropped, walk.members),
                End::Reject => return (Outcome::Rejected, walk.members),
            }
        }
        let masqueraded = walk.masqueraded;
        let outcome = if walk.translated {
            Outcome::To { endpoint: walk.to, masqueraded }
        } else {
            Outcome::Untouched { masqueraded }
        };
        (outcome, walk.members)
    }

    /// The base chains of a hook, by priority.
    fn hook(&self, point: HookPoint, walk: &mut Walk) -> End {
        let here = |chain: &&ChainDef| chain.hook.is_some_and(|hook| hook.point == point);
        let mut chains: Vec<&ChainDef> = self.rules.chains.iter().filter(here).collect();
        chains.sort_by_key(|chain| chain.hook.map(|hook| hook.priority));
        for chain in chains {
            let nat = chain.hook.is_some_and(|hook| hook.kind == ChainKind::Nat);
            let before = (walk.translated, walk.masqueraded);
            let end = self.run(&chain.rules, 1, walk);
            assert!(
                nat || before == (walk.translated, walk.masqueraded),
                "{}: only nat chains can translate",
                chain.name
            );
            match end {
                None | Some(End::Accept) => {}
                Some(end) => return end,
            }
        }
        End::Accept
    }

    /// Runs a chain; `members` is what `numgen` counts to in it. None: it came to its end.
    fn run(&self, rules: &[Rule], members: u32, walk: &mut Walk) -> Option<End> {
        for rule in rules {
            for statement in rule {
                match self.statement(statement, members, walk) {
                    Flow::Next => {}
                    Flow::NextRule => break,
                    Flow::Return => return None,
                    Flow::End(end) => return Some(end),
                }
            }
        }
        None
    }

    /// One statement. New kinds of statements belong here.
    fn statement(&self, statement: &S, members: u32, walk: &mut Walk) -> Flow {
        let when = |matches: bool| if matches { Flow::Next } else { Flow::NextRule };
        match statement {
            S::InPrefix { field, negate, addr, len } => {
                when(contains((*addr, *len), walk.addr(*field)) != *negate)
            }
            S::IsLocal { field, negate } => when(self.machine.is_local(walk.addr(*field)) != *negate),
            // Where the node has no pod CIDR, rules with this are left out.
            S::FromPods { negate } => {
                let inside = self.pods.iter().any(|prefix| contains(*prefix, walk.src));
                when(!self.pods.is_empty() && inside != *negate)
            }
            S::InputInterface { name, prefix, negate } => {
                let here = walk.interface.unwrap_or_default();
                when((if *prefix { here.starts_with(name) } else { here == name }) != *negate)
            }
            S::StatusDnat => when(walk.translated),
            S::InSet { key, set, negate } => {
                when(self.sets.get(set, &walk.key(key, members)).is_some() != *negate)
            }
            S::VerdictMap { key, map } => match self.sets.get(map, &walk.key(key, members)) {
                None => Flow::NextRule,
                Some(Content::Drop) => Flow::End(End::Drop),
                Some(Content::Goto(chain)) => self.goto(chain, walk),
                Some(other) => panic!("{map} is no verdict map: {other:?}"),
            },
            S::Dnat { key, map } => match self.sets.get(map, &walk.key(key, members)) {
                None => Flow::NextRule,
                Some(Content::Endpoint(endpoint)) => {
                    walk.to = *endpoint;
                    walk.translated = true;
                    Flow::End(End::Accept)
                }
                Some(other) => panic!("{map} leads to no endpoints: {other:?}"),
            },
            // Only first packets of connections are sent through. Nobody is remembered: every pick is a new one.
            S::StateNew | S::Remember { .. } => Flow::Next,
            S::MarkIs { bits, set } => when((walk.mark & bits != 0) == *set),
            S::MarkOr(bits) => {
                walk.mark |= bits;
                Flow::Next
            }
            S::MarkXor(bits) => {
                walk.mark ^= bits;
                Flow::Next
            }
            S::Masquerade => {
                walk.masqueraded = true;
                Flow::End(End::Accept)
            }
            S::Reject => Flow::End(End::Reject),
            S::Drop => Flow::End(End::Drop),
            S::Accept => Flow::End(End::Accept),
            S::Return => Flow::Return,
            S::Jump(chain) => match self.run(self.chain(chain), 1, walk) {
                None => Flow::Next,
                Some(end) => Flow::End(end),
            },
            S::Goto(chain) => {
                // In a chain that looks up clients: the one that picks.
                let picks = self.rules.lanes.iter().find(|lane| lane.chain == *chain).map(|lane| &lane.pick);
                let (rules, members) =
                    picks.map_or_else(|| (self.chain(chain), 1), |pick| (pick.as_slice(), members));
                self.run(rules, members, walk).map_or(Flow::Return, Flow::End)
            }
        }
    }

    fn chain(&self, name: &Name) -> &[Rule] {
        let chain = self.rules.chains.iter().find(|chain| chain.name == *name);
        &chain.unwrap_or_else(|| panic!("there is no chain {name}")).rules
    }

    /// A chain that a verdict leads to, entered by goto: its end is the end of the chain that it came from.
    fn goto(&self, chain: &Chain, walk: &mut Walk) -> Flow {
        let affinity =
            |lane: usize| self.rules.lanes[lane].affinity.as_ref().expect("affinity where a target has it");
        let (rules, members) = match *chain {
            Chain::Fixed(ref name) => (self.chain(name), 1),
            Chain::Pick { lane, members } => (&*self.rules.lanes[lane].pick, members),
            Chain::Sticky { lane, members } => (&*affinity(lane).look, members),
            Chain::Remember { lane } => {
                (&*affinity(lane).remember.as_ref().expect("rules that remember").rules, 1)
            }
        };
        walk.members = walk.members.max(members);
        self.run(rules, members, walk).map_or(Flow::Return, Flow::End)
    }
}

impl Walk {
    fn addr(&self, field: Field) -> std::net::IpAddr {
        match field {
            Field::SourceAddr => self.src,
            Field::DestAddr => self.to.ip(),
            other => panic!("{other:?} is no address of the packet"),
        }
    }

    fn key(&self, fields: &[Field], members: u32) -> Vec<Value> {
        let value = |field: &Field| match field {
            Field::SourceAddr => Value::Addr(self.src),
            Field::DestAddr => Value::Addr(self.to.ip()),
            Field::Proto => Value::Proto(self.proto as u8),
            Field::DestPort => Value::Port(self.to.port()),
            Field::OriginalDestAddr => Value::Addr(self.original.ip()),
            Field::OriginalDestPort => Value::Port(self.original.port()),
            Field::RandomIndex => Value::Index(self.random % members),
        };
        fields.iter().map(value).collect()
    }
}
