//! What one family's tables hold, and how they get from one state to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write};
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Part, Proto};

use super::chain::{Chain, PREFIX, Prefix, Table, Vip, last, lowest, nets};
use super::index::{Frontend, Index};
use super::program::{Below, Program, fixed, jumps, net_of};
use super::rule::Rule;
use crate::view::{PortId, Touched, View};

/// Chains with what they hold: their text is made when it is written.
#[derive(Debug, Clone, Default)]
struct Installed(BTreeMap<(Table, Chain), Holds>);

/// What a chain holds, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    rules: usize,
    hash: u64,
}

impl Holds {
    fn of<'a>(rules: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut hasher, mut count) = (DefaultHasher::new(), 0);
        for rule in rules {
            rule.hash(&mut hasher);
            count += 1;
        }
        Self { rules: count, hash: hasher.finish() }
    }
}

/// The chains of one table.
#[derive(Clone, Copy)]
struct Of<'a>(&'a Installed, Table);

impl<'a> Of<'a> {
    fn range(self, first: Chain, last: Chain) -> impl Iterator<Item = Chain> + 'a {
        self.0.0.range((self.1, first)..=(self.1, last)).map(|((_, chain), _)| *chain)
    }
}

impl Below for Of<'_> {
    fn vips(&self, net: Prefix) -> Vec<Prefix> {
        let (first, last) = (nets(net.0).1, nets(last(net)).1);
        let chains = self.range(Chain::Vips(first), Chain::Vips(last));
        chains.filter_map(|chain| if let Chain::Vips(range) = chain { Some(range) } else { None }).collect()
    }

    fn nets(&self) -> Vec<Prefix> {
        let first = Chain::Net((lowest(Family::V4), 0));
        let chains = self.range(first, Chain::Vips((lowest(Family::V4), 0)));
        chains.filter_map(|chain| if let Chain::Net(range) = chain { Some(range) } else { None }).collect()
    }

    fn ports(&self) -> Vec<(Proto, u16)> {
        let chains = self.range(Chain::Ports(Proto::Tcp, 0), Chain::Ports(Proto::Sctp, u16::MAX));
        let ports = |chain| if let Chain::Ports(proto, first) = chain { Some((proto, first)) } else { None };
        chains.filter_map(ports).collect()
    }
}

/// Chains of a table that change: what they are to hold, or that they go.
pub(super) type Changes = BTreeMap<Chain, Option<Vec<Rule>>>;

/// The sets of clients that changes need, and those that they leave behind.
pub(super) fn sets(nat: &Changes) -> (Vec<String>, Vec<String>) {
    let sets = nat.iter().filter(|(chain, _)| matches!(chain, Chain::Endpoint(..)));
    let (come, go): (Vec<_>, Vec<_>) = sets.partition(|(_, rules)| rules.is_some());
    let names = |sets: Vec<(&Chain, _)>| sets.into_iter().map(|(chain, _)| chain.name()).collect();
    (names(come), names(go))
}

/// What one update changes.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Refusals as they are to be while the other table changes: the old ones and the new ones.
    pub(super) meanwhile: Changes,
    /// The chains of `nat`.
    pub(super) nat: Changes,
    /// The chains of `filter`.
    pub(super) filter: Changes,
}

/// What a family's tables should hold.
pub(super) struct Tables {
    pub(super) family: Family,
    index: Index,
    /// The node's own addresses.
    node_addrs: Vec<IpAddr>,
    installed: Installed,
    /// The rules of the chains that refuse or lead there. They are few, and both old and new ones are needed at once.
    refusals: BTreeMap<Chain, Vec<Rule>>,
}

impl Tables {
    /// Tables that hold nothing yet.
    pub(super) fn new(family: Family) -> Self {
        let (index, installed) = (Index::default(), Installed::default());
        Self { family, index, node_addrs: Vec::new(), installed, refusals: BTreeMap::new() }
    }

    /// What they hold for a view. Its text is written by [`Self::write`].
    pub(super) fn of(view: &View, family: Family, node_addrs: &[IpAddr]) -> Self {
        let node_addrs = node_addrs.to_vec();
        let mut tables = Self { index: Index::of(view, family), node_addrs, ..Self::new(family) };
        let mut chains = tables.index.chains();
        chains.extend(restricted(view, family).map(Chain::Ranges));
        let _all = tables.settle(view, &chains, false);
        tables
    }

