//! What the compiler makes of a Service is described in the Service's own words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use rulecast_bundle::{Mode, Proto, Shape};
use rulecast_compiler::model::{Options, Service, ServicePort};
use rulecast_review::{ChangeKind, Policy, SessionAffinity, describe, diff};

use crate::world::{compile, ip, port, service, shape};

/// Services as an API server would have them, dual-stack or not, of any kind.
fn any_service() -> impl Strategy<Value = Service> {
    let addresses = (1usize..4, proptest::sample::subsequence(vec![1u8, 2, 3], 0..4), any::<bool>());
    let ports = proptest::sample::subsequence(vec![80u16, 443, 8080], 1..4);
    let policies = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let ranges = proptest::sample::subsequence(vec!["10.0.0.0/8", "192.0.2.0/24", "fd00::/16"], 0..4);
    let affinity = proptest::option::of(1u32..86_400);
    (addresses, ports, policies, ranges, affinity).prop_map(
        |(
            (families, external, both),
            ports,
            (internal_local, external_local, node_ports, check),
            ranges,
            affinity,
        )| {
            let cluster_ips: Vec<IpAddr> = [ip("10.96.0.1"), ip("fd00::1")]
                .into_iter()
                .enumerate()
                .filter(|(at, _)| families & (1 << at) != 0)
                .map(|(_, a)| a)
                .collect();
            let external =
                external.iter().flat_map(|n| {
                    [ip(&format!("198.51.100.{n}")), ip(&format!("2001:db8::{n}"))]
                        .into_iter()
                        .take(if both { 2 } else { 1 })
                });
            let (external_ips, load_balancer_ips) =
                external.partition::<Vec<_>, _>(|a| a.to_string().ends_with('1'));
            let prefix = |text: &&str| {
                let (a, l) = text.split_once('/').unwrap();
                (ip(a), l.parse().unwrap())
            };
            let ports = ports.iter().map(|number| ServicePort {
                name: format!("p{number}"),
                proto: if *number == 8080 { Proto::Udp } else { Proto::Tcp },
                port: *number,
                node_port: node_ports.then_some(30_000 + number % 1000),
            });
            Service {
                cluster_ips,
                external_ips,
                load_balancer_ips,
                ports: ports.collect(),
                internal_local,
                external_local,
                affinity,
                source_ranges: ranges.iter().map(prefix).collect(),
                health_check_node_port: (check && external_local).then_some(32_000),
            }
        },
    )
}

proptest! {
    /// No exceptions: the description knows what each field compiles to.
    #[test]
    fn every_service_is_described_by_its_own_fields(service in any_service()) {
        let description = describe(&shape(&[("a/b", service.clone())]));
        let found = &description.services["a/b"];
        prop_assert_eq!(&found.exceptions, &Vec::<String>::new());
        let families: BTreeSet<bool> = service.cluster_ips.iter().map(IpAddr::is_ipv4).collect();
        let of_families = |addrs: &[IpAddr]| -> BTreeSet<IpAddr> {
            addrs.iter().copied().filter(|a| families.contains(&a.is_ipv4())).collect()
        };
        prop_assert_eq!(&found.cluster_ips, &service.cluster_ips.iter().copied().collect::<BTreeSet<_>>());
        let external = of_families(&[&service.external_ips[..], &service.load_balancer_ips].concat());
        prop_assert_eq!(&found.external_addresses, &external);
        let policy = |local| if local { Policy::Local } else { Policy::Cluster };
        prop_assert_eq!(found.internal_traffic_policy, policy(service.internal_local));
        let served = !external.is_empty() || service.ports[0].node_port.is_some();
        prop_assert_eq!(found.external_traffic_policy, served.then_some(policy(service.external_local)));
        prop_assert_eq!(found.timeout_seconds, service.affinity);
        prop_assert_eq!(found.session_affinity == SessionAffinity::ClientIp, service.affinity.is_some());
        prop_assert_eq!(found.health_check_node_port, service.health_check_node_port);
        let ports: Vec<_> = found.ports.iter()
            .map(|p| ServicePort { name: p.name.clone(), proto: p.protocol, port: p.port, node_port: p.node_port }).collect();
        prop_assert_eq!(ports, service.ports);
    }

    /// A Service is different if and only if its fields are, as far as they are served.
    #[test]
    fn one_service_s_change_is_one_change(before in any_service(), after in any_service()) {
        let others = [("a/one", service(100)), ("a/two", service(200))];
        let all = |s: &Service| shape(&[others[0].clone(), others[1].clone(), ("b/web", s.clone())]);
        let (from, to) = (all(&before), all(&after));
        let difference = diff(&from, &to);
        let same = describe(&from).services == describe(&to).services;
        prop_assert_eq!(difference.is_empty(), same);
        prop_assert_eq!(from.digest() == to.digest(), same);
        for change in &difference.services {
            prop_assert_eq!((change.service.as_str(), change.kind), ("b/web", ChangeKind::Changed));
            prop_assert!(!change.fields.is_empty());
        }
    }
}

