//! Chains that are made when the first target needs them, and the maps that belong to a Service port.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use rulecast_bundle::Name;
use rulecast_bundle::nft::{Affinity, Remember, Rule, SetDef, Statement};
use rulecast_netlink::{Batch, Params};

use super::layout::Layout;
use super::out::Out;
use super::target::Chain;
use crate::backend::BackendError;
use crate::view::PortId;

/// Chains for N members are made in blocks of this size. A new chain makes the kernel validate the whole table, which
/// takes longer than anything else an update does, so a target that grows or shrinks by one should seldom need one.
const BLOCK: u32 = 16;

/// The chains that are there. Those that pick stay until the next rebuild, those of a Service port as long as it has
/// session affinity.
#[derive(Default)]
pub(super) struct Chains {
    picks: HashSet<Chain>,
    ports: HashMap<PortId, Own>,
}

/// What a Service port has of its own.
#[derive(Default)]
struct Own {
    /// With the number of members that it picks from.
    chains: BTreeMap<Chain, u32>,
    maps: BTreeSet<Name>,
}

impl Chains {
    /// Sees to it that a chain is there.
    pub(super) fn require(
        &mut self,
        out: &mut impl Out,
        layout: &Layout,
        chain: Chain,
    ) -> Result<(), BackendError> {
        match chain {
            // One that looks up clients was made before any element leads there, see `require_sticky`.
            Chain::Fixed(_) | Chain::Sticky { .. } => {}
            Chain::Pick { lane, members } => {
                if !self.picks.contains(&chain) {
                    let first = (members - 1) / BLOCK * BLOCK + 1;
                    for members in first..first + BLOCK {
                        let one = Chain::Pick { lane, members };
                        if self.picks.insert(one) {
                            out.add_chain(layout.family, name(layout, one)?.as_str(), None);
                            add_rules(out, layout, one, members)?;
                        }
                    }
                }
            }
            Chain::Remember { .. } => self.require_own(out, layout, chain, 1)?,
        }
        Ok(())
    }

    /// Sees to it that a chain that looks up clients is there, and picks from so many members otherwise.
    pub(super) fn require_sticky(
        &mut self,
        out: &mut impl Out,
        layout: &Layout,
        chain: Chain,
        members: u32,
    ) -> Result<(), BackendError> {
        let Chain::Sticky { lane, .. } = chain else { return self.require(out, layout, chain) };
        let (rules, sets) = layout.lane(lane)?;
        if rules.affinity.is_none() {
            // Served as one without.
            return Ok(());
        }
        self.require(out, layout, Chain::Pick { lane: sets.chains_of, members })?;
        self.require_own(out, layout, chain, members)
    }

    fn require_own(
        &mut self,
        out: &mut impl Out,
        layout: &Layout,
        chain: Chain,
        members: u32,
    ) -> Result<(), BackendError> {
        let Some(port) = chain.port() else { return Ok(()) };
        let own = self.ports.entry(port).or_default();
        // What an element leads to says nothing of members: such a chain was seen to already.
        let sticky = matches!(chain, Chain::Sticky { .. });
        match own.chains.get(&chain) {
            None => {
                for map in maps(layout, chain)? {
                    if own.maps.insert(map.name.clone()) {
                        out.add_set(layout.family, &map);
                    }
                }
                out.add_chain(layout.family, name(layout, chain)?.as_str(), None);
            }
            Some(known) if !sticky || *known == members => return Ok(()),
            Some(_) => out.flush_chain(layout.family, name(layout, chain)?.as_str()),
        }
        own.chains.insert(chain, members);
        add_rules(out, layout, chain, members)
    }

    /// The map of a Service port that is there, by what the ruleset calls it.
    pub(super) fn has_map(&self, port: PortId, map: &Name) -> bool {
        self.ports.get(&port).is_some_and(|own| own.maps.contains(&port.name(map)))
    }

    /// Writes all that are there, and their maps.
    pub(super) fn write_all(&self, batch: &mut Batch, layout: &Layout) -> Result<(), BackendError> {
        let own = self.ports.values().flat_map(|own| &own.chains).map(|(chain, members)| (*chain, *members));
        let picks = self.picks.iter().filter_map(|chain| match chain {
            Chain::Pick { members, .. } => Some((*chain, *members)),
            _ => None,
        });
        for (chain, members) in own.chain(picks) {
            for map in maps(layout, chain)? {
                batch.add_set(layout.family, &map);
            }
            batch.add_chain(layout.family, name(layout, chain)?.as_str(), None);
            add_rules(batch, layout, chain, members)?;
        }
        Ok(())
    }