    /// Whether no Service is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Brings it to a view that differs in what was touched, and tells what changes.
    pub(super) fn update(&mut self, view: &View, touched: &Touched, node_addrs: &[IpAddr]) -> Step {
        let ports = touched.targets.iter().filter(|id| id.family() == self.family).map(PortId::from);
        let ports: BTreeSet<PortId> = ports.collect();
        let mut chains = self.index.update(view, ports);
        let vips = touched.added.iter().chain(&touched.removed).filter(|e| e.0 == self.family);
        let mut vips: BTreeSet<Vip> = vips.filter_map(|(_, _, parts)| vip(parts)).collect();
        if touched.fact {
            vips.extend(restricted(view, self.family));
        }
        for vip in vips {
            chains.extend([Chain::Ranges(vip), Frontend::Vip(vip).chain()]);
        }
        node_addrs.clone_into(&mut self.node_addrs);
        self.settle(view, &chains, true)
    }

    /// Works out what these chains are to hold, then those that lead to them. `keep` what changes, or only note it.
    fn settle(&mut self, view: &View, chains: &BTreeSet<Chain>, keep: bool) -> Step {
        let mut step = Step::default();
        let Some(options) = view.options(self.family) else { return step };
        let Self { family, index, node_addrs, installed, refusals } = self;
        let program = Program { view, options, index, family: *family, node_addrs };
        for table in Table::ALL {
            let mut changes = Changes::new();
            let mut settle = |installed: &mut Installed, chain| {
                let rules = program.rules(table, chain, &Of(installed, table));
                if installed.take(table, chain, rules.as_deref()) {
                    if table == Table::Filter && refuses(chain) {
                        let before = match &rules {
                            Some(rules) => refusals.insert(chain, rules.clone()),
                            None => refusals.remove(&chain),
                        };
                        step.meanwhile.insert(chain, Some(both(before, rules.as_deref())));
                    }
                    if keep {
                        changes.insert(chain, rules);
                    }
                }
            };
            let upper = chains.iter().filter_map(|chain| match chain {
                Chain::Vips(range) => Some(Chain::Net(net_of(*range))),
                _ => None,
            });
            let upper: BTreeSet<Chain> = upper.collect();
            for chain in chains.iter().chain(&upper).chain(fixed(table)) {
                settle(installed, *chain);
            }
            match table {
                Table::Filter => step.filter = changes,
                Table::Nat => step.nat = changes,
            }
        }
        let same = |chain: &Chain, rules: &Option<Vec<Rule>>| step.filter.get(chain) == Some(rules);
        if step.nat.is_empty() {
            step.meanwhile.clear();
        } else if step.meanwhile.iter().all(|(chain, rules)| same(chain, rules)) {
            // Nothing is refused any less: it can be as it is to be before anything is translated any less.
            step.meanwhile = std::mem::take(&mut step.filter);
        }
        step
    }

    /// The sets of clients.
    pub(super) fn sets(&self) -> impl Iterator<Item = String> {
        self.chains(Table::Nat).filter(|chain| matches!(chain, Chain::Endpoint(..))).map(|chain| chain.name())
    }

    /// All chains of a table.
    pub(super) fn chains(&self, table: Table) -> impl Iterator<Item = Chain> {
        Of(&self.installed, table).range(Chain::Services, LAST)
    }

    /// The chains of a table, each with whether what was found is the same; none: it was not found. Without `spelling`, the same
    /// number of rules is enough.
    pub(super) fn compare(
        &self,
        table: Table,
        found: &BTreeMap<String, Vec<String>>,
        spelling: bool,
    ) -> impl Iterator<Item = (Chain, Option<bool>)> {
        self.chains(table).map(move |chain| {
            let should = self.installed.0[&(table, chain)];
            let is = found.get(&chain.name()).map(|rules| Holds::of(rules.iter().map(String::as_str)));
            (chain, is.map(|is| if spelling { is == should } else { is.rules == should.rules }))
        })
    }

    /// A chain's rules.
    pub(super) fn rules(&self, table: Table, chain: Chain, view: &View) -> Vec<Rule> {
        let Some(options) = view.options(self.family) else { return Vec::new() };
        let Self { family, index, node_addrs, .. } = self;
        let program = Program { view, options, index, family: *family, node_addrs };
        program.rules(table, chain, &Of(&self.installed, table)).unwrap_or_default()
    }

    /// Writes a whole table, but for what leads to it.
    pub(super) fn write(&self, out: &mut dyn Write, table: Table, view: &View) -> io::Result<()> {
        for chain in self.chains(table) {
            declare(out, &chain.name())?;
        }
        for chain in self.chains(table) {
            append(out, &chain.name(), &self.rules(table, chain, view))?;
        }
        Ok(())
    }
}

/// The greatest chain.
const LAST: Chain = Chain::Endpoint(
    PortId { addr: LAST_ADDR, port: u16::MAX, proto: Proto::Sctp },
    crate::view::Endpoint { addr: LAST_ADDR, port: u16::MAX },
);
const LAST_ADDR: IpAddr = IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX));