#[test]
fn fields_are_told_by_their_names() {
    let before = Service { ports: vec![port("http", 80, None), port("old", 81, None)], ..service(1) };
    let after = Service {
        ports: vec![port("http", 8080, Some(30_080)), port("new", 81, None)],
        affinity: Some(10_800),
        external_ips: vec![ip("198.51.100.7")],
        ..service(1)
    };
    let services = |web| [("prod/old", service(2)), ("prod/web", web)];
    let from = shape(&services(before));
    let to = shape(&[("prod/api", service(3)), ("prod/web", after)]);
    let difference = diff(&from, &to);
    assert_eq!(
        difference.summary(),
        [
            "prod/api: added (1 port)",
            "prod/old: removed",
            "prod/web: port http 80/TCP -> 8080/TCP; port http nodePort +30080; externalAddresses +198.51.100.7; \
             externalTrafficPolicy +Cluster; sessionAffinity None -> ClientIP (10800 s); port old name old -> new",
        ]
    );
    assert_eq!(difference.causes(), ["Service prod/api", "Service prod/old", "Service prod/web"]);
    let back = diff(&to, &from);
    assert_eq!(back.services.len(), 3);
    assert!(diff(&to, &to).is_empty());
    assert_eq!(diff(&to, &to).summary(), Vec::<String>::new());
}

#[test]
fn an_unnamed_port_that_moves_is_one_change() {
    let with = |number| shape(&[("a/b", Service { ports: vec![port("", number, None)], ..service(1) })]);
    assert_eq!(diff(&with(80), &with(8080)).summary(), ["a/b: port 0 80/TCP -> 8080/TCP"]);
}

#[test]
fn an_address_that_another_has_is_an_exception() {
    let vip = Service { external_ips: vec![ip("198.51.100.7")], ..service(1) };
    let late = Service {
        external_ips: vec![ip("198.51.100.7"), ip("198.51.100.8")],
        ports: vec![port("http", 80, None), port("tls", 443, None)],
        ..service(2)
    };
    let description = describe(&shape(&[("a/first", vip), ("a/late", late)]));
    assert_eq!(
        description.services["a/late"].exceptions,
        ["without target 10.96.0.2:80/TCP: External 198.51.100.7:80"]
    );
}

#[test]
fn options_of_the_pool_are_told_apart_from_services() {
    let of = |options: &Options| Shape::of(Mode::Nftables, &compile(options, &[("a/b", service(1))], &[]));
    let plain = Options::default();
    let mut other = Options { masquerade_bit: 15, ..plain.clone() };
    other.settings.udp_timeout = Some(30);
    let difference = diff(&of(&plain), &of(&other));
    assert!(difference.services.is_empty());
    assert_eq!(difference.causes(), ["RulePool options"]);
    let [line] = difference.summary().try_into().unwrap();
    assert!(line.starts_with("RulePool options: conntrack.udpTimeout +30; rules.ip.chain "), "{line}");
    let mark = difference.pool.iter().find(|c| c.path == "rules.ip.chain nat-postrouting").unwrap();
    assert!(mark.before.as_ref().unwrap().contains("0x00004000"), "{mark:?}");
    assert!(mark.after.as_ref().unwrap().contains("0x00008000"), "{mark:?}");
    let mut ipvs = of(&plain);
    ipvs.set_mode(Mode::Ipvs);
    assert_eq!(diff(&of(&plain), &ipvs).summary(), ["RulePool options: mode nftables -> ipvs"]);
}
