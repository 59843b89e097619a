//! The iptables rules as text.

use rulecast_bundle::nft::Family;
use rulecast_bundle::{FamilyOptions, Pods};

use super::super::rules;

fn options(pods: Pods, masquerade_all: bool) -> FamilyOptions {
    FamilyOptions {
        mark: 0x4000,
        masquerade_all,
        liberal: false,
        pods,
        node_port_addresses: None,
        localhost_node_ports: false,
        ipvs: None,
    }
}

#[test]
fn rules_are_told_as_iptables_prints_them() {
    let pods = Pods::Prefixes(vec![([10, 244, 0, 0].into(), 16)]);
    let tables = rules::tables(Family::V4, &options(pods, false), &[]);
    let text = rules::restore(&tables, "*nat\n-A POSTROUTING -j RCV-POST\nCOMMIT\n");
    assert_eq!(text, include_str!("rules.txt"));
}

#[test]
fn rules_follow_the_options() {
    let text = |family, pods, all| {
        let cidrs = [([10, 244, 1, 0].into(), 24), ("fd00:244::".parse().unwrap(), 64)];
        rules::restore(&rules::tables(family, &options(pods, all), &cidrs), "")
    };
    let nobody = text(Family::V4, Pods::Unknown, false);
    assert!(!nobody.contains("CLUSTER-IPS"), "who is a pod is unknown: {nobody}");
    let all = text(Family::V4, Pods::Unknown, true);
    assert!(all.contains("RC-CLUSTER-IPS") && all.contains("-A RCV-CLUSTER -j RCV-MARK"), "{all}");
    let cni = text(Family::V4, Pods::Interface { name: "cni".into(), prefix: true }, false);
    assert!(cni.contains("-A RCV-CLUSTER -i cni+ -j RETURN"), "{cni}");
    let own = text(Family::V6, Pods::NodeCidr, false);
    assert!(own.contains("-A RCV-OUTSIDE -s fd00:244::/64 -j RETURN"), "{own}");
    assert!(own.contains("RC-6-VIPS") && own.contains("icmp6-port-unreachable"), "{own}");
}

#[test]
fn a_range_of_all_addresses_is_no_condition() {
    // iptables-save does not print it, and a rule that did would always differ.
    let pods = Pods::Prefixes(vec![([0, 0, 0, 0].into(), 0)]);
    let text = rules::restore(&rules::tables(Family::V4, &options(pods, false), &[]), "");
    assert!(text.contains("-A RCV-CLUSTER -j RETURN") && !text.contains("/0 "), "{text}");
}

#[test]
fn what_is_removed_is_what_is_there() {
    let tables = rules::tables(Family::V4, &options(Pods::Unknown, true), &[]);
    // As iptables-save prints what was restored, with somebody else's rule in between.
    let mut saved = Vec::new();
    for table in &tables {
        saved.extend([format!("*{}", table.name), ":INPUT ACCEPT [0:0]".to_owned()]);
        saved.extend(table.chains.iter().map(|(chain, _)| format!(":{chain} - [0:0]")));
        saved.extend(table.jumps.iter().map(|jump| format!("-A {jump}")));
        saved.push("-A INPUT -j RCV-INPUTS".to_owned());
        for (chain, rules) in &table.chains {
            saved.extend(rules.iter().map(|rule| format!("-A {chain} {rule}")));
        }
        saved.push("COMMIT".to_owned());
    }
    let saved = saved.join("\n");
    let mut differences = Vec::new();
    let counted = rules::differences(&tables, &saved, |what| differences.push(what));
    assert_eq!((counted.0, differences.len()), (9, 0), "{differences:?}");
    rules::differences(&tables, &saved.replace("-j RCV-MARK", "-j ACCEPT"), |what| differences.push(what));
    assert_eq!(differences.len(), 2, "{differences:?}");

    let removal = rules::removal(&saved);
    let count = |word: &str| removal.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("-D"), count("-X"), count(":"), count("*")), (8, 9, 9, 3), "{removal}");
    assert!(!removal.contains("INPUTS"), "{removal}");
    assert_eq!(rules::removal("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), "");
}
