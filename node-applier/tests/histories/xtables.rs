//! The tables of iptables in memory: what `iptables-restore --noflush` makes of a text, and what `iptables-save` prints.
//!
//! It refuses what the real one refuses: jumps to chains that are not there, names that are too long, rules to delete that are
//! not there, chains to delete that are in use.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use rulecast_bundle::nft::Family;
use rulecast_node::backend::BackendError;
use rulecast_node::iptables::{Restored, Variant, Xtables};

use crate::rule::{Rule, Target};

/// `XT_EXTENSION_MAXNAMELEN` of the kernel, less the end of the string.
const LONGEST: usize = 28;
const BUILT_IN: [(&str, &[&str]); 2] =
    [("filter", &["INPUT", "FORWARD", "OUTPUT"]), ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"])];

const LOCKED: &str = "another one has the lock";

/// A chain's name.
pub(crate) type Name = Rc<str>;

/// One table: its chains. Copies share them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table(BTreeMap<Name, Rc<Vec<Rule>>>);

/// One family's tables, by name.
pub(crate) type Tables = BTreeMap<&'static str, Rc<Table>>;

/// Everything that is in the kernel.
#[derive(Debug, Default)]
struct State {
    now: BTreeMap<Family, Tables>,
    /// What a family's tables were after each commit, since they were last taken.
    moments: Vec<(Family, Tables)>,
    /// The sets of clients.
    sets: BTreeSet<String>,
    /// After so many more commits the program is ended by somebody.
    patience: Option<usize>,
}

/// A kernel with the programs of iptables; its copies are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(Rc<RefCell<State>>);

impl Table {
    /// A chain's rules.
    pub(crate) fn rules(&self, chain: &str) -> &[Rule] {
        self.0.get(chain).unwrap_or_else(|| panic!("there is no chain {chain}"))
    }

    fn with_built_in(name: &str) -> Self {
        let (_, chains) = BUILT_IN.iter().find(|(n, _)| *n == name).expect("a table of these");
        Self(chains.iter().map(|chain| (Name::from(*chain), Rc::default())).collect())
    }

    fn is_built_in(chain: &str) -> bool {
        BUILT_IN.iter().any(|(_, chains)| chains.contains(&chain))
    }

    /// One line between `*TABLE` and `COMMIT`.
    fn take(&mut self, line: &str) -> Result<(), String> {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap_or_default();
            if !Self::is_built_in(name) {
                if name.is_empty() || name.len() > LONGEST {
                    return Err(format!("a chain of the name {name}"));
                }
                self.0.insert(name.into(), Rc::default());
            }
            return Ok(());
        }
        let (verb, rest) = line.split_once(' ').ok_or("no such command")?;
        let (chain, text) = rest.split_once(' ').unwrap_or((rest, ""));
        if verb == "-X" {
            return self.remove(chain);
        }
        let rule = Rule::read(text)?;
        if let Target::Jump(to) = &rule.target
            && !self.0.contains_key(to)
        {
            return Err(format!("no chain {to} to jump to"));
        }
        let rules = self.0.get_mut(chain).ok_or_else(|| format!("no chain {chain}"))?;
        let rules = Rc::make_mut(rules);
        match verb {
            "-A" => rules.push(rule),
            "-I" => rules.insert(0, rule),
            "-D" => {
                let at = rules.iter().position(|r| *r == rule).ok_or("no such rule")?;
                drop(rules.remove(at));
            }
            other => return Err(format!("no command {other}")),
        }
        Ok(())
    }

    fn remove(&mut self, chain: &str) -> Result<(), String> {
        let leads = |rule: &Rule| matches!(&rule.target, Target::Jump(to) if **to == *chain);
        if self.0.values().flat_map(|rules| rules.iter()).any(leads) {
            return Err(format!("chain {chain} is in use"));
        }
        match self.0.get(chain) {
            Some(rules) if rules.is_empty() && !Self::is_built_in(chain) => {
                self.0.remove(chain);
                Ok(())
            }
            Some(_) => Err(format!("chain {chain} is not empty")),
            None => Err(format!("no chain {chain}")),
        }
    }

    /// The first chain that differs.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let names = self.0.keys().chain(other.0.keys());
        let text = |rules: Option<&Rc<Vec<Rule>>>| {
            rules.map(|rules| rules.iter().map(|r| r.text().to_owned()).collect::<Vec<_>>())
        };
        names
            .map(|name| (name, self.0.get(name), other.0.get(name)))
            .find(|(_, one, two)| one != two)
            .map(|(name, one, two)| format!("chain {name} is {:#?}, not {:#?}", text(one), text(two)))
    }
}

