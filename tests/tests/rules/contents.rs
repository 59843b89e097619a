//! What nft tells machines is what the bundle says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_tests::nft;
use serde_json::Value;

use crate::expected::{self, Sets};
use crate::{Bench, NODE};

/// A key or datum as nft's JSON has it.
fn text(value: &Value) -> String {
    let texts = |list: &Value| list.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => String::new(),
        Value::Object(object) => {
            let (kind, content) = object.iter().next().unwrap();
            match kind.as_str() {
                "concat" => texts(content).join(" . "),
                "prefix" => format!("{}/{}", text(&content["addr"]), content["len"]),
                "range" => texts(content).join("-"),
                "elem" => text(&content["val"]),
                "goto" | "jump" => format!("{kind} {}", text(&content["target"])),
                verdict => verdict.to_owned(),
            }
        }
        other => panic!("what is {other}?"),
    }
}

/// The elements in the kernel, in the form of [`expected::sets`].
fn found(bench: &Bench) -> Sets {
    let mut sets = Sets::new();
    for object in nft::objects(&bench.namespace).unwrap() {
        let Some(set) = object.get("set").or_else(|| object.get("map")) else { continue };
        // Some nft releases leave the flag "dynamic" out.
        let own = |flag: &Value| flag == "dynamic" || flag == "timeout";
        let dynamic = set["flags"].as_array().is_some_and(|flags| flags.iter().any(own));
        let name = set["name"].as_str().unwrap();
        if dynamic || set["table"] != "rulecast" {
            continue;
        }
        let mut elements = BTreeSet::new();
        for element in set["elem"].as_array().into_iter().flatten() {
            // Of a map: [key, data].
            let Some([key, data]) = element.as_array().map(Vec::as_slice) else {
                assert!(elements.insert(text(element)), "{name}: {element} twice");
                continue;
            };
            let (key, data) = (text(key), text(data));
            if name.ends_with("endpoints") {
                // See `expected`: numbers and endpoints apart.
                let (vip, _) = key.rsplit_once(" . ").unwrap();
                assert!(elements.insert(format!("{vip} : {data}")), "{name}: {vip} has {data} twice");
                elements.insert(key);
            } else {
                elements.insert(format!("{key} : {data}"));
            }
        }
        sets.insert((set["family"].as_str().unwrap().to_owned(), name.to_owned()), elements);
    }
    sets
}

#[test]
fn every_set_holds_what_the_bundle_says_and_nothing_else() {
    let bench = Bench::new();
    bench.program();
    let addrs: [IpAddr; 2] = ["192.168.50.1".parse().unwrap(), "fd00:50::1".parse().unwrap()];
    let (_, bundle) = expected::read(&bench.bundles());
    let (expected, found) = (expected::sets(&bundle, NODE, &addrs), found(&bench));
    for (set, elements) in &expected {
        assert_eq!(found.get(set), Some(elements), "{set:?}");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    // The manifests are meant to fill these; an empty comparison would prove nothing.
    for set in [
        "service-ips",
        "outside-ips",
        "service-nodeports",
        "outside-nodeports",
        "endpoints",
        "outside-endpoints",
        "members",
        "remember",
        "nodeport-remember",
        "cluster-ips",
        "external-ips",
        "nodeports",
        "inside-ips",
        "firewall-ips",
        "firewall-ranges",
        "hairpin-connections",
        "nodeport-ips",
    ] {
        let elements = &found[&("ip".to_owned(), set.to_owned())];
        assert!(!elements.is_empty(), "{set} is empty");
    }
    let has = |set: &str, element: &str| found[&("ip".to_owned(), set.to_owned())].contains(element);
    // And a few by hand, in case both sides share a mistake.
    assert!(has("service-ips", "10.96.0.10 . tcp . 80 : goto lb-3"));
    assert!(has("endpoints", "10.96.0.10 . tcp . 80 : 10.244.2.2 . 8080"));
    assert!(has("outside-nodeports", "tcp . 30081 : drop"));
    assert!(has("service-ips", "10.96.0.31 . sctp . 9000 : goto lb-1"));
    assert!(has("firewall-ranges", "198.51.100.21 . tcp . 443 . 192.0.2.0/25"));
    assert!(has("nodeport-ips", "192.168.50.1"));
    assert!(
        !has("firewall-ips", "198.51.100.20 . tcp . 443"),
        "source ranges are for the load balancer's address"
    );
}

/// Every verdict leads to a chain that picks among as many endpoints as its name says.
#[test]
fn chains_pick_among_as_many_as_they_say() {
    let bench = Bench::new();
    bench.program();
    let objects = nft::objects(&bench.namespace).unwrap();
    let mut checked = 0;
    for rule in objects.iter().filter_map(|o| o.get("rule")) {
        let chain = rule["chain"].as_str().unwrap();
        let count = chain.contains("lb-").then(|| chain.rsplit_once('-').unwrap().1.parse::<u64>().unwrap());
        let text = rule["expr"].to_string();
        let Some(count) = count else { continue };
        assert!(text.contains(&format!("\"mod\":{count}")), "{chain}: {text}");
        checked += 1;
    }
    assert!(checked >= 4, "{checked} chains");
}
