//! Real UDP flows through a real conntrack table.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rulecast_bundle::nft::Family;
use rulecast_netlink::{Conntrack, Destinations, Flow, Read};

use crate::namespace::{in_namespace, ip, nft};

const ALL: Destinations = Destinations::All;

/// Two clusterIPs of each family, translated to an endpoint on the loopback interface; and zones for three ports.
const RULES: &str = "
    table ip t {
        chain zones {
            type filter hook output priority -300;
            udp dport 77 ct zone set 7; udp dport 78 ct original zone set 8; udp dport 79 ct reply zone set 9;
        }
        chain nat { type nat hook output priority -100; ip daddr 10.96.0.10 udp dport 53 dnat to 127.0.0.2:5353; }
    }
    table ip6 t {
        chain nat { type nat hook output priority -100; ip6 daddr fd00:96::10 udp dport 53 dnat to [::1]:5353; }
    }";

fn set_up() -> Conntrack {
    ip("link set lo up");
    ip("route add 10.96.0.0/24 dev lo");
    for last in ["10", "11"] {
        ip(&format!("-6 addr add fd00:96::{last}/128 dev lo nodad"));
    }
    nft(&["-f", "-"], RULES);
    Conntrack::open().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Sends one datagram from a port of its own; returns the socket, whose port nobody else takes meanwhile.
fn talk(to: SocketAddr) -> (UdpSocket, SocketAddr) {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.send_to(b"hello", to).unwrap();
    let from = socket.local_addr().unwrap();
    (socket, from)
}

fn flows(conntrack: &mut Conntrack, family: Family, to: Destinations) -> (Vec<Flow>, Read) {
    let mut flows = Vec::new();
    let read = conntrack.udp_flows(family, to, |flow| flows.push(*flow)).unwrap();
    assert_eq!(read.flows, flows.len());
    assert!(read.complete);
    flows.sort_by_key(|flow| (flow.dest, flow.source));
    (flows, read)
}

fn one(conntrack: &mut Conntrack, to: SocketAddr) -> Flow {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let (flows, _) = flows(conntrack, family, Destinations::Addr(to));
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows[0]
}

/// A TCP connection that conntrack knows; both ends and the listener live until it is dropped.
fn tcp() -> impl Drop {
    struct Tcp(TcpListener, TcpStream, TcpStream);
    impl Drop for Tcp {
        fn drop(&mut self) {
            let _ = (&self.0, &self.1, &self.2);
        }
    }
    let listener = TcpListener::bind("127.0.0.1:53").unwrap();
    let client = TcpStream::connect("127.0.0.1:53").unwrap();
    let (server, _) = listener.accept().unwrap();
    Tcp(listener, client, server)
}

#[test]
fn a_dump_shows_what_nat_did_to_udp_flows_of_its_family() {
    in_namespace(|| {
        let mut conntrack = set_up();
        let _tcp = tcp();
        let service = addr("10.96.0.10:53");
        let (_socket, client) = talk(service);
        let (_plain, other) = talk(addr("127.0.0.1:9"));
        let (_v6, client6) = talk(addr("[fd00:96::10]:53"));

        let (v4, read) = flows(&mut conntrack, Family::V4, ALL);
        assert_eq!(read.entries, 2, "the kernel leaves TCP out: {v4:?}");
        let dests: Vec<_> = v4.iter().map(|f| (f.source, f.dest, f.reply_source, f.reply_dest)).collect();
        let plain = addr("127.0.0.1:9");
        let expected = [(client, service, addr("127.0.0.2:5353"), client), (other, plain, plain, other)];
        assert_eq!(dests, expected);

        let (v6, read) = flows(&mut conntrack, Family::V6, ALL);
        assert_eq!((v6.len(), read.entries), (1, 1));
        assert_eq!((v6[0].source, v6[0].reply_source), (client6, addr("[::1]:5353")));
        assert_eq!(conntrack.entries().unwrap(), 4);
    });
}

#[test]
fn a_narrow_dump_reads_only_what_it_is_about() {
    in_namespace(|| {
        let mut conntrack = set_up();
        let _tcp = tcp();
        let wanted = ["10.96.0.10:53", "[fd00:96::10]:53"].map(addr);
        let others =
            ["10.96.0.11:53", "10.96.0.10:54", "127.0.0.1:53", "[fd00:96::11]:53", "[fd00:96::10]:54"];
        let _sockets: Vec<_> =
            wanted.into_iter().chain(others.map(addr)).map(|to| (talk(to), talk(to))).collect();

        for to in wanted {
            let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
            let (found, read) = flows(&mut conntrack, family, Destinations::Addr(to));
            assert_eq!(found.iter().map(|f| f.dest).collect::<Vec<_>>(), [to, to]);
            // The kernel cannot compare IPv6 addresses: it sends the port's other flows too.
            assert_eq!(read.entries, if to.is_ipv4() { 2 } else { 4 });
        }
        let (port, read) = flows(&mut conntrack, Family::V4, Destinations::Port(53));
        assert_eq!((port.len(), read.entries), (6, 6));
        let (none, read) = flows(&mut conntrack, Family::V6, Destinations::Addr(wanted[0]));
        assert_eq!((none.len(), read.flows), (0, 0), "an address of the other family is nobody's");
    });
}

#[test]
fn deleting_takes_one_flow_and_leaves_all_others() {
    in_namespace(|| {
        let mut conntrack = set_up();
        let _tcp = tcp();
        let service = addr("10.96.0.10:53");
        let _sockets = [talk(service), talk(addr("10.96.0.11:53")), talk(addr("[fd00:96::10]:53"))];
        let flow = one(&mut conntrack, service);
        assert!(conntrack.delete(&flow).unwrap());
        assert!(!conntrack.delete(&flow).unwrap(), "already gone");
        assert_eq!(conntrack.entries().unwrap(), 3);
        let (left, _) = flows(&mut conntrack, Family::V4, ALL);
        assert_eq!(left.iter().map(|f| f.dest).collect::<Vec<_>>(), [addr("10.96.0.11:53")]);

        let both = [one(&mut conntrack, addr("[fd00:96::10]:53")), flow, left[0]];
        assert_eq!(conntrack.delete_all(&both).unwrap(), 2);
        assert_eq!(conntrack.entries().unwrap(), 1, "TCP stays");
        assert_eq!(conntrack.delete_all(&[]).unwrap(), 0);
    });
}

#[test]
fn a_later_flow_between_the_same_addresses_is_not_deleted() {
    in_namespace(|| {
        let mut conntrack = set_up();
        let service = addr("10.96.0.10:53");
        let (socket, _) = talk(service);
        let old = one(&mut conntrack, service);
        assert!(conntrack.delete(&old).unwrap());
        nft(&["-f", "-"], "flush chain ip t nat; add rule ip t nat udp dport 53 dnat to 127.0.0.3:5353");
        // The error for the first datagram, which nobody took, may wait in the socket.
        if let Err(error) = socket.send_to(b"again", service) {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            socket.send_to(b"again", service).unwrap();
        }
        let new = one(&mut conntrack, service);
        assert_eq!((old.source, old.dest), (new.source, new.dest));
        assert_eq!(new.reply_source, addr("127.0.0.3:5353"));
        assert!(!conntrack.delete(&old).unwrap());
        assert_eq!(one(&mut conntrack, service), new);
        assert!(conntrack.delete(&new).unwrap());
    });
}

#[test]
fn flows_of_zones_are_found_and_deleted() {
    in_namespace(|| {
        let mut conntrack = set_up();
        for (port, zone) in [(77, Some(7)), (78, None), (79, Some(9))] {
            let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            let _socket = talk(to);
            let flow = one(&mut conntrack, to);
            assert_eq!(flow.zone, zone);
            let elsewhere = if zone.is_some() { None } else { Some(7) };
            assert!(!conntrack.delete(&Flow { zone: elsewhere, ..flow }).unwrap());
            assert!(conntrack.delete(&flow).unwrap(), "{flow:?}");
        }
    });
}

/// As many flows as a busy node has, in pieces: of the dump and of the deletions.
#[test]
fn ten_thousand_flows_are_read_and_deleted() {
    const FLOWS: usize = 10_000;
    in_namespace(|| {
        let mut conntrack = set_up();
        let _tcp = tcp();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for i in 0..u16::try_from(FLOWS).unwrap() {
            let [high, low] = i.to_be_bytes();
            let to = IpAddr::V4(Ipv4Addr::new(127, 1, high, low));
            socket.send_to(b"x", (to, 53)).unwrap();
        }
        let _service = talk(addr("10.96.0.10:53"));
        let start = Instant::now();
        let (mut all, read) = flows(&mut conntrack, Family::V4, ALL);
        let took = start.elapsed();
        assert_eq!((all.len(), read.entries), (FLOWS + 1, FLOWS + 1));
        assert!(took < Duration::from_secs(5), "{took:?}");

        let (_, narrow) = flows(&mut conntrack, Family::V4, Destinations::Addr(addr("10.96.0.10:53")));
        assert_eq!((narrow.flows, narrow.entries), (1, 1));
        assert!(narrow.bytes * 1000 < read.bytes, "{narrow:?} {read:?}");

        let kept = all.swap_remove(0);
        assert_eq!(conntrack.delete_all(&all).unwrap(), FLOWS);
        let (left, _) = flows(&mut conntrack, Family::V4, ALL);
        assert_eq!(left, [kept]);
        assert_eq!(conntrack.delete_all(&all).unwrap(), 0);
        assert_eq!(conntrack.entries().unwrap(), 2, "TCP stays");
    });
}
