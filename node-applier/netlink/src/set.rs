//! How a set is defined to the kernel and to whoever lists it.

use rulecast_bundle::nft::{Data, Family, Field, SetDef};

use crate::attr::Buffer;
use crate::uapi::*;
use crate::userdata;

/// nft's data types (`enum datatypes` of nftables' `datatype.h`). The kernel only stores them; nft prints by them.
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_MARK: u32 = 19;
/// Bits per type in a concatenation's type (`TYPE_BITS`).
const TYPE_BITS: u32 = 6;

/// A component's nft type and its length in bytes, without padding.
fn kind(field: Field, family: Family) -> (u32, u32) {
    match (field, family) {
        (Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr, Family::V4) => (TYPE_IPADDR, 4),
        (Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr, Family::V6) => (TYPE_IP6ADDR, 16),
        (Field::Proto, _) => (TYPE_INET_PROTOCOL, 1),
        (Field::DestPort | Field::OriginalDestPort, _) => (TYPE_INET_SERVICE, 2),
        (Field::RandomIndex, _) => (TYPE_MARK, 4),
    }
}

/// The number of 4-byte registers that a component takes.
pub(crate) fn registers(field: Field, family: Family) -> u32 {
    kind(field, family).1.div_ceil(4)
}

/// The nft type of a concatenation and its length in bytes with padding. Of a single component: its own type and
/// length, without padding.
fn concatenation(fields: &[Field], family: Family) -> (u32, u32) {
    match fields {
        [one] => kind(*one, family),
        _ => fields.iter().fold((0, 0), |(types, len), field| {
            ((types << TYPE_BITS) | kind(*field, family).0, len + 4 * registers(*field, family))
        }),
    }
}

/// A set of table `rulecast`, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// `NFTA_SET_NAME`.
    pub name: String,
    /// `NFTA_SET_FLAGS`: `enum nft_set_flags`.
    pub flags: u32,
    /// `NFTA_SET_KEY_TYPE`: nft's type, six bits per component.
    pub key_type: u32,
    /// `NFTA_SET_KEY_LEN`: bytes.
    pub key_len: u32,
    /// `NFTA_SET_DATA_TYPE`: nft's type, `0xffffff00` for verdicts, 0 for a plain set.
    pub data_type: u32,
    /// `NFTA_SET_DATA_LEN`: bytes; 0 for verdicts and plain sets.
    pub data_len: u32,
    /// `NFTA_SET_DESC_SIZE`: the most elements; 0: no limit.
    pub size: u32,
}

impl SetInfo {
    /// What the kernel will say of a set made from this definition.
    #[must_use]
    pub fn of(def: &SetDef, family: Family) -> Self {
        let (key_type, key_len) = concatenation(&def.key, family);
        let (data_type, data_len) = match &def.data {
            Data::None => (0, 0),
            Data::Verdict => (NFT_DATA_VERDICT, 0),
            Data::Fields(fields) => concatenation(fields, family),
        };
        let mut flags = 0;
        for (flag, wanted) in [
            (NFT_SET_MAP, def.data != Data::None),
            (NFT_SET_INTERVAL, def.interval),
            (NFT_SET_EVAL | NFT_SET_TIMEOUT, def.dynamic),
            (NFT_SET_CONCAT, def.key.len() > 1),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        Self { name: def.name.to_string(), flags, key_type, key_len, data_type, data_len, size: def.size }
    }

    /// Whether this set is what the definition would make, so that its elements can stay.
    #[must_use]
    pub fn matches(&self, def: &SetDef, family: Family) -> bool {
        *self == Self::of(def, family)
    }
}

/// The attributes of `NFT_MSG_NEWSET` after the table's name. `id` must be unique in the transaction.
pub(crate) fn define(out: &mut Buffer, def: &SetDef, family: Family, id: u32) {
    let info = SetInfo::of(def, family);
    out.text(NFTA_SET_NAME, &info.name);
    out.number(NFTA_SET_FLAGS, info.flags);
    out.number(NFTA_SET_KEY_TYPE, info.key_type);
    out.number(NFTA_SET_KEY_LEN, info.key_len);
    if info.data_type != 0 {
        out.number(NFTA_SET_DATA_TYPE, info.data_type);
    }
    if info.data_len != 0 {
        out.number(NFTA_SET_DATA_LEN, info.data_len);
    }
    out.number(NFTA_SET_ID, id);
    let concatenated = def.key.len() > 1;
    if info.size != 0 || concatenated {
        out.nest(NFTA_SET_DESC, |desc| {
            if info.size != 0 {
                desc.number(NFTA_SET_DESC_SIZE, info.size);
            }
            if concatenated {
                desc.nest(NFTA_SET_DESC_CONCAT, |fields| {
                    for field in &def.key {
                        let (_, len) = kind(*field, family);
                        fields.nest(NFTA_LIST_ELEM, |f| f.number(NFTA_SET_FIELD_LEN, len));
                    }
                });
            }
        });
    }
    if let Some(data) = userdata::of(def, family) {
        out.raw(NFTA_SET_USERDATA, &data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rulecast_bundle::name;

    /// The numbers that nft writes for `ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service`.
    #[test]
    fn types_and_lengths_are_nfts() {
        let def = SetDef {
            name: name("endpoints"),
            key: vec![Field::DestAddr, Field::Proto, Field::DestPort, Field::RandomIndex],
            data: Data::Fields(vec![Field::DestAddr, Field::DestPort]),
            interval: false,
            dynamic: false,
            size: 0,
        };
        let v4 = SetInfo::of(&def, Family::V4);
        assert_eq!((v4.key_type, v4.key_len), (0x1c_c353, 16));
        assert_eq!((v4.data_type, v4.data_len, v4.flags), (0x1cd, 8, 0x88));
        let v6 = SetInfo::of(&def, Family::V6);
        assert_eq!((v6.key_type >> 18, v6.key_len, v6.data_len), (8, 28, 20));

        let plain = SetDef { key: vec![Field::DestPort], data: Data::None, ..def };
        let plain = SetInfo::of(&plain, Family::V4);
        assert_eq!((plain.key_type, plain.key_len, plain.data_type, plain.flags), (13, 2, 0, 0));
    }
}
