//! What is compared with the kernel, and that every kind of change shows.

use std::process::Command;

use rulecast_netlink::{Batch, Connection, Key, Value};
use rulecast_node::applier::Applier;
use rulecast_node::nftables::Nftables;

use crate::rig::*;

fn nft(text: &str) {
    let output = Command::new("nft").arg(text).output().expect("these tests need the nft tool");
    assert!(output.status.success(), "nft {text}: {}", String::from_utf8_lossy(&output.stderr));
}

fn differences(applier: &mut Applier<Nftables>) -> Vec<String> {
    applier.verify().unwrap().differences
}

/// Services of every kind, with endpoints.
fn populate(controller: &mut Controller, applier: &mut Applier<Nftables>) {
    for n in 1..=5u8 {
        let name = format!("ns/s{n}");
        controller.compiler.set_service(&name, Some(service(&format!("172.30.0.{n}"), 9 + n * 11)));
        let endpoints: Vec<(u8, bool)> = (0..n).map(|e| (n * 10 + e, e % 2 == 0)).collect();
        controller.compiler.set_slice(&name, Some(slice(&name, &endpoints)));
    }
    controller.compiler.set_service("ns/v6", Some(service("fd00:30::1", 0)));
    deliver(controller, applier);
}

#[test]
fn what_was_written_is_what_is_found_by_whatever_way() {
    in_namespace(|| {
        let (mut controller, mut applier) = (Controller::new(), applier(None));
        applier.set_node_addrs(vec![ip("192.168.0.1"), ip("fd00:1::1")]).unwrap();
        populate(&mut controller, &mut applier);
        let verified = applier.verify().unwrap();
        assert_eq!(verified.differences, Vec::<String>::new());
        assert!(verified.chains > 20 && verified.rules > 40 && verified.sets > 20, "{verified:?}");
        assert!(verified.elements > 50, "{verified:?}");
        // By updates, with members that leave, and affinity that comes and goes.
        for round in 0..12u8 {
            let (n, keys) = (round % 5 + 1, round.wrapping_mul(37));
            let name = format!("ns/s{n}");
            controller.compiler.set_service(&name, Some(service(&format!("172.30.0.{n}"), keys & 63)));
            let endpoints: Vec<(u8, bool)> =
                (0..round * 3).filter(|e| (e + round) % 3 > 0).map(|e| (e, e % 2 == 0)).collect();
            controller.compiler.set_slice(&name, Some(slice(&name, &endpoints)));
            deliver(&mut controller, &mut applier);
            assert_eq!(differences(&mut applier), Vec::<String>::new(), "round {round}");
        }
        applier.rebuild().unwrap();
        assert_eq!(differences(&mut applier), Vec::<String>::new(), "rebuilt");
    });
}

#[test]
fn every_kind_of_change_shows() {
    in_namespace(|| {
        let (mut controller, mut applier) = (Controller::new(), applier(None));
        populate(&mut controller, &mut applier);
        let mut shows = |change: &dyn Fn(), expected: &[&str]| {
            assert_eq!(differences(&mut applier), Vec::<String>::new(), "before {expected:?}");
            change();
            let found = differences(&mut applier);
            for part in expected {
                assert!(found.iter().any(|f| f.contains(part)), "{part} is not in {found:#?}");
            }
            assert_eq!(found.len(), expected.len(), "{found:#?}");
            applier.rebuild().unwrap();
        };
        let key = Key::new().addr(ip("172.30.0.1"));
        let delete = || {
            let mut batch = Batch::new();
            batch.delete_element(rulecast_bundle::nft::Family::V4, "cluster-ips", &key);
            Connection::open().unwrap().commit(batch).unwrap();
        };
        shows(&delete, &["set cluster-ips, element 172.30.0.1: missing"]);
        let add = || {
            let mut batch = Batch::new();
            let foreign = Key::new().addr(ip("10.9.9.9"));
            batch.add_element(rulecast_bundle::nft::Family::V4, "cluster-ips", &foreign, Value::None);
            Connection::open().unwrap().commit(batch).unwrap();
        };
        shows(&add, &["element 10.9.9.9: not ours"]);
        shows(&|| nft("add chain ip rulecast mine"), &["chain mine: not ours"]);
        shows(
            &|| nft("add set ip6 rulecast mine { type ipv6_addr; }"),
            &["ip6 rulecast, set mine: not ours"],
        );
        shows(
            &|| nft("insert rule ip rulecast lb-3 counter drop"),
            &["chain lb-3: 2 rules instead of 1", "rule 1 is another"],
        );
        shows(
            &|| nft("flush chain ip rulecast lb-2; add rule ip rulecast lb-2 accept"),
            &["chain lb-2: rule 1 is another one"],
        );
        shows(&|| nft("delete table ip6 rulecast"), &["table ip6 rulecast is missing"]);
        let hook = "add chain ip rulecast mine { type filter hook input priority 5; policy drop; }";
        shows(&|| nft(hook), &["chain mine: not ours"]);
    });
}
