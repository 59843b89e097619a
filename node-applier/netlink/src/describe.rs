//! Messages in words, for errors and events.

use rulecast_bundle::nft::Family;

use crate::TABLE;
use crate::attr::{Attributes, Message, messages};
use crate::expr::family_number;
use crate::key::hex;
use crate::uapi::*;

/// The keyword of a table's family.
pub(crate) fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The family with this number, if it is one that this crate has tables in.
pub(crate) fn family_of(number: u8) -> Option<Family> {
    [Family::V4, Family::V6].into_iter().find(|f| family_number(*f) == number)
}

/// What a message of nf_tables is about, such as `chain lb-3`, and whether it comes or goes.
pub(crate) fn subject(message: &Message<'_>) -> Option<(String, bool)> {
    let attributes = message.attributes();
    let name = |kind| attributes.text(kind).unwrap_or("?");
    let (subject, added) = match message.kind {
        NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE => ("table".to_owned(), message.kind == NFT_MSG_NEWTABLE),
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => {
            (format!("chain {}", name(NFTA_CHAIN_NAME)), message.kind == NFT_MSG_NEWCHAIN)
        }
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => {
            let subject = match attributes.text(NFTA_RULE_CHAIN) {
                Some(chain) => format!("rule of chain {chain}"),
                None => "all rules".to_owned(),
            };
            (subject, message.kind == NFT_MSG_NEWRULE)
        }
        NFT_MSG_NEWSET | NFT_MSG_DELSET => {
            (format!("set {}", name(NFTA_SET_NAME)), message.kind == NFT_MSG_NEWSET)
        }
        NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => {
            let subject = format!("elements of set {}", name(NFTA_SET_ELEM_LIST_SET));
            (subject, message.kind == NFT_MSG_NEWSETELEM)
        }
        NFT_MSG_NEWOBJ | NFT_MSG_DELOBJ => ("object".to_owned(), message.kind == NFT_MSG_NEWOBJ),
        NFT_MSG_NEWFLOWTABLE | NFT_MSG_DELFLOWTABLE => {
            ("flowtable".to_owned(), message.kind == NFT_MSG_NEWFLOWTABLE)
        }
        _ => return None,
    };
    Some((subject, added))
}

/// The operation of a batch that the kernel refused, by the message's sequence number and the offset in the message
/// that the kernel complains about (`NLMSGERR_ATTR_OFFS`). Reads the batch itself, so that no record of it is needed
/// while all goes well.
pub(crate) fn operation(batch: &[u8], seq: u32, offset: Option<u32>) -> String {
    let message = messages(batch).find(|(_, m)| m.seq == seq);
    let Some((position, message)) = message else { return "carry out the transaction".to_owned() };
    let Some((subject, added)) = subject(&message) else { return "begin or end the transaction".to_owned() };
    let verb = if added { "add" } else { "delete" };
    let family = family_of(message.family()).map_or("?", family_word);
    let key = offset.and_then(|offset| key_at(batch, position, offset));
    let element = key.map(|key| format!(", element {}", hex(key))).unwrap_or_default();
    format!("{verb} {subject}, table {family} {TABLE}{element}")
}

/// The key of the element that begins at an offset in a message.
fn key_at(batch: &[u8], message: usize, offset: u32) -> Option<&[u8]> {
    let at = message.checked_add(usize::try_from(offset).ok()?)?;
    let (kind, element) = Attributes(batch.get(at..)?).iter().next()?;
    (kind == NFTA_LIST_ELEM).then_some(())?;
    Attributes(element).nest(NFTA_SET_ELEM_KEY).raw(NFTA_DATA_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Key, Value};

    #[test]
    fn operations_are_found_in_the_batch() {
        let mut batch = Batch::new();
        let key = Key::new().addr("10.0.0.1".parse().unwrap()).proto(6);
        batch.add_table(Family::V4);
        batch.add_chain(Family::V6, "lb-3", None);
        batch.add_element(Family::V4, "ips", &key, Value::None);
        batch.flush_table_rules(Family::V6);
        let sealed = batch.seal().unwrap();
        let text = |seq| operation(sealed.bytes(), seq, None);
        assert_eq!(text(0), "begin or end the transaction");
        assert_eq!(text(1), "add table, table ip rulecast");
        assert_eq!(text(2), "add chain lb-3, table ip6 rulecast");
        assert_eq!(text(3), "add elements of set ips, table ip rulecast");
        assert_eq!(text(4), "delete all rules, table ip6 rulecast");
        assert_eq!(text(99), "carry out the transaction");
        // The element begins behind the headers (20), the table's name (16), the set's name (8) and the list's header.
        let with_key = operation(sealed.bytes(), 3, Some(20 + 16 + 8 + 4));
        assert_eq!(with_key, "add elements of set ips, table ip rulecast, element 0a000001 06000000");
        for offset in 0..200 {
            let _ = operation(sealed.bytes(), 3, Some(offset * 3));
        }
    }
}
