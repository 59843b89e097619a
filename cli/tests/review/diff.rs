//! `diff`: what it finds, what it says, and with which code it ends.

use serde_json::Value;

use crate::manifests::{POOL, directory, file, list, outcome, path, service, slice};

#[test]
fn exit_codes_tell_sameness_difference_and_errors() {
    let a = directory(&[("web.yaml", &service("prod/web", 1, 80))]);
    let b = directory(&[("web.yaml", &service("prod/web", 1, 8080))]);
    assert_eq!(outcome(&["diff", path(&a), path(&a)]), (0, "no difference\n".to_owned(), String::new()));
    let (code, text, errors) = outcome(&["diff", path(&a), path(&b)]);
    assert_eq!((code, errors.as_str()), (1, ""));
    assert_eq!(
        text,
        "RulePool default: 1 Service changed, 0 added, 0 removed\n~ prod/web\n    port http: 80/TCP -> 8080/TCP\n"
    );
    assert!(outcome(&["diff", path(&a), path(&b), "--color"]).1.contains("\x1b[33m~ prod/web\x1b[0m"));
    for args in [
        vec!["diff", path(&a)],
        vec!["diff", path(&a), "/nowhere"],
        vec!["diff", path(&a), path(&b), "--pool", "other"],
        vec!["diff", path(&a), path(&b), "-o", "html"],
    ] {
        let (code, text, errors) = outcome(&args);
        assert!(code == 2 && text.is_empty() && !errors.is_empty(), "{args:?}: {code} {text} {errors}");
    }
}

#[test]
fn every_form_says_the_same() {
    let a = directory(&[("a.yaml", &file(&[service("prod/web", 1, 80), service("prod/old", 2, 80)]))]);
    let b = directory(&[("a.yaml", &file(&[service("prod/web", 1, 8080), service("prod/new", 3, 80)]))]);
    let of = |form: &str| {
        let (code, text, errors) = outcome(&["diff", path(&a), path(&b), "-o", form]);
        assert_eq!((code, errors.as_str()), (1, ""), "{form}");
        text
    };
    let json: Value = serde_json::from_str(&of("json")).unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(&of("yaml")).unwrap(), json);
    let pool = &json["pools"][0];
    assert_eq!(pool["pool"], "default");
    let kinds: Vec<String> = pool["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {}", s["service"].as_str().unwrap(), s["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, ["prod/new Added", "prod/old Removed", "prod/web Changed"]);
    assert_eq!(
        pool["services"][2]["fields"],
        serde_json::json!([{ "path": "ports[http]", "before": "80/TCP", "after": "8080/TCP" }])
    );
    let markdown = of("markdown");
    for wanted in [
        "## RulePool default\n",
        "1 Service changed, 1 added, 1 removed",
        "<summary><code>prod/web</code> changed</summary>",
        "| <code>port http</code> | <code>80/TCP</code> | <code>8080/TCP</code> |",
    ] {
        assert!(markdown.contains(wanted), "{wanted}\n{markdown}");
    }
}

#[test]
fn endpoints_are_compared_only_if_asked_for() {
    let with = |endpoints: &[&str]| {
        directory(&[
            ("web.yaml", &service("prod/web", 1, 80)),
            ("slice.yaml", &slice("prod/web", endpoints)),
            ("all.json", &slice_json(endpoints)),
        ])
    };
    let (a, b) = (with(&["10.1.0.1", "10.1.0.2"]), with(&["10.1.0.2"]));
    assert_eq!(outcome(&["diff", path(&a), path(&b)]), (0, "no difference\n".to_owned(), String::new()));
    let (code, text, _) = outcome(&["diff", path(&a), path(&b), "--membership"]);
    assert_eq!(code, 1);
    assert!(text.contains("~ prod/web\n    port http: -10.1.0.1:8080 for all nodes\n"), "{text}");
    let (code, text, _) = outcome(&["diff", path(&a), path(&a), "--membership"]);
    assert_eq!((code, text.as_str()), (0, "no difference\n"));
}

/// The same slice in a list.
fn slice_json(endpoints: &[&str]) -> String {
    let item: Value = serde_saphyr::from_str(&slice("prod/web", endpoints)).unwrap();
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [item] }).to_string()
}

