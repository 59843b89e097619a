//! Requests byte by byte, and answers of every quality.

use super::*;
use crate::attr::messages;

const V4: &str = "10.96.0.1";
const V6: &str = "fd00::1";

fn server(addr: &str) -> VirtualServer {
    VirtualServer { addr: addr.parse().unwrap(), proto: 6, port: 80 }
}

fn to(addr: &str) -> Destination {
    Destination { addr: addr.parse().unwrap(), port: 8080 }
}

fn how(persistence: Option<u32>) -> Scheduling {
    Scheduling { scheduler: "rr".to_owned(), persistence, fallback: persistence.is_some() }
}

/// The whole message, with family 30 and sequence number 1.
fn message(operation: &Operation) -> Vec<u8> {
    let mut b = Buffer::default();
    operation.write(&mut b, 30, 1, 5);
    b.bytes().to_vec()
}

/// Length, type 30, flags (request, acknowledge), sequence number 1, port id; command, version.
fn head(len: u8, command: u8) -> Vec<u8> {
    [&[len, 0, 0, 0, 30, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[command, 1, 0, 0]].concat()
}

/// Family, protocol, address and port of the IPv4 server, without the nest around them.
fn server_v4() -> Vec<u8> {
    [
        &[6, 0, 1, 0, 2, 0, 0, 0][..],
        &[6, 0, 2, 0, 6, 0, 0, 0],
        &[20, 0, 3, 0, 10, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 4, 0, 0, 80, 0, 0],
    ]
    .concat()
}

#[cfg(target_endian = "little")]
#[test]
fn a_virtual_server_of_ipv4() {
    let body = [
        &[100, 0, 1, 0x80][..],
        &server_v4(),
        &[7, 0, 6, 0, b'r', b'r', 0, 0],
        &[12, 0, 7, 0, 0, 0, 0, 0, 255, 255, 255, 255],
        &[8, 0, 8, 0, 0, 0, 0, 0],
        &[8, 0, 9, 0, 255, 255, 255, 255],
    ]
    .concat();
    // 20 of the headers, 4 of the nest, 44 of the server, 36 of the scheduling.
    let body = [&[84, 0][..], &body[2..]].concat();
    assert_eq!(message(&Operation::NewService(server(V4), how(None))), [head(104, 1), body.clone()].concat());
    assert_eq!(message(&Operation::SetService(server(V4), how(None))), [head(104, 2), body].concat());
    let body = [&[48, 0, 1, 0x80][..], &server_v4()].concat();
    assert_eq!(message(&Operation::DeleteService(server(V4))), [head(68, 3), body].concat());
}

#[cfg(target_endian = "little")]
#[test]
fn affinity_is_persistence_of_single_clients() {
    let bytes = message(&Operation::NewService(server(V6), how(Some(10_800))));
    let (_, read) = messages(&bytes).next().unwrap();
    let service = read.attributes().nest(IPVS_CMD_ATTR_SERVICE);
    assert_eq!(service.raw(IPVS_SVC_ATTR_AF), Some(&[10, 0][..]));
    let addr = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(service.raw(IPVS_SVC_ATTR_ADDR), Some(&addr[..]));
    assert_eq!(service.raw(IPVS_SVC_ATTR_FLAGS), Some(&[9, 0, 0, 0, 255, 255, 255, 255][..]));
    assert_eq!(service.raw(IPVS_SVC_ATTR_TIMEOUT), Some(&[0x30, 0x2a, 0, 0][..]));
    assert_eq!(service.raw(IPVS_SVC_ATTR_NETMASK), Some(&[128, 0, 0, 0][..]), "a prefix length in IPv6");
}

#[cfg(target_endian = "little")]
#[test]
fn a_destination_with_its_weight() {
    let address = [
        &[20, 0, 1, 0, 10, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[6, 0, 2, 0, 0x1f, 0x90, 0, 0],
        &[6, 0, 11, 0, 2, 0, 0, 0],
    ]
    .concat();
    let server_nest = [&[48, 0, 1, 0x80][..], &server_v4()].concat();
    let rest = [
        &[8, 0, 3, 0, 0, 0, 0, 0][..],
        &[8, 0, 4, 0, 7, 0, 0, 0],
        &[8, 0, 5, 0, 0, 0, 0, 0],
        &[8, 0, 6, 0, 0, 0, 0, 0],
    ]
    .concat();
    let whole = [&server_nest[..], &[72, 0, 2, 0x80], &address, &rest].concat();
    let endpoint = to("10.1.0.9");
    let new = Operation::NewDestination(server(V4), endpoint, 7);
    assert_eq!(message(&new), [head(140, 5), whole.clone()].concat());
    let set = Operation::SetDestination(server(V4), endpoint, 7);
    assert_eq!(message(&set), [head(140, 6), whole].concat());
    let whole = [&server_nest[..], &[40, 0, 2, 0x80], &address].concat();
    assert_eq!(message(&Operation::DeleteDestination(server(V4), endpoint)), [head(108, 7), whole].concat());
}

#[cfg(target_endian = "little")]
#[test]
fn timeouts_are_numbers_of_the_machine() {
    let mut b = Buffer::default();
    write_timeouts(&mut b, Timeouts { tcp: 900, tcp_fin: 120, udp: 0 });
    let expected = [8, 0, 4, 0, 0x84, 3, 0, 0, 8, 0, 5, 0, 120, 0, 0, 0, 8, 0, 6, 0, 0, 0, 0, 0];
    assert_eq!(b.bytes(), expected);
}

#[test]
fn what_is_written_of_servers_can_be_read() {
    for addr in [V4, V6] {
        for persistence in [None, Some(60)] {
            let bytes = message(&Operation::NewService(server(addr), how(persistence)));
            let (_, read) = messages(&bytes).next().unwrap();
            let service = read.attributes().nest(IPVS_CMD_ATTR_SERVICE);
            assert_eq!(read_service(service), Some((server(addr), how(persistence))));
        }
    }
}

/// A destination as the kernel tells it.
fn told(addr: &str, family: Option<u16>) -> Vec<u8> {
    let mut b = Buffer::default();
    b.raw(IPVS_DEST_ATTR_ADDR, &union(addr.parse().unwrap()));
    b.raw(IPVS_DEST_ATTR_PORT, &8080_u16.to_be_bytes());
    if let Some(family) = family {
        b.raw(IPVS_DEST_ATTR_ADDR_FAMILY, &family.to_ne_bytes());
    }
    for (kind, number) in [
        (IPVS_DEST_ATTR_FWD_METHOD, 0x100_u32),
        (IPVS_DEST_ATTR_WEIGHT, 3),
        (IPVS_DEST_ATTR_ACTIVE_CONNS, 5),
        (IPVS_DEST_ATTR_INACT_CONNS, 6),
        (IPVS_DEST_ATTR_PERSIST_CONNS, 7),
    ] {
        b.raw(kind, &number.to_ne_bytes());
    }
    b.bytes().to_vec()
}

#[test]
fn destinations_are_read_with_their_connections() {
    for (addr, of, family) in
        [("10.1.0.9", V4, Some(2)), ("10.1.0.9", V4, None), ("fd00::9", V6, Some(10)), ("fd00::9", V6, None)]
    {
        let read = read_destination(Attributes(&told(addr, family)), of.parse().unwrap());
        let expected = DestinationState {
            destination: to(addr),
            weight: 3,
            translates: true,
            active: 5,
            inactive: 6,
            persistent: 7,
        };
        assert_eq!(read, Some(expected));
    }
}

#[test]
fn damaged_answers_are_read_without_a_panic() {
    let service = message(&Operation::NewService(server(V6), how(Some(60))))[20..].to_vec();
    for good in [told("fd00::9", Some(10)), service] {
        for len in 0..good.len() {
            for value in [0, 1, 2, 4, 5, 20, 127, 128, 255] {
                let mut bad = good.clone();
                bad[len] = value;
                for bytes in [&good[..len], &bad] {
                    let _ = read_destination(Attributes(bytes), V6.parse().unwrap());
                    let _ = read_service(Attributes(bytes).nest(IPVS_CMD_ATTR_SERVICE));
                }
            }
        }
    }
}
