//! The backends against the real kernel, each test in a network namespace of its own. Needs root.

mod affinity;
mod behaviour;
mod iptables;
mod own_node;
mod rig;
mod verify;

use std::net::IpAddr;

use behaviour::{expected_behaviour, kernel_behaviour};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rig::*;
use rulecast_bundle::nft::Family;
use rulecast_bundle::{Change, Delta, Head, Way};
use rulecast_compiler::model::{Endpoint, Service, Slice};
use rulecast_node::store::Store;

#[test]
fn random_histories_leave_the_kernel_as_a_rebuild_would() {
    in_namespace(|| {
        let endpoints = proptest::collection::btree_map(1u8..30, any::<bool>(), 0..20);
        let step =
            (0u8..5, proptest::option::weighted(0.9, 0u8..64), proptest::option::weighted(0.9, endpoints));
        let histories = proptest::collection::vec(step, 1..12);
        let mut runner =
            TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
        let result = runner.run(&histories, |history| {
            let mut controller = Controller::new();
            let mut applier = applier(None);
            for (n, keys, endpoints) in &history {
                let name = format!("ns/s{n}");
                controller
                    .compiler
                    .set_service(&name, keys.map(|keys| service(&format!("172.30.0.{n}"), keys)));
                let list =
                    endpoints.as_ref().map(|e| e.iter().map(|(n, own)| (*n, *own)).collect::<Vec<_>>());
                controller.compiler.set_slice(&name, list.map(|list| slice(&name, &list)));
                deliver(&mut controller, &mut applier);
                prop_assert_eq!(
                    kernel_behaviour(&applier, Family::V4),
                    expected_behaviour(&applier, Family::V4)
                );
            }
            let incremental = SETS.map(keys_of);
            applier.rebuild().unwrap();
            prop_assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
            prop_assert_eq!(incremental, SETS.map(keys_of));
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn one_endpoint_change_costs_the_same_few_messages_whatever_the_size() {
    in_namespace(|| {
        let mut messages = Vec::new();
        for services in [10u16, 1000] {
            let mut controller = Controller::new();
            let mut applier = applier(None);
            for n in 0..services {
                let (name, vip) = (format!("ns/s{n}"), format!("172.30.{}.{}", n / 250, n % 250));
                controller.compiler.set_service(&name, Some(service(&vip, 0)));
                controller
                    .compiler
                    .set_slice(&name, Some(slice(&name, &[(1, false), (2, false), (3, false)])));
            }
            assert!(deliver(&mut controller, &mut applier).rebuilt);
            controller
                .compiler
                .set_slice("ns/s5", Some(slice("ns/s5", &[(1, false), (9, false), (3, false)])));
            let replaced = deliver(&mut controller, &mut applier);
            assert!(!replaced.rebuilt);
            controller.compiler.set_slice("ns/s5", Some(slice("ns/s5", &[(9, false), (3, false)])));
            let removed = deliver(&mut controller, &mut applier);
            messages.push((
                replaced.applied.messages,
                replaced.applied.bytes,
                removed.applied.messages,
                removed.applied.bytes,
            ));
        }
        assert_eq!(messages[0], messages[1]);
        assert!(messages[0].0 <= 2 && messages[0].2 <= 4, "{messages:?}");
    });
}

#[test]
fn foreign_changes_are_noticed_named_and_repaired() {
    in_namespace(|| {
        let mut controller = Controller::new();
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 7)));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true), (2, false)])));
        let mut applier = applier(None);
        deliver(&mut controller, &mut applier);
        assert!(applier.repair().unwrap().is_none(), "our own changes are not foreign");
        let expected = kernel_behaviour(&applier, Family::V4);
        for change in [
            "flush ruleset",
            "delete table ip rulecast",
            "flush chain ip rulecast services",
            "flush map ip rulecast endpoints",
            "delete table ip6 rulecast",
        ] {
            let status = std::process::Command::new("nft").args(change.split(' ')).status();
            assert!(status.expect("these tests need the nft tool").success(), "{change}");
            let (why, _) = applier.repair().unwrap().unwrap_or_else(|| panic!("{change} went unnoticed"));
            assert!(why.contains("rulecast") && why.contains("by nft (pid"), "{why}");
            assert_eq!(kernel_behaviour(&applier, Family::V4), expected, "after {change}");
            assert!(applier.repair().unwrap().is_none());
        }
        let status = std::process::Command::new("nft").args(["add", "table", "ip", "other"]).status();
        assert!(status.unwrap().success());
        assert!(applier.repair().unwrap().is_none(), "other people's tables are not ours");
    });
}

