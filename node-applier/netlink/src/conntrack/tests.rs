//! Requests byte by byte, and answers of every quality.

use std::net::{IpAddr, SocketAddr};

use rulecast_bundle::nft::Family;

use super::flow::{Destinations, Flow, deletions, write_filter};
use super::*;
use crate::attr::{Attributes, Message};

fn flow(family: Family) -> Flow {
    let (source, dest, endpoint) = match family {
        Family::V4 => ("10.1.2.3:40000", "10.96.0.10:53", "10.1.9.9:5353"),
        Family::V6 => ("[fd00::3]:40000", "[fd00:96::10]:53", "[fd00::9]:5353"),
    };
    let addr = |text: &str| text.parse().unwrap();
    Flow {
        source: addr(source),
        dest: addr(dest),
        reply_source: addr(endpoint),
        reply_dest: addr(source),
        zone: None,
        id: None,
    }
}

/// The bytes behind the header and `struct nfgenmsg`, on a machine of the order that attributes' headers have here.
fn body(write: impl FnOnce(&mut Buffer)) -> Vec<u8> {
    let mut buffer = Buffer::default();
    write(&mut buffer);
    buffer.bytes().to_vec()
}

#[cfg(target_endian = "little")]
#[test]
fn the_filter_names_what_the_kernel_can_compare() {
    // Type 0x8001: CTA_TUPLE_ORIG, nested. In it CTA_TUPLE_IP and CTA_TUPLE_PROTO. Then CTA_FILTER.
    let all = [
        &[16, 0, 1, 0x80, 12, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0][..],
        &[12, 0, 25, 0x80, 8, 0, 1, 0, 0b00_1000, 0, 0, 0],
    ];
    for family in [Family::V4, Family::V6] {
        assert_eq!(body(|b| write_filter(b, family, Destinations::All)), all.concat());
    }
    let proto = [20, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0];
    let port = [&[24, 0, 1, 0x80][..], &proto, &[12, 0, 25, 0x80, 8, 0, 1, 0, 0b10_1000, 0, 0, 0]];
    assert_eq!(body(|b| write_filter(b, Family::V4, Destinations::Port(53))), port.concat());
    let v6 = Destinations::Addr(flow(Family::V6).dest);
    assert_eq!(body(|b| write_filter(b, Family::V6, v6)), port.concat(), "no IPv6 address");

    let addr = [
        &[36, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 2, 0, 10, 96, 0, 10][..],
        &proto,
        &[12, 0, 25, 0x80, 8, 0, 1, 0, 0b10_1010, 0, 0, 0],
    ];
    let v4 = Destinations::Addr(flow(Family::V4).dest);
    assert_eq!(body(|b| write_filter(b, Family::V4, v4)), addr.concat());
}

