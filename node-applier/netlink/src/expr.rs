//! Statements to nf_tables expressions.
//!
//! Registers are the sixteen 4-byte ones. A key starts at the first; what a map yields overwrites it, since the kernel
//! reads the whole key before it writes the data. No expression reads what another lookup wrote, but for `nat`, whose
//! address and port nft knows how to print.

use std::net::IpAddr;

use rulecast_bundle::nft::{Family, Field, Statement};

use crate::attr::Buffer;
use crate::batch::Params;
use crate::set::registers;
use crate::uapi::*;

/// The register at which all expressions start.
const FIRST: u32 = NFT_REG32_00;

/// Writes the expressions of one statement, as elements of `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn statement(out: &mut Buffer, statement: &Statement, family: Family, params: Params) {
    Lowering { out, family, params }.statement(statement);
}

struct Lowering<'a> {
    out: &'a mut Buffer,
    family: Family,
    params: Params,
}

impl Lowering<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::InPrefix { field, negate, addr, len } => self.in_prefix(*field, *negate, *addr, *len),
            Statement::IsLocal { field, negate } => {
                self.fib_type(*field);
                self.compare(*negate, &RTN_LOCAL.to_ne_bytes());
            }
            // Stands for prefixes that only the node knows. Where nobody put them in its place, nothing is known to
            // match: a rule with it never does.
            Statement::FromPods { .. } => {
                self.meta(NFT_META_MARK);
                self.bitwise(&[0; 4], &[0; 4]);
                self.compare(true, &[0; 4]);
            }
            Statement::InputInterface { name, prefix, negate } => self.interface(name, *prefix, *negate),
            Statement::StateNew => self.conntrack_bit(NFT_CT_STATE, CT_STATE_NEW),
            Statement::StatusDnat => self.conntrack_bit(NFT_CT_STATUS, IPS_DST_NAT),
            Statement::InSet { key, set, negate } => {
                self.load(key, FIRST);
                self.lookup(set.as_str(), None, *negate);
            }
            Statement::VerdictMap { key, map } => {
                self.load(key, FIRST);
                self.lookup(map.as_str(), Some(NFT_REG_VERDICT), false);
            }
            Statement::Dnat { key, map } => {
                self.load(key, FIRST);
                self.lookup(map.as_str(), Some(FIRST), false);
                self.dnat(FIRST, FIRST + registers(Field::DestAddr, self.family));
            }
            Statement::Remember { key, data, map } => {
                let behind = self.load(key, FIRST);
                self.load(data, behind);
                self.remember(map.as_str(), behind);
            }
            Statement::MarkIs { bits, set } => {
                self.meta(NFT_META_MARK);
                self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
                self.compare(*set, &[0; 4]);
            }
            // Bitwise is (x & mask) ^ xor: an "or" clears the bits first.
            Statement::MarkOr(bits) => self.change_mark(!bits, *bits),
            Statement::MarkXor(bits) => self.change_mark(u32::MAX, *bits),
            Statement::Masquerade => {
                self.expression("masq", |e| e.number(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY));
            }
            Statement::Reject => self.reject(),
            Statement::Drop => self.verdict(NF_DROP, None),
            Statement::Accept => self.verdict(NF_ACCEPT, None),
            Statement::Return => self.verdict(NFT_RETURN, None),
            Statement::Jump(chain) => self.verdict(NFT_JUMP, Some(chain.as_str())),
            Statement::Goto(chain) => self.verdict(NFT_GOTO, Some(chain.as_str())),
        }
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Buffer)) {
        self.out.nest(NFTA_LIST_ELEM, |e| {
            e.text(NFTA_EXPR_NAME, name);
            e.nest(NFTA_EXPR_DATA, data);
        });
    }

    /// Loads a concatenation from register `at` on; returns the register behind it. The kernel refuses a rule that
    /// runs out of registers.
    fn load(&mut self, fields: &[Field], mut at: u32) -> u32 {
        for field in fields {
            self.load_field(*field, at);
            at += registers(*field, self.family);
        }
        at
    }

    fn load_field(&mut self, field: Field, dreg: u32) {
        // Offsets and lengths in struct iphdr and struct ipv6hdr; the destination port is bytes 2 and 3 of every
        // transport header that has ports.
        let (source, dest, len, original) = match self.family {
            Family::V4 => (12, 16, 4, NFT_CT_DST_IP),
            Family::V6 => (8, 24, 16, NFT_CT_DST_IP6),
        };
        match field {
            Field::SourceAddr => self.payload(NFT_PAYLOAD_NETWORK_HEADER, source, len, dreg),
            Field::DestAddr => self.payload(NFT_PAYLOAD_NETWORK_HEADER, dest, len, dreg),
            Field::DestPort => self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, dreg),
            Field::Proto => self.expression("meta", |e| {
                e.number(NFTA_META_DREG, dreg);
                e.number(NFTA_META_KEY, NFT_META_L4PROTO);
            }),
            Field::OriginalDestAddr => self.conntrack_original(original, dreg),
            Field::OriginalDestPort => self.conntrack_original(NFT_CT_PROTO_DST, dreg),
            Field::RandomIndex => {
                let members = self.params.members;
                self.expression("numgen", |e| {
                    e.number(NFTA_NG_DREG, dreg);
                    e.number(NFTA_NG_MODULUS, members);
                    e.number(NFTA_NG_TYPE, NFT_NG_RANDOM);
                });
            }
        }
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32, dreg: u32) {
        self.expression("payload", |e| {
            e.number(NFTA_PAYLOAD_DREG, dreg);
            e.number(NFTA_PAYLOAD_BASE, base);
            e.number(NFTA_PAYLOAD_OFFSET, offset);
            e.number(NFTA_PAYLOAD_LEN, len);
        });
    }

    fn conntrack_original(&mut self, key: u32, dreg: u32) {
        self.expression("ct", |e| {
            e.number(NFTA_CT_DREG, dreg);
            e.number(NFTA_CT_KEY, key);
            e.raw(NFTA_CT_DIRECTION, &[IP_CT_DIR_ORIGINAL]);
        });
    }

    /// `ct state new` and its like: the bit is set.
    fn conntrack_bit(&mut self, key: u32, bit: u32) {
        self.expression("ct", |e| {
            e.number(NFTA_CT_DREG, FIRST);
            e.number(NFTA_CT_KEY, key);
        });
        self.bitwise(&bit.to_ne_bytes(), &[0; 4]);
        self.compare(true, &[0; 4]);
    }

    fn in_prefix(&mut self, field: Field, negate: bool, addr: IpAddr, len: u8) {
        self.load_field(field, FIRST);
        match addr {
            IpAddr::V4(addr) => self.compare_prefix(negate, addr.octets(), len),
            IpAddr::V6(addr) => self.compare_prefix(negate, addr.octets(), len),
        }
    }

    fn compare_prefix<const N: usize>(&mut self, negate: bool, addr: [u8; N], len: u8) {
        let mut mask = [0; N];
        let mut bits = u32::from(len);
        for byte in &mut mask {
            *byte = !u8::MAX.checked_shr(bits).unwrap_or(0);
            bits = bits.saturating_sub(8);
        }
        if mask != [0xff; N] {
            self.bitwise(&mask, &[0; N]);
        }
        self.compare(negate, &addr);
    }

    fn fib_type(&mut self, field: Field) {
        let flags = if field == Field::SourceAddr { NFTA_FIB_F_SADDR } else { NFTA_FIB_F_DADDR };
        self.expression("fib", |e| {
            e.number(NFTA_FIB_DREG, FIRST);
            e.number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            e.number(NFTA_FIB_FLAGS, flags);
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |e| {
            e.number(NFTA_META_DREG, FIRST);
            e.number(NFTA_META_KEY, key);
        });
    }

    /// The kernel compares the name in a register of 16 bytes, padded with zeroes; a pattern is a comparison of as many
    /// bytes as it has.
    fn interface(&mut self, name: &str, prefix: bool, negate: bool) {
        self.meta(NFT_META_IIFNAME);
        let mut padded = [0; IFNAMSIZ];
        let length = name.len().min(IFNAMSIZ - 1);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.compare(negate, if prefix { &padded[..length] } else { &padded });
    }

    fn change_mark(&mut self, mask: u32, xor: u32) {
        self.meta(NFT_META_MARK);
        self.bitwise(&mask.to_ne_bytes(), &xor.to_ne_bytes());
        self.expression("meta", |e| {
            e.number(NFTA_META_KEY, NFT_META_MARK);
            e.number(NFTA_META_SREG, FIRST);
        });
    }

    /// The first registers become `(registers & mask) ^ xor`; both are as long as the value.
    fn bitwise<const N: usize>(&mut self, mask: &[u8; N], xor: &[u8; N]) {
        let len = u32::try_from(N).unwrap_or(u32::MAX);
        self.expression("bitwise", |e| {
            e.number(NFTA_BITWISE_SREG, FIRST);
            e.number(NFTA_BITWISE_DREG, FIRST);
            e.number(NFTA_BITWISE_LEN, len);
            e.nest(NFTA_BITWISE_MASK, |d| d.raw(NFTA_DATA_VALUE, mask));
            e.nest(NFTA_BITWISE_XOR, |d| d.raw(NFTA_DATA_VALUE, xor));
        });
    }

    fn compare(&mut self, differs: bool, data: &[u8]) {
        self.expression("cmp", |e| {
            e.number(NFTA_CMP_SREG, FIRST);
            e.number(NFTA_CMP_OP, if differs { NFT_CMP_NEQ } else { NFT_CMP_EQ });
            e.nest(NFTA_CMP_DATA, |d| d.raw(NFTA_DATA_VALUE, data));
        });
    }

    fn lookup(&mut self, set: &str, dreg: Option<u32>, negate: bool) {
        self.expression("lookup", |e| {
            e.text(NFTA_LOOKUP_SET, set);
            e.number(NFTA_LOOKUP_SREG, FIRST);
            if let Some(dreg) = dreg {
                e.number(NFTA_LOOKUP_DREG, dreg);
            }
            if negate {
                e.number(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
            }
        });
    }

    fn dnat(&mut self, addr: u32, port: u32) {
        let family = u32::from(family_number(self.family));
        self.expression("nat", |e| {
            e.number(NFTA_NAT_TYPE, NFT_NAT_DNAT);
            e.number(NFTA_NAT_FAMILY, family);
            e.number(NFTA_NAT_REG_ADDR_MIN, addr);
            e.number(NFTA_NAT_REG_PROTO_MIN, port);
            e.number(NFTA_NAT_REG_ADDR_MAX, addr);
            e.number(NFTA_NAT_REG_PROTO_MAX, port);
        });
    }

    fn remember(&mut self, map: &str, data: u32) {
        let timeout = u64::try_from(self.params.timeout.as_millis()).unwrap_or(u64::MAX);
        self.expression("dynset", |e| {
            e.text(NFTA_DYNSET_SET_NAME, map);
            e.number(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
            e.number(NFTA_DYNSET_SREG_KEY, FIRST);
            e.number(NFTA_DYNSET_SREG_DATA, data);
            e.raw(NFTA_DYNSET_TIMEOUT, &timeout.to_be_bytes());
        });
    }

    fn reject(&mut self) {
        let code = match self.family {
            Family::V4 => ICMP_PORT_UNREACH,
            Family::V6 => ICMPV6_PORT_UNREACH,
        };
        self.expression("reject", |e| {
            e.number(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH);
            e.raw(NFTA_REJECT_ICMP_CODE, &[code]);
        });
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.expression("immediate", |e| {
            e.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            e.nest(NFTA_IMMEDIATE_DATA, |d| verdict(d, code, chain));
        });
    }
}

/// `NFTA_DATA_VERDICT`, in a rule or in an element.
pub(crate) fn verdict(out: &mut Buffer, code: u32, chain: Option<&str>) {
    out.nest(NFTA_DATA_VERDICT, |v| {
        v.number(NFTA_VERDICT_CODE, code);
        if let Some(chain) = chain {
            v.text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
