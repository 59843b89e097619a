//! The iptables backend, through both variants of the tools.

use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rulecast_bundle::Mode;
use rulecast_node::applier::Applier;
use rulecast_node::backend::Backend as _;
use rulecast_node::iptables::{Iptables, Tool, Variant};
use rulecast_node::modes::{self, Modes};
use rulecast_node::render::render;

use crate::rig::*;

const VARIANTS: [(Variant, &str); 2] = [(Variant::Legacy, "legacy"), (Variant::Nft, "nft")];

fn applier(variant: Variant) -> Applier<Iptables> {
    Applier::new("n1", "default", Iptables::with(Tool::of(variant)), None)
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Chains and rules, without counters and comments, in no order of chains.
fn save(variant: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        run("ipset", &["list", "-n"]).lines().map(|set| format!("set {set}")).collect();
    lines.sort();
    for family in ["iptables", "ip6tables"] {
        for table in ["nat", "filter"] {
            let text = run(&format!("{family}-{variant}-save"), &["-t", table]);
            let rules = text.lines().filter(|l| l.starts_with("-A"));
            let chains =
                text.lines().filter(|l| l.starts_with(':')).map(|l| l.split(' ').next().unwrap_or_default());
            let mut chains: Vec<String> = chains.map(|l| format!("{family} {table} {l}")).collect();
            chains.sort();
            lines.extend(chains);
            let mut rules: Vec<String> = rules.map(|l| format!("{family} {table} {l}")).collect();
            // By chain; within a chain the order counts.
            rules.sort_by_key(|l| l.split(' ').nth(3).map(ToOwned::to_owned));
            lines.extend(rules);
        }
    }
    lines
}

fn assert_same(applier: &mut Applier<Iptables>) {
    let verified = applier.verify().unwrap();
    assert!(verified.is_same() && verified.chains > 0, "{verified:#?}");
}

#[test]
fn random_histories_leave_the_chains_as_a_rebuild_would() {
    for (variant, word) in VARIANTS {
        in_namespace(move || {
            let endpoints = proptest::collection::btree_map(1u8..30, any::<bool>(), 0..5);
            let step = (
                0u8..4,
                proptest::option::weighted(0.9, 0u8..64),
                proptest::option::weighted(0.9, endpoints),
            );
            let histories = proptest::collection::vec(step, 1..7);
            let mut runner =
                TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
            let result = runner.run(&histories, |history| {
                let mut controller = Controller::of(Mode::Iptables);
                let mut applier = applier(variant);
                for (n, keys, endpoints) in &history {
                    let name = format!("ns/s{n}");
                    let service = keys.map(|keys| service(&format!("172.30.0.{n}"), keys));
                    controller.compiler.set_service(&name, service);
                    let list =
                        endpoints.as_ref().map(|e| e.iter().map(|(n, own)| (*n, *own)).collect::<Vec<_>>());
                    controller.compiler.set_slice(&name, list.map(|list| slice(&name, &list)));
                    deliver(&mut controller, &mut applier);
                    assert_same(&mut applier);
                }
                let incremental = save(word);
                applier.rebuild().unwrap();
                assert_same(&mut applier);
                prop_assert_eq!(incremental, save(word));
                Ok(())
            });
            result.unwrap();
        });
    }
}

#[test]
fn one_endpoint_change_writes_one_chain_whatever_the_size() {
    in_namespace(|| {
        let mut lines = Vec::new();
        for services in [10u16, 1000] {
            let mut controller = Controller::of(Mode::Iptables);
            let mut applier = applier(Variant::Legacy);
            for n in 0..services {
                let (name, vip) = (format!("ns/s{n}"), format!("172.30.{}.{}", n / 250, n % 250));
                controller.compiler.set_service(&name, Some(service(&vip, 0)));
                controller
                    .compiler
                    .set_slice(&name, Some(slice(&name, &[(1, false), (2, false), (3, false)])));
            }
            assert!(deliver(&mut controller, &mut applier).rebuilt);
            let changed = slice("ns/s5", &[(1, false), (9, false), (3, false)]);
            controller.compiler.set_slice("ns/s5", Some(changed));
            let report = deliver(&mut controller, &mut applier);
            assert!(!report.rebuilt);
            lines.push((report.applied.messages, report.applied.bytes));
        }
        assert_eq!(lines[0], lines[1]);
        // Table, chain, three rules, commit.
        assert_eq!(lines[0].0, 6, "{lines:?}");
    });
}

#[test]
fn what_others_flush_is_noticed_and_what_they_add_is_not_minded() {
    for (variant, word) in VARIANTS {
        in_namespace(move || {
            let mut controller = Controller::of(Mode::Iptables);
            let mut applier = applier(variant);
            controller.compiler.set_service("ns/a", Some(service("172.30.0.1", 1)));
            controller.compiler.set_slice("ns/a", Some(slice("ns/a", &[(1, true), (2, false)])));
            deliver(&mut controller, &mut applier);
            assert_eq!(applier.repair().unwrap().map(|(why, _)| why), None);
            let iptables = format!("iptables-{word}");
            run(&iptables, &["-t", "nat", "-N", "SOMEBODY"]);
            run(&iptables, &["-t", "nat", "-A", "SOMEBODY", "-d", "192.0.2.1", "-j", "ACCEPT"]);
            assert_eq!(applier.repair().unwrap().map(|(why, _)| why), None);
            std::thread::sleep(std::time::Duration::from_millis(500));
            run(&iptables, &["-t", "nat", "-F"]);
            let (why, _) = applier.repair().unwrap().expect("a flush");
            assert!(why.contains("V4, table nat"), "{why}");
            assert_same(&mut applier);
            assert_eq!(applier.repair().unwrap().map(|(why, _)| why), None);
            std::thread::sleep(std::time::Duration::from_millis(500));
            run(&iptables, &["-t", "filter", "-D", "FORWARD", "-j", "RC-FORWARD"]);
            assert!(applier.repair().unwrap().is_some());
            assert_same(&mut applier);
            assert!(run(&iptables, &["-t", "nat", "-S"]).contains("-N SOMEBODY"));
        });
    }
}

#[test]
fn cleaning_up_leaves_what_others_have() {
    for (variant, word) in VARIANTS {
        in_namespace(move || {
            for program in [format!("iptables-{word}"), format!("ip6tables-{word}")] {
                run(&program, &["-t", "nat", "-N", "SOMEBODY"]);
                run(&program, &["-t", "nat", "-A", "PREROUTING", "-j", "SOMEBODY"]);
                run(&program, &["-t", "filter", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"]);
            }
            let before = save(word);
            let mut controller = Controller::of(Mode::Iptables);
            let mut applier = applier(variant);
            controller.compiler.set_service("ns/a", Some(service("172.30.0.1", 63)));
            controller.compiler.set_slice("ns/a", Some(slice("ns/a", &[(1, true), (2, false)])));
            deliver(&mut controller, &mut applier);
            assert_ne!(save(word), before);
            applier.backend_mut().clean_up().unwrap();
            assert_eq!(save(word), before);
        });
    }
}

#[test]
fn what_is_rendered_is_what_is_written() {
    in_namespace(|| {
        let mut controller = Controller::of(Mode::Iptables);
        let mut applier = applier(Variant::Legacy);
        controller.compiler.set_service("ns/a", Some(service("172.30.0.1", 63)));
        controller.compiler.set_slice("ns/a", Some(slice("ns/a", &[(1, true), (2, false)])));
        controller.compiler.set_service("ns/b", Some(service("172.30.0.2", 3)));
        deliver(&mut controller, &mut applier);
        let written = save("legacy");
        let rules = render(applier.view(), applier.node_addrs()).unwrap();
        applier.backend_mut().clean_up().unwrap();
        let text = rules.to_string();
        for line in text.lines().filter_map(|line| line.strip_prefix("# ipset ")) {
            run("ipset", &line.split(' ').collect::<Vec<_>>());
        }
        let (v4, v6) = text.split_once("# ip6tables-restore --noflush\n").unwrap();
        for (program, text) in [("iptables-legacy-restore", v4), ("ip6tables-legacy-restore", v6)] {
            let mut child =
                Command::new(program).arg("--noflush").stdin(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{program}");
        }
        assert_eq!(save("legacy"), written);
    });
}

/// At every moment there is one mode that translates; what is tested here is what is left afterwards.
#[test]
fn a_change_of_mode_leaves_nothing_of_the_old_one() {
    in_namespace(|| {
        let mut controller = Controller::of(Mode::Nftables);
        let mut applier = Applier::new("n1", "default", Modes::new(modes::open), None);
        controller.compiler.set_service("ns/a", Some(service("172.30.0.1", 1)));
        controller.compiler.set_slice("ns/a", Some(slice("ns/a", &[(1, true), (2, false)])));
        let tables = || run("nft", &["list", "tables"]);
        let chains = || ["legacy", "nft"].map(|word| save(word).iter().filter(|l| l.contains("RC-")).count());
        for mode in [Mode::Nftables, Mode::Iptables, Mode::Nftables, Mode::Iptables] {
            controller.compiler.set_pool("default", Some(pool(mode)));
            assert!(deliver(&mut controller, &mut applier).rebuilt);
            assert_eq!(applier.backend_mut().in_force(), Some(mode));
            assert_eq!(tables().contains("rulecast"), mode == Mode::Nftables, "{mode}: {}", tables());
            let some = chains().iter().any(|count| *count > 0);
            assert_eq!(some, mode == Mode::Iptables, "{mode}: {:?}", chains());
            assert!(applier.verify().unwrap().is_same());
        }
    });
}
