//! One transaction, encoded as it is put together.

use std::ops::Range;
use std::time::Duration;

use rulecast_bundle::nft::{ChainKind, Family, Hook, SetDef, Statement};

use crate::TABLE;
use crate::attr::Buffer;
use crate::error::Error;
use crate::expr::{self, family_number};
use crate::key::Key;
use crate::set;
use crate::uapi::*;

/// Where a message with elements ends and the next one begins: the list's length has 16 bits.
const FULL: usize = 60_000;
/// A message without attributes: `struct nlmsghdr` and `struct nfgenmsg`.
const EMPTY_MESSAGE: usize = NLMSG_HDRLEN + NFGENMSG_LEN;

/// What an element carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing: the element of a plain set.
    None,
    /// A verdict.
    Verdict(Verdict<'a>),
    /// The data of a map element.
    Bytes(&'a Key),
}

/// The verdict of a verdict map's element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// `drop`.
    Drop,
    /// `goto CHAIN`.
    Goto(&'a str),
}

/// The numbers that a rule takes from its chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Params {
    /// The number of members that `Field::RandomIndex` chooses from. The kernel refuses 0 where a rule uses it.
    pub members: u32,
    /// How long `Statement::Remember` remembers.
    pub timeout: Duration,
}

/// A transaction on the tables `ip rulecast` and `ip6 rulecast`: all of it happens or nothing. Operations take effect
/// in the order of the calls.
///
/// Consecutive changes of elements of one set share a message, so callers that sort by set make small batches.
#[derive(Debug)]
pub struct Batch {
    out: Buffer,
    /// Messages so far, the beginning left out. The sequence number of the latest.
    messages: u32,
    run: Option<Run>,
}

/// A message with elements that is still open.
#[derive(Debug)]
struct Run {
    kind: u16,
    family: Family,
    /// Where the set's name stands in the buffer.
    set: Range<usize>,
    message: usize,
    list: usize,
}

