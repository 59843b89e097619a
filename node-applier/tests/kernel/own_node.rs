//! What a node puts into the rules itself: its addresses and its pod CIDRs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_compiler::model::{DetectLocal, Node, Options, Pool, Service};
use rulecast_netlink::Key;

use crate::rig::*;

#[test]
fn a_vip_may_be_the_source_where_a_range_holds_the_nodes_address() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let vip = "5.5.0.1";
        let ranges = |texts: &[(&str, u8)]| {
            let source_ranges = texts.iter().map(|(addr, len)| (ip(addr), *len)).collect();
            Some(Service { source_ranges, ..service("172.30.0.1", 2) })
        };
        let key = |first: &str, last: &str| {
            let vip = Key::new().addr(ip(vip)).proto(6).port(80);
            [vip.addr(ip(first)).as_bytes(), vip.addr(ip(last)).as_bytes()].concat()
        };
        let (own, node) = (key(vip, vip), key("192.168.0.0", "192.168.255.255"));
        let blocked = key("203.0.113.0", "203.0.113.255");
        let mut expect = |controller: &mut Controller, expected: &[&Vec<u8>], what: &str| {
            deliver(controller, &mut applier);
            let expected: BTreeSet<Vec<u8>> = expected.iter().map(|key| (*key).clone()).collect();
            assert_eq!(keys_of("firewall-ranges"), expected, "{what}");
            let before = keys_of("firewall-ranges");
            applier.rebuild().unwrap();
            assert_eq!(keys_of("firewall-ranges"), before, "{what}: rebuilt");
        };
        controller.compiler.set_service("ns/s1", ranges(&[("203.0.113.0", 24)]));
        expect(&mut controller, &[&blocked], "not the node's");
        controller.compiler.set_service("ns/s1", ranges(&[("203.0.113.0", 24), ("192.168.0.0", 16)]));
        expect(&mut controller, &[&blocked, &node, &own], "the node's address");
        let five = key("5.5.0.0", "5.5.255.255");
        controller.compiler.set_service("ns/s1", ranges(&[("192.168.0.0", 16), ("5.5.0.0", 16)]));
        expect(&mut controller, &[&node, &five], "the VIP is in a range already");
        controller.compiler.set_service("ns/s1", ranges(&[("192.168.0.0", 16)]));
        expect(&mut controller, &[&node, &own], "it is not any more");
        controller.compiler.set_node("n1", Some(Node { addrs: vec![ip("10.9.9.9")], ..Node::default() }));
        expect(&mut controller, &[&node], "the node has another address");
    });
}

#[test]
fn a_pool_by_node_cidr_has_the_nodes_own_prefixes_in_its_rules() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let options = Options { detect_local: DetectLocal::NodeCidr, ..Options::default() };
        controller.compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        let mut applier = applier(None);
        let mut rules = |controller: &mut Controller, pod_cidrs: Vec<(IpAddr, u8)>| {
            let node = Node { addrs: vec![ip("192.168.0.1")], pod_cidrs, ..Node::default() };
            controller.compiler.set_node("n1", Some(node));
            deliver(controller, &mut applier);
            let list = std::process::Command::new("nft").args(["list", "ruleset"]).output();
            let text = String::from_utf8(list.expect("these tests need the nft tool").stdout).unwrap();
            text.lines()
                .filter(|l| l.contains("saddr") && l.contains('/'))
                .map(|l| l.trim().to_owned())
                .collect()
        };
        let none: Vec<String> = rules(&mut controller, vec![]);
        assert!(none.is_empty(), "nothing is known: no rule takes anything for a pod: {none:?}");
        let two =
            rules(&mut controller, vec![(ip("10.1.0.0"), 24), (ip("10.2.0.0"), 24), (ip("fd01::"), 64)]);
        let with = |text: &str| two.iter().filter(|rule| rule.contains(text)).count();
        assert_eq!(with("saddr != 10.1.0.0/24 ip saddr != 10.2.0.0/24"), 1, "{two:?}");
        assert_eq!(with("ip saddr 10.1.0.0/24 ip daddr"), 1, "{two:?}");
        assert_eq!((with("fd01::/64"), with("10.2.0.0/24")), (3, 3), "{two:?}");
    });
}
