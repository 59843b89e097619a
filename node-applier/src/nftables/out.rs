//! Where a table is written: into a transaction, or as text.
//!
//! Both come from the same calls, so what is shown is what is sent.

use rulecast_bundle::nft::{Family, Hook, Rule, SetDef};
use rulecast_netlink::{Batch, Key, Params, Value};

/// Takes a table, part by part.
pub(super) trait Out {
    /// Makes room for so many bytes more.
    fn reserve(&mut self, _bytes: usize) {}

    /// A set or map.
    fn add_set(&mut self, family: Family, def: &SetDef);

    /// A chain.
    fn add_chain(&mut self, family: Family, name: &str, hook: Option<Hook>);

    /// Empties a chain.
    fn flush_chain(&mut self, family: Family, name: &str);

    /// A rule at the end of a chain.
    fn add_rule(&mut self, family: Family, chain: &str, rule: &Rule, params: Params);

    /// An element.
    fn add_element(&mut self, family: Family, set: &str, key: &Key, value: Value<'_>);

    /// An element of which the last component is a range of addresses; the two are its ends.
    fn add_range(&mut self, family: Family, set: &str, from: &Key, to: &Key);
}

impl Out for Batch {
    fn reserve(&mut self, bytes: usize) {
        self.reserve(bytes);
    }

    fn add_set(&mut self, family: Family, def: &SetDef) {
        self.add_set(family, def);
    }

    fn add_chain(&mut self, family: Family, name: &str, hook: Option<Hook>) {
        self.add_chain(family, name, hook);
    }

    fn flush_chain(&mut self, family: Family, name: &str) {
        self.flush_chain(family, name);
    }

    fn add_rule(&mut self, family: Family, chain: &str, rule: &Rule, params: Params) {
        self.add_rule(family, chain, rule, params);
    }

    fn add_element(&mut self, family: Family, set: &str, key: &Key, value: Value<'_>) {
        self.add_element(family, set, key, value);
    }

    fn add_range(&mut self, family: Family, set: &str, from: &Key, to: &Key) {
        self.add_range(family, set, from, to);
    }
}