impl Batch {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::begin(None)
    }

    /// An empty transaction that the kernel refuses ([`Error::Changed`]) if the ruleset's generation is not this one
    /// when it arrives: somebody else changed something meanwhile (`NFNL_BATCH_GENID`).
    #[must_use]
    pub fn with_generation(generation: u32) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(generation: Option<u32>) -> Self {
        let mut out = Buffer::default();
        let start = out.open_message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, 0, NFNL_SUBSYS_NFTABLES);
        if let Some(generation) = generation {
            out.number(NFNL_BATCH_GENID, generation);
        }
        out.close_message(start);
        Self { out, messages: 0, run: None }
    }

    /// Makes room for so many bytes more at once: a buffer that grows by doubling would take twice the memory.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Adds the table; it may be there already.
    pub fn add_table(&mut self, family: Family) {
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE, family, |_| ());
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self, family: Family) {
        self.message(NFT_MSG_DELTABLE, 0, family, |_| ());
    }

    /// Adds a set or map; one with the same definition may be there already and keeps its elements.
    pub fn add_set(&mut self, family: Family, def: &SetDef) {
        // NFTA_SET_ID must differ from that of every other set of the transaction; the position does.
        let id = self.messages + 1;
        self.message(NFT_MSG_NEWSET, NLM_F_CREATE, family, |m| set::define(m, def, family, id));
    }

    /// Deletes a set or map with its elements. No rule may use it any more.
    pub fn delete_set(&mut self, family: Family, name: &str) {
        self.message(NFT_MSG_DELSET, 0, family, |m| m.text(NFTA_SET_NAME, name));
    }

    /// Adds a chain; it may be there already and keeps its rules.
    pub fn add_chain(&mut self, family: Family, name: &str, hook: Option<Hook>) {
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, |m| {
            m.text(NFTA_CHAIN_NAME, name);
            if let Some(hook) = hook {
                m.nest(NFTA_CHAIN_HOOK, |h| {
                    h.number(NFTA_HOOK_HOOKNUM, hook.point as u32);
                    h.raw(NFTA_HOOK_PRIORITY, &hook.priority.to_be_bytes());
                });
                let kind = match hook.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                };
                m.text(NFTA_CHAIN_TYPE, kind);
            }
        });
    }

    /// Deletes a chain with its rules. Nothing may lead to it any more.
    pub fn delete_chain(&mut self, family: Family, name: &str) {
        self.message(NFT_MSG_DELCHAIN, 0, family, |m| m.text(NFTA_CHAIN_NAME, name));
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, family: Family, chain: &str) {
        self.message(NFT_MSG_DELRULE, 0, family, |m| m.text(NFTA_RULE_CHAIN, chain));
    }

    /// Deletes the rules of all chains of the table.
    pub fn flush_table_rules(&mut self, family: Family) {
        self.message(NFT_MSG_DELRULE, 0, family, |_| ());
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, family: Family, chain: &str, rule: &[Statement], params: Params) {
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, |m| {
            m.text(NFTA_RULE_CHAIN, chain);
            m.nest(NFTA_RULE_EXPRESSIONS, |e| {
                for statement in rule {
                    expr::statement(e, statement, family, params);
                }
            });
        });
    }

    /// Adds an element. An equal one may be there already; one with the same key and another value may not.
    pub fn add_element(&mut self, family: Family, set: &str, key: &Key, value: Value<'_>) {
        self.element(NFT_MSG_NEWSETELEM, family, set, |e| {
            e.nest(NFTA_SET_ELEM_KEY, |k| k.raw(NFTA_DATA_VALUE, key.as_bytes()));
            match value {
                Value::None => (),
                Value::Bytes(data) => e.nest(NFTA_SET_ELEM_DATA, |d| d.raw(NFTA_DATA_VALUE, data.as_bytes())),
                Value::Verdict(Verdict::Drop) => {
                    e.nest(NFTA_SET_ELEM_DATA, |d| expr::verdict(d, NF_DROP, None));
                }
                Value::Verdict(Verdict::Goto(chain)) => {
                    e.nest(NFTA_SET_ELEM_DATA, |d| expr::verdict(d, NFT_GOTO, Some(chain)));
                }
            }
        });
    }

    /// Deletes an element, which must be there.
    pub fn delete_element(&mut self, family: Family, set: &str, key: &Key) {
        self.element(NFT_MSG_DELSETELEM, family, set, |e| {
            e.nest(NFTA_SET_ELEM_KEY, |k| k.raw(NFTA_DATA_VALUE, key.as_bytes()));
        });
    }

    /// Adds a range to an interval set: every component of a key between those of the two, which belong to it. In a
    /// set of single components, these must be addresses.
    pub fn add_range(&mut self, family: Family, set: &str, from: &Key, to: &Key) {
        self.range(NFT_MSG_NEWSETELEM, family, set, from, to);
    }

    /// Deletes a range, which must be there with these very ends.
    pub fn delete_range(&mut self, family: Family, set: &str, from: &Key, to: &Key) {
        self.range(NFT_MSG_DELSETELEM, family, set, from, to);
    }

    /// Messages so far.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages as usize
    }

    /// Bytes that will be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len() + EMPTY_MESSAGE
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Closes the transaction. Only its last message asks for an acknowledgement: one for each would overflow the
    /// socket's receive buffer.
    pub(crate) fn seal(mut self) -> Result<Sealed, Error> {
        self.close_run();
        let end = self.messages + 1;
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let start = self.out.open_message(NFNL_MSG_BATCH_END, flags, end, 0, NFNL_SUBSYS_NFTABLES);
        self.out.close_message(start);
        if self.out.overflow() {
            return Err(Error::TooLarge { bytes: self.out.len() });
        }
        Ok(Sealed { out: self.out, end })
    }

    /// Writes one message: the table's name and what `body` adds.
    fn message(&mut self, kind: u16, flags: u16, family: Family, body: impl FnOnce(&mut Buffer)) {
        self.close_run();
        let start = self.open_message(kind, flags, family);
        body(&mut self.out);
        self.out.close_message(start);
    }

    fn open_message(&mut self, kind: u16, flags: u16, family: Family) -> usize {
        self.messages += 1;
        let start =
            self.out.open_message(kind, NLM_F_REQUEST | flags, self.messages, family_number(family), 0);
        self.out.text(NFTA_TABLE, TABLE);
        start
    }

    /// In a set with concatenated keys a range is one element with two keys. In one with a single component (the
    /// kernel's `nft_set_rbtree`) it is two elements, one that begins it and one that ends it, behind its last value.
    fn range(&mut self, kind: u16, family: Family, set: &str, from: &Key, to: &Key) {
        let concatenated = from.components() > 1;
        self.element(kind, family, set, |e| {
            e.nest(NFTA_SET_ELEM_KEY, |k| k.raw(NFTA_DATA_VALUE, from.as_bytes()));
            if concatenated {
                e.nest(NFTA_SET_ELEM_KEY_END, |k| k.raw(NFTA_DATA_VALUE, to.as_bytes()));
            }
        });
        // A range up to the largest address stays open.
        if let (false, Some(end)) = (concatenated, to.successor()) {
            self.element(kind, family, set, |e| {
                e.nest(NFTA_SET_ELEM_KEY, |k| k.raw(NFTA_DATA_VALUE, end.as_bytes()));
                e.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
            });
        }
    }

    fn element(&mut self, kind: u16, family: Family, set: &str, write: impl FnOnce(&mut Buffer)) {
        let fits = self.run.as_ref().is_some_and(|run| {
            run.kind == kind
                && run.family == family
                && self.out.bytes()[run.set.clone()] == *set.as_bytes()
                && self.out.len() - run.list < FULL
        });
        if !fits {
            self.open_run(kind, family, set);
        }
        self.out.nest(NFTA_LIST_ELEM, write);
    }

    fn open_run(&mut self, kind: u16, family: Family, set: &str) {
        self.close_run();
        let flags = if kind == NFT_MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
        let message = self.open_message(kind, flags, family);
        let name = self.out.len() + 4;
        self.out.text(NFTA_SET_ELEM_LIST_SET, set);
        let list = self.out.open_nest(NFTA_SET_ELEM_LIST_ELEMENTS);
        self.run = Some(Run { kind, family, set: name..name + set.len(), message, list });
    }

    fn close_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.out.close(run.list);
            self.out.close_message(run.message);
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// A batch ready to be sent.
#[derive(Debug)]
pub(crate) struct Sealed {
    out: Buffer,
    /// The sequence number of the last message.
    pub(crate) end: u32,
}

impl Sealed {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.out.bytes()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out.into_bytes()
    }

    pub(crate) fn messages(&self) -> usize {
        self.end as usize - 1
    }
}

#[cfg(test)]
mod tests;
