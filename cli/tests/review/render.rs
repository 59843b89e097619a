//! `render`: the same on every run, whatever the order of objects. That it is what the kernel gets is tested with kernels
//! (`tests/tests/rules`).

use serde_json::Value;

use crate::manifests::{POOL, directory, file, list, outcome, path, service, slice};

fn node(name: &str, addr: &str, zone: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{topology.kubernetes.io/zone: {zone}}}\n\
         status:\n  addresses:\n  - {{type: InternalIP, address: {addr}}}\n"
    )
}

/// Services of many kinds, with endpoints on two nodes.
fn objects() -> Vec<String> {
    let mut objects = vec![node("n1", "192.168.0.1", "a"), node("n2", "192.168.0.2", "b")];
    for number in 1..30 {
        let name = format!("ns-{}/web-{number}", number % 3);
        let more = match number % 4 {
            0 => "  sessionAffinity: ClientIP\n",
            1 => "  type: NodePort\n  externalTrafficPolicy: Local\n",
            2 => "  externalIPs: [198.51.100.7]\n  loadBalancerSourceRanges: [192.0.2.0/24]\n",
            _ => "",
        };
        let node_port =
            if number % 4 == 1 { format!("    nodePort: {}\n", 30_000 + number) } else { String::new() };
        objects.push(service(&name, number, 80 + number) + &node_port + more);
        let slice = slice(&name, &[&format!("10.1.0.{number}"), &format!("10.1.1.{number}")]);
        objects.push(slice.replace("]\n", "]\n  nodeName: n1\n"));
    }
    objects
}

fn render(dir: &tempfile::TempDir, more: &[&str]) -> String {
    let (code, text, errors) = outcome(&[&["render", path(dir)], more].concat());
    assert_eq!((code, errors.as_str()), (0, ""));
    text
}

#[test]
fn every_run_and_every_order_gives_the_same_bytes() {
    let objects = objects();
    let reversed: Vec<String> = objects.iter().rev().cloned().collect();
    let one = directory(&[("all.yaml", &file(&objects))]);
    let first = render(&one, &["--node", "n1"]);
    assert!(first.starts_with("# RulePool default, node n1\ntable ip rulecast {\n"), "{first}");
    for wanted in [
        "\t\t\t     10.96.0.4 . tcp . 84 : goto sticky-tcp-10.96.0.4-84,\n",
        "\tchain sticky-tcp-10.96.0.4-84 {\n",
        "10.96.0.3 . tcp . 83 . 1 : 10.1.1.3 . 8080",
        "elements = { 192.168.0.1 }",
    ] {
        assert!(first.contains(wanted), "{wanted}\n{first}");
    }
    let two = directory(&[("z.yaml", &file(&reversed[..20])), ("a.yaml", &list(&reversed[20..]))]);
    for _ in 0..5 {
        assert_eq!(render(&two, &["--node", "n1"]), first);
    }
    let other = render(&one, &["--node", "n2"]);
    assert!(other.contains("tcp . 30001 : drop") && !first.contains("tcp . 30001 : drop"), "{other}");
}

#[test]
fn json_has_the_same_lines() {
    let dir = directory(&[("all.yaml", &file(&objects()))]);
    let text = render(&dir, &["--node", "n1"]);
    let json: Value = serde_json::from_str(&render(&dir, &["--node", "n1", "-o", "json"])).unwrap();
    let tables = json["tables"].as_array().unwrap();
    assert_eq!(tables.iter().map(|t| t["family"].as_str().unwrap()).collect::<Vec<_>>(), ["ip", "ip6"]);
    let (mut rules, mut elements) = (0, 0);
    for table in tables {
        for chain in table["chains"].as_array().unwrap() {
            for rule in chain["rules"].as_array().unwrap() {
                assert!(text.contains(&format!("\t\t{}\n", rule.as_str().unwrap())), "{rule}");
                rules += 1;
            }
        }
        for element in
            table["sets"].as_array().unwrap().iter().flat_map(|set| set["elements"].as_array().unwrap())
        {
            assert!(text.contains(element.as_str().unwrap()), "{element}");
            elements += 1;
        }
    }
    assert!(rules > 50 && elements > 100, "{rules} {elements}");
}

#[test]
fn what_is_missing_is_said() {
    let pool = |name: &str| POOL.replace("NAME", name);
    let dir = directory(&[("all.yaml", &file(&[service("a/b", 1, 80), pool("x"), pool("y")]))]);
    let (code, text, errors) = outcome(&["render", path(&dir)]);
    assert!(
        code == 2 && text.is_empty() && errors.contains("--pool: which of the RulePools x, y?"),
        "{errors}"
    );
    assert!(
        render(&dir, &["--pool", "x"]).starts_with("# RulePool x, a node without endpoints of its own\n")
    );
    let unknown = render(&dir, &["--pool", "x", "--node", "evil\nname"]);
    assert!(
        unknown.starts_with("# RulePool x, node evil\\nname, of which the pool has no Node"),
        "{unknown}"
    );
    let (code, _, errors) = outcome(&["render", path(&dir), "--pool", "z"]);
    assert!(code == 2 && errors.contains("there is no RulePool z"), "{errors}");
    let in_iptables = pool("x").replace("spec: {}", "spec: {mode: iptables}");
    let iptables = directory(&[("all.yaml", &file(&[service("a/b", 1, 80), in_iptables, pool("y")]))]);
    let text = render(&iptables, &["--pool", "x"]);
    assert!(text.contains("\n# iptables-restore --noflush\n*nat\n:RC-SERVICES - [0:0]\n"), "{text}");
    // The same nodePortAddresses mean what they mean in that mode.
    assert_eq!(render(&dir, &["--pool", "x", "--mode", "iptables"]), text);
    assert_eq!(render(&iptables, &["--pool", "x", "--mode", "nftables"]), render(&dir, &["--pool", "x"]));
}
