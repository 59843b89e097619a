//! What nft leaves in a set for its own later use (`NFTA_SET_USERDATA`), so that it prints `typeof` and not `type`.
//!
//! Needed for keys with an index only: its type in nft is a plain integer, which a set declared with `type` cannot
//! have, so that a listing of such a set could be read by people but not loaded again. The kernel just keeps the bytes.
//! They are libnftnl's `nftnl_udata`: a byte for the type, one for the length, then the value, nested, in host order.

use rulecast_bundle::nft::{Data, Family, Field, SetDef};

use crate::uapi::NFT_META_L4PROTO;

/// libnftnl's `enum nftnl_udata_set_types`.
const SET_KEY_TYPEOF: u8 = 3;
const SET_DATA_TYPEOF: u8 = 4;
/// `enum nftnl_udata_set_typeof_types`.
const TYPEOF_EXPR: u8 = 0;
const TYPEOF_DATA: u8 = 1;

/// nftables' `enum expr_types`. These and the following are fixed: sets outlive the nft that made them.
const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;
/// `enum proto_desc_id`, and the field's position in that header's description.
const IP_SADDR: [u32; 2] = [12, 11];
const IP_DADDR: [u32; 2] = [12, 12];
const IP6_SADDR: [u32; 2] = [13, 8];
const IP6_DADDR: [u32; 2] = [13, 9];
const TH_DPORT: [u32; 2] = [11, 2];
/// `numgen random mod N offset 0`. Which N a listing of the set shows does not matter: each rule has its own.
const NUMGEN: [u32; 3] = [1, 65536, 0];

/// The user data of a set; none where `type` does.
pub(crate) fn of(def: &SetDef, family: Family) -> Option<Vec<u8>> {
    if !def.key.contains(&Field::RandomIndex) {
        return None;
    }
    let mut out = nested(SET_KEY_TYPEOF, concatenation(&def.key, family)?)?;
    if let Data::Fields(fields) = &def.data {
        out.extend(nested(SET_DATA_TYPEOF, concatenation(fields, family)?)?);
    }
    Some(out)
}

fn concatenation(fields: &[Field], family: Family) -> Option<Vec<u8>> {
    if let [one] = fields {
        return expression(*one, family);
    }
    let mut parts = Vec::new();
    for (position, field) in (0..).zip(fields) {
        parts.extend(nested(position, expression(*field, family)?)?);
    }
    typeof_(EXPR_CONCAT, parts)
}

fn expression(field: Field, family: Family) -> Option<Vec<u8>> {
    let payload = |v4, v6| (EXPR_PAYLOAD, numbers(if family == Family::V4 { v4 } else { v6 }));
    let (kind, data) = match field {
        Field::SourceAddr => payload(&IP_SADDR, &IP6_SADDR),
        Field::DestAddr => payload(&IP_DADDR, &IP6_DADDR),
        Field::DestPort => payload(&TH_DPORT, &TH_DPORT),
        Field::Proto => (EXPR_META, numbers(&[NFT_META_L4PROTO])),
        Field::RandomIndex => (EXPR_NUMGEN, numbers(&NUMGEN)),
        // No layout has these together with an index, and nft 1.0.6 cannot read the port.
        Field::OriginalDestAddr | Field::OriginalDestPort => return None,
    };
    typeof_(kind, data)
}

fn typeof_(kind: u32, data: Vec<u8>) -> Option<Vec<u8>> {
    let mut out = vec![TYPEOF_EXPR, 4];
    out.extend(kind.to_ne_bytes());
    out.extend(nested(TYPEOF_DATA, data)?);
    Some(out)
}

/// Numbers, typed by their position.
fn numbers(values: &[u32]) -> Vec<u8> {
    let number = |(position, value): (u8, &u32)| [&[position, 4][..], &value.to_ne_bytes()].concat();
    (0..).zip(values).flat_map(number).collect()
}

/// None when the length exceeds its byte.
fn nested(kind: u8, data: Vec<u8>) -> Option<Vec<u8>> {
    let mut out = vec![kind, u8::try_from(data.len()).ok()?];
    out.extend(data);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;
    use rulecast_bundle::name;

    /// As nft 1.0.6 writes them for `typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 :
    /// ip daddr . th dport`, but for the byte orders, which it writes as "unknown", and the `ip6` one.
    #[test]
    #[cfg(target_endian = "little")]
    fn bytes_are_nfts() {
        let mut def = SetDef {
            name: name("endpoints"),
            key: vec![Field::DestAddr, Field::Proto, Field::DestPort, Field::RandomIndex],
            data: Data::Fields(vec![Field::DestAddr, Field::DestPort]),
            interval: false,
            dynamic: false,
            size: 0,
        };
        let text = |def: &SetDef, family| of(def, family).map(|bytes| hex(&bytes).replace(' ', ""));
        let v4 = "036000040d00000001580014000407000000010c00040c00000001040c000000010e0004090000000106000410000000\
                  0214000407000000010c00040b000000010402000000031a000417000000011200040100000001040000010002040000\
                  0000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b00\
                  0000010402000000";
        assert_eq!(text(&def, Family::V4).as_deref(), Some(v4));
        let v6 = v4.replace("0c00040c00000001040c", "0c00040d000000010409");
        assert_eq!(text(&def, Family::V6), Some(v6));
        def.key.pop();
        assert_eq!(text(&def, Family::V4), None);
    }
}
