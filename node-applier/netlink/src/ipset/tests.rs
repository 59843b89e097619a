//! Requests byte by byte, and answers of every quality.

use super::*;
use crate::attr::messages;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// All messages of an operation; sequence numbers from 1, flags 5.
fn bytes(operation: &SetOperation) -> Vec<u8> {
    let mut b = Buffer::default();
    for (seq, piece) in (1..).zip(pieces((0, operation))) {
        Piece::write(&mut b, &piece, seq, 5);
    }
    b.bytes().to_vec()
}

/// Length, command of subsystem 6, flags, sequence number 1, port id, `struct nfgenmsg`, then the protocol's version and
/// the name of the set, `RC-VS`.
fn head(len: u8, command: u8, family: u8) -> Vec<u8> {
    [
        &[len, 0, 0, 0, command, 6, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0][..],
        &[5, 0, 1, 0, 6, 0, 0, 0],
        &[10, 0, 2, 0, b'R', b'C', b'-', b'V', b'S', 0, 0, 0],
    ]
    .concat()
}

fn name() -> String {
    "RC-VS".to_owned()
}

#[cfg(target_endian = "little")]
#[test]
fn a_set_is_made_with_its_type_family_and_size() {
    let body = [
        &[17, 0, 3, 0][..],
        b"hash:ip,port\0\0\0\0",
        &[5, 0, 4, 0, 1, 0, 0, 0],
        &[5, 0, 5, 0, 2, 0, 0, 0],
        &[20, 0, 7, 0x80],
        &[8, 0, 18, 0x40, 0, 0, 4, 0],
        &[8, 0, 19, 0x40, 0, 0x10, 0, 0],
    ]
    .concat();
    let create = SetOperation::Create(name(), SetType::IpPort, Family::V4);
    assert_eq!(bytes(&create), [head(96, 2, 2), body].concat());
}

#[cfg(target_endian = "little")]
#[test]
fn a_set_of_clients_is_small_and_lets_them_time_out() {
    let body = [
        &[12, 0, 3, 0][..],
        b"hash:ip\0",
        &[5, 0, 4, 0, 0, 0, 0, 0],
        &[5, 0, 5, 0, 10, 0, 0, 0],
        &[28, 0, 7, 0x80],
        &[8, 0, 18, 0x40, 0, 0, 0, 64],
        &[8, 0, 19, 0x40, 0, 1, 0, 0],
        &[8, 0, 6, 0x40, 0, 0, 0, 0],
    ]
    .concat();
    let create = SetOperation::CreateClients(name(), Family::V6);
    assert_eq!(bytes(&create), [head(88 + 8, 2, 10), body].concat());
}

#[cfg(target_endian = "little")]
#[test]
fn entries_are_told_part_by_part() {
    let entry = Entry::port(ip("10.96.0.1"), 6, 80);
    let port = [&[6, 0, 4, 0x40, 0, 80, 0, 0][..], &[5, 0, 7, 0, 6, 0, 0, 0]].concat();
    let addr = [12, 0, 1, 0x80, 8, 0, 1, 0x40, 10, 96, 0, 1];
    let line = [8, 0, 9, 0, 0, 0, 0, 0];
    let body = [&line[..], &[36, 0, 8, 0x80], &[32, 0, 7, 0x80], &addr, &port].concat();
    let add = SetOperation::Add(name(), vec![entry]);
    assert_eq!(bytes(&add), [head(84, 9, 0), body.clone()].concat());
    let remove = SetOperation::Remove(name(), vec![entry]);
    assert_eq!(bytes(&remove), [head(84, 10, 0), body].concat());

    let range = entry.with((ip("203.0.113.0"), 24));
    let second =
        [&[12, 0, 20, 0x80, 8, 0, 1, 0x40, 203, 0, 113, 0][..], &[5, 0, 21, 0, 24, 0, 0, 0]].concat();
    let body = [&line[..], &[56, 0, 8, 0x80], &[52, 0, 7, 0x80], &addr, &port, &second].concat();
    assert_eq!(bytes(&SetOperation::Add(name(), vec![range])), [head(104, 9, 0), body].concat());
}

#[cfg(target_endian = "little")]
#[test]
fn sets_are_emptied_and_removed_by_name() {
    assert_eq!(bytes(&SetOperation::Flush(name())), head(40, 4, 0));
    assert_eq!(bytes(&SetOperation::Destroy(name())), head(40, 3, 0));
}

#[test]
fn many_entries_are_several_messages_that_all_fit() {
    let entries: Vec<Entry> = (0..1000_u128)
        .map(|n| {
            let addr = IpAddr::from((0xfd00_u128 << 112 | n).to_be_bytes());
            Entry::port(addr, 132, 80).with((addr, 128))
        })
        .collect();
    let mut b = Buffer::default();
    let add = SetOperation::Add(name(), entries.clone());
    let pieces = pieces((7, &add));
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        Piece::write(&mut b, piece, 1, 0);
        assert_eq!(piece.operation, 7);
    }
    assert!(!b.overflow());
    let read: Vec<Entry> = messages(b.bytes())
        .flat_map(|(_, m)| m.attributes().nest(IPSET_ATTR_ADT).iter().collect::<Vec<_>>())
        .filter_map(|(_, entry)| read_entry(Attributes(entry)))
        .collect();
    assert_eq!(read, entries);
}

#[test]
fn what_is_written_of_entries_can_be_read() {
    for addr in [ip("10.96.0.1"), ip("fd00::1")] {
        let range = (addr, 20);
        for entry in [
            Entry::addr(addr),
            Entry::port(addr, 17, 53),
            Entry::port(addr, 132, 53).with(range),
            Entry::port(addr, 6, 1).with((addr, if addr.is_ipv4() { 32 } else { 128 })),
        ] {
            let mut b = Buffer::default();
            write_entry(&mut b, &entry);
            assert_eq!(read_entry(Attributes(b.bytes())), Some(entry));
            for len in 0..b.len() {
                for value in [0, 1, 4, 5, 20, 127, 128, 255] {
                    let mut bad = b.bytes().to_vec();
                    bad[len] = value;
                    let _ = read_entry(Attributes(&bad));
                    let _ = read_entry(Attributes(&bad[..len]));
                }
            }
        }
    }
}

#[test]
fn modules_are_named_as_the_kernel_names_them() {
    let modules = [SetType::Ip, SetType::IpPort, SetType::IpPortIp, SetType::IpPortNet].map(SetType::module);
    let expected = ["ip_set_hash_ip", "ip_set_hash_ipport", "ip_set_hash_ipportip", "ip_set_hash_ipportnet"];
    assert_eq!(modules, expected);
}

#[test]
fn errors_of_ipsets_have_a_text() {
    let error = |errno| Error::Refused { operation: "x".to_owned(), errno, kernel_message: None };
    assert!(explain(error(IPSET_ERR_BUSY)).to_string().contains("a rule uses the set"));
    assert!(explain(error(2)).is_not_found());
}