#[cfg(target_endian = "little")]
#[test]
fn a_deletion_names_the_reply_tuple_the_zone_and_the_entry() {
    let flow = Flow { zone: Some(7), id: Some(0x0102_0304), ..flow(Family::V4) };
    let tuple = [
        &[52, 0, 2, 0x80, 20, 0, 1, 0x80, 8, 0, 1, 0, 10, 1, 9, 9, 8, 0, 2, 0, 10, 1, 2, 3][..],
        &[28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0],
        &[6, 0, 2, 0, 0x14, 0xe9, 0, 0, 6, 0, 3, 0, 0x9c, 0x40, 0, 0],
    ]
    .concat();
    // Length, type (subsystem 1, message 2), flags (request, acknowledge), sequence, port id, family.
    let head = [88, 0, 0, 0, 2, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    let end = [6, 0, 18, 0, 0, 7, 0, 0, 8, 0, 12, 0, 1, 2, 3, 4];
    assert_eq!(deletions(&[flow]).bytes(), [&head[..], &tuple, &end].concat());
}

#[test]
fn only_the_last_of_several_deletions_is_acknowledged() {
    let request = deletions(&[flow(Family::V4), flow(Family::V6), flow(Family::V4)]);
    let told: Vec<(u32, u16, u8)> =
        messages(request.bytes()).map(|(_, m)| (m.seq, m.flags & NLM_F_ACK, m.family())).collect();
    assert_eq!(told, [(1, 0, 2), (2, 0, 10), (3, NLM_F_ACK, 2)]);
}

/// An entry as the kernel tells it.
fn entry(flow: &Flow, proto: u8, one_way_zone: bool) -> Vec<u8> {
    let tuple = |b: &mut Buffer, kind, from: SocketAddr, to: SocketAddr, zone: Option<u16>| {
        b.nest(kind, |b| {
            b.nest(CTA_TUPLE_IP, |b| match (from.ip(), to.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    b.raw(CTA_IP_V4_SRC, &from.octets());
                    b.raw(CTA_IP_V4_DST, &to.octets());
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    b.raw(CTA_IP_V6_SRC, &from.octets());
                    b.raw(CTA_IP_V6_DST, &to.octets());
                }
                _ => unreachable!("one family"),
            });
            b.nest(CTA_TUPLE_PROTO, |b| {
                b.raw(CTA_PROTO_NUM, &[proto]);
                b.raw(CTA_PROTO_SRC_PORT, &from.port().to_be_bytes());
                b.raw(CTA_PROTO_DST_PORT, &to.port().to_be_bytes());
            });
            if let Some(zone) = zone {
                b.raw(CTA_TUPLE_ZONE, &zone.to_be_bytes());
            }
        });
    };
    body(|b| {
        tuple(b, CTA_TUPLE_ORIG, flow.source, flow.dest, Some(6).filter(|_| one_way_zone));
        tuple(b, CTA_TUPLE_REPLY, flow.reply_source, flow.reply_dest, flow.zone.filter(|_| one_way_zone));
        b.number(3, 0x188); // CTA_STATUS
        if let Some(zone) = flow.zone.filter(|_| !one_way_zone) {
            b.raw(CTA_ZONE, &zone.to_be_bytes());
        }
        if let Some(id) = flow.id {
            b.number(CTA_ID, id);
        }
    })
}

#[test]
fn entries_are_read_and_other_protocols_are_not_flows() {
    for family in [Family::V4, Family::V6] {
        for zone in [None, Some(7)] {
            let flow = Flow { zone, id: Some(5), ..flow(family) };
            assert_eq!(Flow::read(Attributes(&entry(&flow, IPPROTO_UDP, false))), Some(flow));
            assert_eq!(Flow::read(Attributes(&entry(&flow, IPPROTO_UDP, true))), Some(flow));
            assert_eq!(Flow::read(Attributes(&entry(&flow, 6, false))), None);
            assert_eq!(flow.family(), family);
        }
    }
}

#[test]
fn damaged_entries_are_read_without_a_panic() {
    for family in [Family::V4, Family::V6] {
        let good = entry(&Flow { zone: Some(7), id: Some(5), ..flow(family) }, IPPROTO_UDP, false);
        for len in 0..good.len() {
            let _ = Flow::read(Attributes(&good[..len]));
            for value in [0, 1, 2, 3, 4, 5, 127, 128, 254, 255] {
                let mut bad = good.clone();
                bad[len] = value;
                let _ = Flow::read(Attributes(&bad));
            }
        }
    }
}

#[test]
fn destinations_are_compared_by_address_and_port() {
    let (v4, v6) = (flow(Family::V4).dest, flow(Family::V6).dest);
    assert!(Destinations::All.contain(v4) && Destinations::Port(53).contain(v6));
    assert!(Destinations::Addr(v4).contain(v4) && Destinations::Addr(v6).contain(v6));
    assert!(!Destinations::Addr(v4).contain(v6) && !Destinations::Port(54).contain(v4));
    let other = SocketAddr::new(v4.ip(), 54);
    assert!(!Destinations::Addr(v4).contain(other));
}

#[test]
fn a_dump_ends_with_an_error_number() {
    let errno = |kind, body: &[u8]| {
        end_of_dump(&Message { kind, flags: 0, seq: 1, port: 0, body }).map(|reply| reply.errno)
    };
    assert_eq!(errno(NLMSG_DONE, &[0; 4]), Some(0));
    assert_eq!(errno(NLMSG_DONE, &[]), Some(0));
    assert_eq!(errno(NLMSG_DONE, &(-4_i32).to_ne_bytes()), Some(4));
    assert_eq!(errno(NLMSG_ERROR, &(-22_i32).to_ne_bytes()), Some(22));
    assert_eq!(errno(IPCTNL_MSG_CT_GET, &[0; 4]), None);
}