#[test]
fn a_restart_serves_from_disk_and_goes_on_with_deltas() {
    in_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut controller = Controller::new();
        let mut first = applier(Some(Store::open(dir.path(), "default").unwrap()));
        assert!(first.restore().unwrap().is_none());
        for n in 1..20u8 {
            controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 5)));
            controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(n, true), (n + 1, false)])));
            deliver(&mut controller, &mut first);
        }
        let (before, head) = (kernel_behaviour(&first, Family::V4), first.head().cloned());
        drop(first);
        let mut second = applier(Some(Store::open(dir.path(), "default").unwrap()));
        second.restore().unwrap().expect("a bundle on disk");
        assert_eq!(second.head().map(|h| h.sequence), head.map(|h| h.sequence));
        assert_eq!(kernel_behaviour(&second, Family::V4), before);
        controller.compiler.set_slice("ns/s1", None);
        assert!(!deliver(&mut controller, &mut second).rebuilt);
        assert_eq!(kernel_behaviour(&second, Family::V4), expected_behaviour(&second, Family::V4));
    });
}

#[test]
fn a_refused_version_leaves_kernel_and_copy_alone() {
    in_namespace(|| {
        let mut controller = Controller::new();
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 0)));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true)])));
        let mut applier = applier(None);
        deliver(&mut controller, &mut applier);
        let (before, head) = (kernel_behaviour(&applier, Family::V4), applier.head().cloned().unwrap());
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(2, true)])));
        let (good, changes) = controller.publish();
        let delta = |changes: &[Change]| {
            Way::Deltas(vec![Delta {
                from: good.sequence - 1,
                to: good.sequence,
                previous: None,
                changes: changes.to_vec(),
            }])
        };
        for (what, bad, changes) in [
            ("another digest", Head { digest: head.digest.clone(), ..good.clone() }, changes.as_slice()),
            ("an older sequence", Head { sequence: 0, ..good.clone() }, &changes),
            ("another epoch without digest", Head { epoch: 3, ..good.clone() }, &changes),
            ("an unknown format", Head { format: 9, ..good.clone() }, &changes),
            ("a missing change", good.clone(), &changes[1..]),
            ("a change that does not fit", good.clone(), &[changes[0].clone(), changes[0].clone()]),
        ] {
            applier.offer(bad, delta(changes)).expect_err(what);
            assert_eq!(applier.head(), Some(&head), "{what}");
            assert_eq!(kernel_behaviour(&applier, Family::V4), before, "{what}");
        }
        applier.offer(good.clone(), delta(&changes)).unwrap();
        assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
    });
}

#[test]
fn sets_that_are_full_are_made_larger() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        controller.compiler.set_service("ns/s1", Some(service("172.30.0.1", 1)));
        deliver(&mut controller, &mut applier);
        let mut rebuilt = 0;
        for count in [100u16, 700, 1500, 1400, 1600] {
            let endpoints = (0..count).map(|n| {
                let [high, low] = n.to_be_bytes();
                Endpoint::ready(IpAddr::from([10, 1, high, low]))
            });
            controller
                .compiler
                .set_slice("ns/s1", Some(Slice { endpoints: endpoints.collect(), ..slice("ns/s1", &[]) }));
            rebuilt += u32::from(deliver(&mut controller, &mut applier).rebuilt);
            assert_eq!(kernel_behaviour(&applier, Family::V4), expected_behaviour(&applier, Family::V4));
        }
        assert_eq!(rebuilt, 1, "once for 1,024 elements and more");
    });
}

#[test]
fn so_do_sets_that_are_the_same_for_every_node() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let vips = |count: u16| {
            let vip = |n: u16| IpAddr::from([5, 5, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
            let load_balancer_ips = (0..count).map(vip).collect();
            Some(Service { load_balancer_ips, ..service("172.30.0.1", 32) })
        };
        controller.compiler.set_service("ns/s1", vips(10));
        deliver(&mut controller, &mut applier);
        for (count, rebuilt) in [(1010, false), (1100, true), (1500, false)] {
            controller.compiler.set_service("ns/s1", vips(count));
            assert_eq!(deliver(&mut controller, &mut applier).rebuilt, rebuilt, "{count}");
            assert_eq!(keys_of("firewall-ips").len(), usize::from(count));
        }
    });
}
