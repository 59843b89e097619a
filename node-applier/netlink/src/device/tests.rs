//! Requests byte by byte, and answers of every quality.

use super::*;
use crate::attr::messages;

fn bytes(write: impl FnOnce(&mut Buffer)) -> Vec<u8> {
    let mut b = Buffer::default();
    write(&mut b);
    b.bytes().to_vec()
}

#[cfg(target_endian = "little")]
#[test]
fn a_dummy_device_is_made_by_name() {
    let expected = [
        // Length, RTM_NEWLINK, flags (create, exclusively, request, acknowledge), sequence number, port id.
        &[64, 0, 0, 0, 16, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0][..],
        &[0; 16],
        &[14, 0, 3, 0, b'r', b'u', b'l', b'e', b'c', b'a', b's', b't', b'0', 0, 0, 0],
        &[16, 0, 18, 0x80, 10, 0, 1, 0, b'd', b'u', b'm', b'm', b'y', 0, 0, 0],
    ];
    assert_eq!(bytes(|b| write_new(b, &"rulecast0", 1, 5)), expected.concat());
}

#[cfg(target_endian = "little")]
#[test]
fn addresses_have_prefixes_of_their_full_length() {
    let head = |kind, flags, len: u8| [len, 0, 0, 0, kind, 0, 5, flags, 1, 0, 0, 0, 0, 0, 0, 0];
    let v4 = [&[2, 32, 2, 0, 9, 0, 0, 0][..], &[8, 0, 2, 0, 10, 96, 0, 1]].concat();
    let addr: IpAddr = "10.96.0.1".parse().unwrap();
    let add = bytes(|b| write_address(b, 9, AddressOperation::Add(addr), 1, 5));
    assert_eq!(add, [&head(20, 6, 32)[..], &v4].concat());
    let remove = bytes(|b| write_address(b, 9, AddressOperation::Remove(addr), 1, 5));
    assert_eq!(remove, [&head(21, 0, 32)[..], &v4].concat());

    let v6 =
        [&[10, 128, 2, 0, 9, 0, 0, 0][..], &[20, 0, 2, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]];
    let add = bytes(|b| write_address(b, 9, AddressOperation::Add("fd00::1".parse().unwrap()), 1, 5));
    assert_eq!(add, [&head(20, 6, 44)[..], &v6.concat()].concat());
}

#[test]
fn addresses_are_read_of_this_device_only_and_without_the_links_own() {
    let told = |addr: &str, index| {
        let addr: IpAddr = addr.parse().unwrap();
        bytes(|b| write_address(b, index, AddressOperation::Add(addr), 1, 0))
    };
    let read =
        |bytes: &[u8]| messages(bytes).filter_map(|(_, m)| read_address(&m, 9)).collect::<Vec<IpAddr>>();
    for addr in ["10.96.0.1", "fd00::1"] {
        assert_eq!(read(&told(addr, 9)), [addr.parse::<IpAddr>().unwrap()]);
        assert_eq!(read(&told(addr, 8)), [] as [IpAddr; 0]);
    }
    assert_eq!(read(&told("fe80::1", 9)), [] as [IpAddr; 0]);
    let good = told("fd00::1", 9);
    for len in 0..good.len() {
        for value in [0, 2, 4, 10, 127, 128, 255] {
            let mut bad = good.clone();
            bad[len] = value;
            read(&bad);
            read(&good[..len]);
        }
    }
}