    /// Deletes what a Service port has beyond the chains that elements lead to.
    pub(super) fn keep_only(
        &mut self,
        batch: &mut Batch,
        layout: &Layout,
        port: PortId,
        wanted: &BTreeSet<Chain>,
    ) -> Result<(), BackendError> {
        let Some(own) = self.ports.get_mut(&port) else { return Ok(()) };
        for chain in own.chains.keys().filter(|chain| !wanted.contains(chain)) {
            batch.delete_chain(layout.family, name(layout, *chain)?.as_str());
        }
        own.chains.retain(|chain, _| wanted.contains(chain));
        let mut used = BTreeSet::new();
        for chain in own.chains.keys() {
            used.extend(maps(layout, *chain)?.into_iter().map(|map| map.name));
        }
        for map in own.maps.difference(&used) {
            batch.delete_set(layout.family, map.as_str());
        }
        own.maps = used;
        if own.chains.is_empty() {
            self.ports.remove(&port);
        }
        Ok(())
    }
}

/// A chain's name.
pub(super) fn name(layout: &Layout, chain: Chain) -> Result<Name, BackendError> {
    Ok(match chain {
        Chain::Fixed(position) => layout.rules.chains[position].name.clone(),
        Chain::Pick { lane, members } => layout.lane(lane)?.0.chain.numbered(members),
        Chain::Sticky { lane, port } => port.name(&affinity(layout, lane)?.chain),
        Chain::Remember { lane, port, timeout } => {
            port.name(&remember(layout, lane)?.chain.numbered(timeout))
        }
    })
}

/// The maps of its Service port that a chain uses.
pub(super) fn maps(layout: &Layout, chain: Chain) -> Result<Vec<SetDef>, BackendError> {
    let Some(port) = chain.port() else { return Ok(Vec::new()) };
    let (rules, _) = template(layout, chain)?;
    let used = |map: &&SetDef| {
        rules.iter().flatten().any(|statement| map_of(statement).is_some_and(|name| *name == map.name))
    };
    let maps = layout.rules.port_maps.iter().filter(used);
    Ok(maps.map(|map| SetDef { name: port.name(&map.name), ..map.clone() }).collect())
}

/// The maps that a chain looks clients up in.
pub(super) fn looked_up(layout: &Layout, chain: Chain) -> Result<Vec<Name>, BackendError> {
    let Chain::Sticky { .. } = chain else { return Ok(Vec::new()) };
    Ok(maps(layout, chain)?.into_iter().map(|map| map.name).collect())
}

fn add_rules(out: &mut impl Out, layout: &Layout, chain: Chain, members: u32) -> Result<(), BackendError> {
    let (rules, params) = template(layout, chain)?;
    let chain_name = name(layout, chain)?;
    for rule in rules {
        match chain.port() {
            None => out.add_rule(layout.family, chain_name.as_str(), rule, params),
            Some(port) => {
                let rule = for_port(layout, rule, chain, port, members)?;
                out.add_rule(layout.family, chain_name.as_str(), &rule, params);
            }
        }
    }
    Ok(())
}

/// A chain's rules, in which the names of port maps stand for those of its Service port, and their parameters.
fn template(layout: &Layout, chain: Chain) -> Result<(&[Rule], Params), BackendError> {
    let plain = Params { members: 1, ..Params::default() };
    Ok(match chain {
        Chain::Fixed(position) => (&layout.rules.chains[position].rules, plain),
        Chain::Pick { lane, members } => (&layout.lane(lane)?.0.pick, Params { members, ..plain }),
        Chain::Sticky { lane, .. } => (&affinity(layout, lane)?.look, plain),
        Chain::Remember { lane, timeout, .. } => {
            (&remember(layout, lane)?.rules, Params { timeout: Duration::from_secs(timeout.into()), ..plain })
        }
    })
}

/// A rule with its Service port's own maps, and the chain that picks from so many members.
fn for_port(
    layout: &Layout,
    rule: &Rule,
    chain: Chain,
    port: PortId,
    members: u32,
) -> Result<Rule, BackendError> {
    let picks = match chain {
        Chain::Sticky { lane, .. } => Some(&layout.lane(lane)?.0.chain),
        _ => None,
    };
    let own = |statement: &Statement| {
        let mut statement = statement.clone();
        match &mut statement {
            Statement::Dnat { map, .. } | Statement::Remember { map, .. }
                if layout.rules.port_maps.iter().any(|def| def.name == *map) =>
            {
                *map = port.name(map);
            }
            Statement::Goto(name) if Some(&*name) == picks => *name = name.numbered(members),
            _ => {}
        }
        statement
    };
    Ok(rule.iter().map(own).collect())
}

fn map_of(statement: &Statement) -> Option<&Name> {
    match statement {
        Statement::Dnat { map, .. } | Statement::Remember { map, .. } => Some(map),
        _ => None,
    }
}

fn affinity(layout: &Layout, lane: u8) -> Result<&Affinity, BackendError> {
    let missing = || BackendError::Rules("a group has session affinity, its lane has none".to_owned());
    layout.lane(lane)?.0.affinity.as_ref().ok_or_else(missing)
}

fn remember(layout: &Layout, lane: u8) -> Result<&Remember, BackendError> {
    let missing = || BackendError::Rules("a lane that remembers has no rules for it".to_owned());
    affinity(layout, lane)?.remember.as_ref().ok_or_else(missing)
}
