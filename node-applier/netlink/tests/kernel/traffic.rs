//! Packets do what the rules say: the registers hold what they should.

use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rulecast_bundle::name;
use rulecast_bundle::nft::{ChainKind, Family, Field, Hook, HookPoint, Statement};
use rulecast_netlink::{Batch, Connection, Params, Value, Verdict};

use crate::layout::{FAMILIES, add_layout, addr, endpoint, flow};
use crate::namespace::{in_namespace, ip};

const ENDPOINTS: [u32; 3] = [100, 101, 102];
/// Addresses of Services: random, and with affinity.
const RANDOM: u32 = 1;
const STICKY: u32 = 2;

/// An endpoint that tells its own address to whoever connects.
fn serve(at: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(at.ip().to_string().as_bytes());
        }
    });
}

fn ask(family: Family, service: u32) -> String {
    let to = SocketAddr::new(addr(family, service), 80);
    let mut answer = String::new();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn connections_reach_endpoints_and_stay_with_them() {
    in_namespace(|| {
        ip("link set lo up");
        ip("route add 10.96.0.0/24 dev lo");
        ip("-6 route add fd00:96::/64 dev lo");
        let mut batch = Batch::new();
        for family in FAMILIES {
            for last in ENDPOINTS {
                let at = addr(family, last);
                let (option, len) = if family == Family::V4 { ("-4", 32) } else { ("-6", 128) };
                ip(&format!("{option} addr add {at}/{len} dev lo{}", if len == 128 { " nodad" } else { "" }));
                serve(SocketAddr::new(at, 8080));
            }
            add_layout(&mut batch, family);
            // The layout's filter chains are for the encoder's sake; here, only what follows DNAT matters.
            let hook = Hook { kind: ChainKind::Filter, point: HookPoint::Output, priority: -99 };
            let original = vec![Field::OriginalDestAddr, Field::Proto, Field::OriginalDestPort];
            let remember = Statement::VerdictMap { key: original, map: name("remember") };
            batch.add_chain(family, "output-after", Some(hook));
            let rule = [Statement::StateNew, Statement::StatusDnat, remember];
            batch.add_rule(family, "output-after", &rule, Params::default());
            for (service, chain) in [(RANDOM, "lb-3"), (STICKY, "sticky-3")] {
                let key = flow(family, service);
                batch.add_element(family, "service-ips", &key, Value::Verdict(Verdict::Goto(chain)));
                for (index, last) in (0..).zip(ENDPOINTS) {
                    let data = endpoint(family, last);
                    batch.add_element(family, "endpoints", &key.index(index), Value::Bytes(&data));
                    batch.add_element(
                        family,
                        "members",
                        &key.addr(addr(family, last)).port(8080),
                        Value::None,
                    );
                }
            }
            let to = Value::Verdict(Verdict::Goto("remember-10800"));
            batch.add_element(family, "remember", &flow(family, STICKY), to);
        }
        let mut connection = Connection::open().unwrap();
        connection.commit(batch).unwrap();

        for family in FAMILIES {
            let answers: BTreeSet<String> = (0..60).map(|_| ask(family, RANDOM)).collect();
            assert_eq!(answers, ENDPOINTS.map(|last| addr(family, last).to_string()).into());

            let first = ask(family, STICKY);
            for _ in 0..20 {
                assert_eq!(ask(family, STICKY), first);
            }
            let remembered = connection
                .elements(family, "affinity", Vec::new, |all, e| all.push((e.key.to_vec(), e.data.to_vec())))
                .unwrap();
            let [(key, data)] = &remembered[..] else { panic!("{remembered:?}") };
            let last = ENDPOINTS.into_iter().find(|last| addr(family, *last).to_string() == first).unwrap();
            assert_eq!(data, endpoint(family, last).as_bytes());
            assert_eq!(
                &key[key.len() - flow(family, STICKY).as_bytes().len()..],
                flow(family, STICKY).as_bytes()
            );
        }
    });
}
