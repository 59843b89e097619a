//! What a transaction would make of an empty table, in the words in which the kernel tells what it has.
//!
//! Rules are compared by a hash of their expressions, with which the kernel's dump and a message of ours agree when they mean
//! the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::attr::{Attributes, messages};
use crate::batch::Batch;
use crate::dump::{Element, read_set};
use crate::error::Error;
use crate::set::SetInfo;
use crate::uapi::*;

/// Of a chain without a hook.
const NO_HOOK: u64 = 0;

/// What a transaction would make of an empty table.
pub struct Expected {
    bytes: Vec<u8>,
    /// All but elements.
    pub content: Content,
}

/// The parts of a table that are few enough to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// By name: a hash of the hook, its priority, type and policy.
    pub chains: BTreeMap<String, u64>,
    /// By chain, in their order: hashes of rules.
    pub rules: BTreeMap<String, Vec<u64>>,
    /// Sets and maps.
    pub sets: Vec<SetInfo>,
}

impl Batch {
    /// What it would make of an empty table, if it only adds, and to one table.
    pub fn into_expected(self) -> Result<Expected, Error> {
        let sealed = self.seal()?;
        let mut content = Content::default();
        for (_, message) in messages(sealed.bytes()) {
            let attributes = message.attributes();
            match message.kind {
                NFT_MSG_NEWCHAIN => content.take_chain(attributes),
                NFT_MSG_NEWRULE => content.take_rule(attributes),
                NFT_MSG_NEWSET => content.sets.extend(read_set(attributes)),
                _ => {}
            }
        }
        Ok(Expected { bytes: sealed.into_bytes(), content })
    }
}

impl Expected {
    /// All elements, with their set's name. One that was added twice comes twice.
    pub fn elements(&self, mut each: impl FnMut(&str, Element<'_>)) {
        for (_, message) in messages(&self.bytes).filter(|(_, m)| m.kind == NFT_MSG_NEWSETELEM) {
            let attributes = message.attributes();
            let Some(set) = attributes.text(NFTA_SET_ELEM_LIST_SET) else { continue };
            for (_, element) in attributes.nest(NFTA_SET_ELEM_LIST_ELEMENTS).iter() {
                if let Some(element) = Element::read(Attributes(element)) {
                    each(set, element);
                }
            }
        }
    }
}

impl Content {
    pub(crate) fn take_chain(&mut self, chain: Attributes<'_>) {
        let Some(name) = chain.text(NFTA_CHAIN_NAME) else { return };
        let hook = chain.nest(NFTA_CHAIN_HOOK);
        let hash = hook.number(NFTA_HOOK_HOOKNUM).map_or(NO_HOOK, |number| {
            // A chain that was made without a policy accepts.
            let policy = chain.number(NFTA_CHAIN_POLICY).unwrap_or(NF_ACCEPT);
            hash_of(&(number, hook.number(NFTA_HOOK_PRIORITY), chain.text(NFTA_CHAIN_TYPE), policy))
        });
        self.chains.insert(name.to_owned(), hash);
    }

    pub(crate) fn take_rule(&mut self, rule: Attributes<'_>) {
        let Some(chain) = rule.text(NFTA_RULE_CHAIN) else { return };
        let rules = self.rules.entry(chain.to_owned()).or_default();
        rules.push(hash_of_rule(rule.nest(NFTA_RULE_EXPRESSIONS)));
    }
}

impl Element<'_> {
    /// A hash of everything about it.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        hash_of(&(self.key, self.key_end, self.ends_range, self.data, self.verdict))
    }
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What counts of an expression.
struct Parts {
    registers: &'static [u16],
    values: &'static [u16],
    /// Attributes with `NFTA_DATA_VALUE` or a verdict in them.
    data: &'static [u16],
}

/// Of an expression that this crate never writes nothing counts but its name: no rule of ours has one.
fn parts(expression: &str) -> Parts {
    let (registers, values, data): (&[u16], &[u16], &[u16]) = match expression {
        "payload" => (&[NFTA_PAYLOAD_DREG], &[NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN], &[]),
        "meta" => (&[NFTA_META_DREG, NFTA_META_SREG], &[NFTA_META_KEY], &[]),
        "ct" => (&[NFTA_CT_DREG], &[NFTA_CT_KEY, NFTA_CT_DIRECTION], &[]),
        "bitwise" => (
            &[NFTA_BITWISE_SREG, NFTA_BITWISE_DREG],
            &[NFTA_BITWISE_LEN],
            &[NFTA_BITWISE_MASK, NFTA_BITWISE_XOR],
        ),
        "cmp" => (&[NFTA_CMP_SREG], &[NFTA_CMP_OP], &[NFTA_CMP_DATA]),
        "lookup" => (&[NFTA_LOOKUP_SREG, NFTA_LOOKUP_DREG], &[NFTA_LOOKUP_SET, NFTA_LOOKUP_FLAGS], &[]),
        "dynset" => (
            &[NFTA_DYNSET_SREG_KEY, NFTA_DYNSET_SREG_DATA],
            &[NFTA_DYNSET_SET_NAME, NFTA_DYNSET_OP, NFTA_DYNSET_TIMEOUT],
            &[],
        ),
        "numgen" => (&[NFTA_NG_DREG], &[NFTA_NG_MODULUS, NFTA_NG_TYPE], &[]),
        "fib" => (&[NFTA_FIB_DREG], &[NFTA_FIB_RESULT, NFTA_FIB_FLAGS], &[]),
        "nat" => (
            &[NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_ADDR_MAX, NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX],
            &[NFTA_NAT_TYPE, NFTA_NAT_FAMILY],
            &[],
        ),
        "masq" => (&[], &[NFTA_MASQ_FLAGS], &[]),
        "reject" => (&[], &[NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE], &[]),
        "immediate" => (&[NFTA_IMMEDIATE_DREG], &[], &[NFTA_IMMEDIATE_DATA]),
        _ => (&[], &[], &[]),
    };
    Parts { registers, values, data }
}

fn hash_of_rule(expressions: Attributes<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (_, expression) in expressions.iter() {
        let expression = Attributes(expression);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or("?");
        let parts = parts(name);
        let data = expression.nest(NFTA_EXPR_DATA);
        name.hash(&mut hasher);
        for kind in parts.registers {
            data.number(*kind).map(register).hash(&mut hasher);
        }
        for kind in parts.values {
            // The kernel tells a 0 where nothing was said.
            data.raw(*kind).filter(|bytes| bytes.iter().any(|b| *b != 0)).hash(&mut hasher);
        }
        for kind in parts.data {
            let value = data.nest(*kind);
            let verdict = value.nest(NFTA_DATA_VERDICT);
            value.raw(NFTA_DATA_VALUE).hash(&mut hasher);
            (verdict.number(NFTA_VERDICT_CODE), verdict.text(NFTA_VERDICT_CHAIN)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The kernel tells every fourth register of 4 bytes by the number of the one of 16 bytes that begins there
/// (`nft_dump_register`).
fn register(number: u32) -> u32 {
    match number.checked_sub(NFT_REG32_00) {
        Some(n) if n.is_multiple_of(4) => n / 4 + NFT_REG_1,
        _ => number,
    }
}