impl Fake {
    /// With what somebody else has there.
    pub(crate) fn beside_others() -> Self {
        let this = Self::default();
        for family in [Family::V4, Family::V6] {
            for (table, chain) in [("nat", "PREROUTING"), ("nat", "OUTPUT"), ("filter", "INPUT")] {
                let text = format!("*{table}\n:KUBE-OTHER - [0:0]\n-A {chain} -j KUBE-OTHER\nCOMMIT\n");
                this.run(family, &text).expect("rules as they are wanted");
            }
        }
        this.take_moments();
        this
    }

    /// A family's tables as they are.
    pub(crate) fn tables(&self, family: Family) -> Tables {
        self.0.borrow().now.get(&family).cloned().unwrap_or_default()
    }

    /// What the tables were after each commit since the last call, or since they are there.
    pub(crate) fn take_moments(&self) -> Vec<(Family, Tables)> {
        std::mem::take(&mut self.0.borrow_mut().moments)
    }

    /// The next restore ends after so many commits; none: when it is through.
    pub(crate) fn set_patience(&self, commits: Option<usize>) {
        self.0.borrow_mut().patience = commits;
    }

    fn run(&self, family: Family, text: &str) -> Result<(), String> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let mut patience = state.patience.take();
        let mut open: Option<(&'static str, Table)> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                let (name, _) = BUILT_IN.iter().find(|(n, _)| *n == name).ok_or("no such table")?;
                let there = state.now.get(&family).and_then(|tables| tables.get(name));
                let there = there.map_or_else(|| Table::with_built_in(name), |table| (**table).clone());
                open = Some((name, there));
            } else if line == "COMMIT" {
                let (name, table) = open.take().ok_or("nothing to commit")?;
                match &mut patience {
                    Some(0) => return Err(LOCKED.to_owned()),
                    Some(left) => *left -= 1,
                    None => {}
                }
                let tables = state.now.entry(family).or_default();
                tables.insert(name, Rc::new(table));
                let moment = tables.clone();
                state.moments.push((family, moment));
            } else {
                let (_, table) = open.as_mut().ok_or("no table")?;
                table.take(line).map_err(|why| format!("{line}: {why}"))?;
            }
        }
        if open.is_some() { Err("a table without COMMIT".to_owned()) } else { Ok(()) }
    }
}

/// The sets that rules name.
fn sets(text: &str) -> impl Iterator<Item = &str> {
    let words = || text.split_ascii_whitespace();
    let pairs = words().zip(words().skip(1));
    pairs.filter(|(option, _)| ["--match-set", "--add-set"].contains(option)).map(|(_, name)| name)
}

fn refused(message: String) -> BackendError {
    BackendError::Unsupported { reason: "KernelRefused", message }
}

impl Xtables for Fake {
    fn variant(&self) -> Variant {
        Variant::Nft
    }

    fn save(&self, family: Family, table: &str) -> Result<String, BackendError> {
        let tables = self.tables(family);
        let mut text = format!("*{table}\n");
        if let Some(table) = tables.get(table) {
            for name in table.0.keys() {
                let policy = if Table::is_built_in(name) { "ACCEPT" } else { "-" };
                writeln!(text, ":{name} {policy} [0:0]").expect("a String takes everything");
            }
            for (name, rules) in &table.0 {
                for rule in rules.iter() {
                    writeln!(text, "-A {name} {}", rule.text()).expect("a String takes everything");
                }
            }
        }
        Ok(text + "COMMIT\n")
    }

    fn may_have(&self, family: Family, table: &str, chain: &str) -> bool {
        self.tables(family).get(table).is_some_and(|table| table.0.contains_key(chain))
    }

    fn restore(
        &self,
        family: Family,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Restored, BackendError> {
        let mut text = Vec::new();
        write(&mut text).expect("memory takes everything");
        let text = String::from_utf8(text).expect("rules are text");
        if let Some(name) = sets(&text).find(|name| !self.0.borrow().sets.contains(*name)) {
            return Err(refused(format!("there is no set {name}")));
        }
        self.run(family, &text).map_err(|message| {
            let reason = if message == LOCKED { "LockHeld" } else { "KernelRefused" };
            BackendError::Unsupported { reason, message }
        })?;
        Ok(Restored { bytes: text.len(), lines: text.lines().count(), took: Duration::ZERO })
    }

    fn make_sets(&self, _: Family, names: &[String]) -> Result<(), BackendError> {
        self.0.borrow_mut().sets.extend(names.iter().cloned());
        Ok(())
    }

    fn remove_sets(&self, names: &[String]) -> Result<(), BackendError> {
        for family in [Family::V4, Family::V6] {
            let text = self.save(family, "nat")?;
            let used: BTreeSet<&str> = sets(&text).collect();
            if let Some(name) = names.iter().find(|name| used.contains(name.as_str())) {
                return Err(refused(format!("the set {name} is in use")));
            }
        }
        self.0.borrow_mut().sets.retain(|name| !names.contains(name));
        Ok(())
    }

    fn sets(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.0.borrow().sets.iter().cloned().collect())
    }

    fn route_localnet(&self) -> io::Result<()> {
        Ok(())
    }
}
