//! Chains that are made when the first target needs them.

use std::collections::HashSet;
use std::time::Duration;

use rulecast_bundle::Name;
use rulecast_bundle::nft::{Affinity, Rule};
use rulecast_netlink::{Batch, Params};

use super::layout::Layout;
use super::target::Chain;
use crate::backend::BackendError;

/// Chains for N members are made in blocks of this size. A new chain makes the kernel validate the whole table, which
/// takes longer than anything else an update does, so a target that grows or shrinks by one should seldom need one.
const BLOCK: u32 = 16;

/// The chains that are there. They stay until the next rebuild.
#[derive(Default)]
pub(super) struct Chains(HashSet<Chain>);

impl Chains {
    /// Sees to it that a chain is there, and gives its name.
    pub(super) fn require(
        &mut self,
        batch: &mut Batch,
        layout: &Layout,
        chain: Chain,
    ) -> Result<Name, BackendError> {
        if !self.0.contains(&chain) {
            for one in block(chain) {
                if self.0.insert(one) {
                    make(batch, layout, one)?;
                }
            }
        }
        Ok(template(layout, chain)?.0)
    }

    /// The name of a chain that is there.
    pub(super) fn name(layout: &Layout, chain: Chain) -> Result<Name, BackendError> {
        Ok(template(layout, chain)?.0)
    }
}

fn block(chain: Chain) -> Vec<Chain> {
    let counts = |members: u32| {
        let first = (members - 1) / BLOCK * BLOCK + 1;
        first..first + BLOCK
    };
    match chain {
        Chain::Pick { balancer, members } => {
            counts(members).map(|members| Chain::Pick { balancer, members }).collect()
        }
        Chain::Sticky { balancer, members } => {
            counts(members).map(|members| Chain::Sticky { balancer, members }).collect()
        }
        Chain::Remember { .. } => vec![chain],
    }
}

fn make(batch: &mut Batch, layout: &Layout, chain: Chain) -> Result<(), BackendError> {
    let (name, rules, params) = template(layout, chain)?;
    batch.add_chain(layout.family, name.as_str(), None);
    for rule in rules {
        batch.add_rule(layout.family, name.as_str(), rule, params);
    }
    Ok(())
}

/// A chain's name, and its rules with their parameters.
fn template(layout: &Layout, chain: Chain) -> Result<(Name, &[Rule], Params), BackendError> {
    let balancer = match chain {
        Chain::Pick { balancer, .. } | Chain::Sticky { balancer, .. } | Chain::Remember { balancer, .. } => {
            &layout.rules.balancers[balancer]
        }
    };
    let affinity = || -> Result<&Affinity, BackendError> {
        let missing =
            || BackendError::Rules("a group has session affinity, its balancer has none".to_owned());
        balancer.affinity.as_ref().ok_or_else(missing)
    };
    Ok(match chain {
        Chain::Pick { members, .. } => {
            let params = Params { members, ..Params::default() };
            (balancer.chain.numbered(members), &balancer.pick, params)
        }
        Chain::Sticky { members, .. } => {
            let affinity = affinity()?;
            (affinity.chain.numbered(members), &affinity.pick, Params { members, ..Params::default() })
        }
        Chain::Remember { timeout, .. } => {
            let affinity = affinity()?;
            let params = Params { members: 1, timeout: Duration::from_secs(timeout.into()) };
            (affinity.remember.numbered(timeout), &affinity.update, params)
        }
    })
}