impl Installed {
    /// Takes note of a chain. Returns whether it changed.
    fn take(&mut self, table: Table, chain: Chain, rules: Option<&[Rule]>) -> bool {
        match rules.map(|rules| Holds::of(rules.iter().map(Rule::as_str))) {
            Some(holds) => self.0.insert((table, chain), holds) != Some(holds),
            None => self.0.remove(&(table, chain)).is_some(),
        }
    }
}

/// Whether a chain of `filter` refuses what was not translated, or leads to such a chain.
fn refuses(chain: Chain) -> bool {
    use Chain::{Net, NodePorts, Ports, Services, Vips};
    matches!(chain, Services | NodePorts | Net(_) | Vips(_) | Ports(..))
}

/// The new rules, and after them those of the old ones that are no more.
fn both(before: Option<Vec<Rule>>, now: Option<&[Rule]>) -> Vec<Rule> {
    let now = now.unwrap_or_default();
    let old = before.unwrap_or_default().into_iter().filter(|rule| !now.contains(rule));
    now.iter().cloned().chain(old).collect()
}

fn vip(parts: &[Part]) -> Option<Vip> {
    match parts {
        [Part::Addr(addr), Part::Proto(proto), Part::Port(port), ..] => {
            Some(Vip { addr: *addr, proto: *proto, port: *port })
        }
        _ => None,
    }
}

/// The VIPs with loadBalancerSourceRanges.
fn restricted(view: &View, family: Family) -> impl Iterator<Item = Vip> {
    view.elements().iter().filter(move |e| e.0 == family).filter_map(|(_, _, parts)| vip(parts))
}

/// Makes a chain, or empties it.
pub(super) fn declare(out: &mut dyn Write, name: &str) -> io::Result<()> {
    writeln!(out, ":{name} - [0:0]")
}

pub(super) fn append(out: &mut dyn Write, name: &str, rules: &[Rule]) -> io::Result<()> {
    rules.iter().try_for_each(|rule| writeln!(out, "-A {name} {}", rule.as_str()))
}

/// Writes what changes of a table. Chains go last: nothing may lead there any more.
pub(super) fn write_changes(out: &mut dyn Write, table: Table, changes: &Changes) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "*{}", table.name())?;
    for chain in changes.keys() {
        declare(out, &chain.name())?;
    }
    for (chain, rules) in changes {
        append(out, &chain.name(), rules.as_deref().unwrap_or_default())?;
    }
    for (chain, _) in changes.iter().filter(|(_, rules)| rules.is_none()) {
        writeln!(out, "-X {}", chain.name())?;
    }
    writeln!(out, "COMMIT")
}

/// What a table of the kernel has of ours, or leads to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The names of our chains, with the rules in them.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// Rules of built-in chains that lead to ours, in order.
    pub(super) jumps: Vec<(String, String)>,
}

impl Found {
    /// Reads what iptables-save prints of one table. `rules` are kept, or only the names.
    pub(super) fn read(text: &str, rules: bool) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                if name.starts_with(PREFIX) {
                    found.chains.insert(name.to_owned(), Vec::new());
                }
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
                if let Some(of_chain) = found.chains.get_mut(chain) {
                    if rules {
                        of_chain.push(rule.to_owned());
                    }
                } else if rule
                    .split(' ')
                    .skip_while(|w| *w != "-j")
                    .nth(1)
                    .is_some_and(|t| t.starts_with(PREFIX))
                {
                    found.jumps.push((chain.to_owned(), rule.to_owned()));
                }
            }
        }
        found
    }

    /// Whether everything that leads to our chains is there, in order.
    pub(super) fn leads(&self, table: Table) -> bool {
        let wanted = jumps(table).into_iter();
        let wanted: Vec<_> = wanted.map(|(c, r)| (c.to_owned(), r.as_str().to_owned())).collect();
        // Built-in chains come in the kernel's order.
        let sorted = |mut jumps: Vec<(String, String)>| {
            jumps.sort_by(|(a, _), (b, _)| a.cmp(b));
            jumps
        };
        sorted(self.jumps.clone()) == sorted(wanted)
    }

    /// Writes what makes the built-in chains lead to ours, once each and before everything else.
    pub(super) fn write_jumps(&self, out: &mut dyn Write, table: Table) -> io::Result<()> {
        if self.leads(table) {
            return Ok(());
        }
        for (chain, rule) in &self.jumps {
            writeln!(out, "-D {chain} {rule}")?;
        }
        for (chain, rule) in jumps(table).into_iter().rev() {
            writeln!(out, "-I {chain} {}", rule.as_str())?;
        }
        Ok(())
    }
}