#[test]
fn order_files_and_forms_do_not_matter() {
    let services: Vec<String> = (1..40).map(|n| service(&format!("ns-{}/web-{n}", n % 3), n, 80)).collect();
    let reversed: Vec<String> = services.iter().rev().cloned().collect();
    let (first, second) = services.split_at(17);
    let one = directory(&[("all.yaml", &file(&services))]);
    for other in [
        directory(&[("all.yaml", &file(&reversed))]),
        directory(&[("z.yaml", &file(first)), ("deep/er/a.yml", &file(second))]),
        directory(&[("all.yaml", &list(&reversed))]),
        directory(&[("a.yaml", &list(first)), ("b.yaml", &file(second)), ("b.txt", "no manifest")]),
    ] {
        assert_eq!(
            outcome(&["diff", path(&one), path(&other)]),
            (0, "no difference\n".to_owned(), String::new())
        );
    }
}

#[test]
fn a_change_among_ten_thousand_services_fits_on_a_screen() {
    let services = |port| {
        (1..=10_000)
            .map(move |n| service(&format!("ns-{}/web-{n}", n % 50), n, if n == 7000 { port } else { 80 }))
    };
    let a = directory(&[("all.yaml", &file(&services(80).collect::<Vec<_>>()))]);
    let b = directory(&[("all.yaml", &list(&services(443).collect::<Vec<_>>()))]);
    let (code, text, errors) = outcome(&["diff", path(&a), path(&b)]);
    assert_eq!((code, errors.as_str()), (1, ""));
    assert!(text.lines().count() <= 20 && text.contains("ns-0/web-7000"), "{text}");
}

#[test]
fn what_cannot_be_used_is_named_with_file_and_field() {
    let bad = service("prod/bad", 300, 80).replace("10.96.1.44", "10.96.0.300");
    let a = directory(&[("a.yaml", &service("prod/web", 1, 80))]);
    let b = directory(&[
        ("a.yaml", &service("prod/web", 1, 80)),
        ("bad.yaml", &file(&[service("prod/x", 2, 80), bad])),
        ("cut.yaml", "apiVersion: v1\nkind: [Service\n"),
        ("thief.yaml", &service("prod/zzz", 1, 80)),
    ]);
    let (code, text, errors) = outcome(&["diff", path(&a), path(&b)]);
    assert_eq!(code, 1);
    assert_eq!(text.lines().nth(1), Some("+ prod/x"), "{text}");
    let lines: Vec<&str> = errors.lines().collect();
    for words in [
        &["bad.yaml", "document 2", "Service prod/bad", "spec.clusterIP[0]", "10.96.0.300"][..],
        &["cut.yaml", "document 1", "not YAML"],
        &["RulePool default", "Service prod/zzz", "10.96.0.1:80/TCP belongs to another Service"],
    ] {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}\n{errors}");
    }
    assert_eq!(lines.len(), 3, "{errors}");
    let (code, text, errors) = outcome(&["diff", path(&a), path(&b), "--strict"]);
    assert!(code == 2 && text.is_empty() && errors.contains("prod/bad"), "{code} {text} {errors}");
}

#[test]
fn pools_are_compared_by_name() {
    let pool = |name: &str| POOL.replace("NAME", name);
    let web = service("prod/web", 1, 80);
    let a = directory(&[("pools.yaml", &file(&[pool("edge"), pool("core")])), ("web.yaml", &web)]);
    let b = directory(&[
        (
            "pools.yaml",
            &file(&[pool("core").replace("spec: {}", "spec: {masqueradeAll: true}"), pool("new")]),
        ),
        ("web.yaml", &web),
    ]);
    let (code, text, _) = outcome(&["diff", path(&a), path(&b)]);
    assert_eq!(code, 1);
    assert!(text.contains("RulePool edge removed, with 1 Service\n"), "{text}");
    assert!(text.contains("RulePool new added, with 1 Service\n"), "{text}");
    assert!(
        text.contains("RulePool core: 0 Services changed, 0 added, 0 removed; options of the pool changed\n"),
        "{text}"
    );
    let (_, only, _) = outcome(&["diff", path(&a), path(&b), "--pool", "core"]);
    assert!(only.contains("RulePool core") && !only.contains("edge"), "{only}");
    let names = vec![pool("core"), pool("edge")];
    let same = directory(&[("pools.yaml", &file(&names)), ("web.yaml", &web)]);
    assert_eq!(outcome(&["diff", path(&a), path(&same)]).0, 0);
}
