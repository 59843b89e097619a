//! What is printed has bounds, and names in it are data.

use rulecast_bundle::Shape;
use rulecast_compiler::model::{Service, ServicePort};
use rulecast_review::{MAX_LINE, diff};

use crate::world::{ip, port, service, shape};

fn many_changes() -> (Shape, Shape) {
    let ports = |first: u16| (first..first + 200).map(|n| port(&format!("port-{n}"), n, Some(30_000 + n)));
    let with = |ports: Vec<ServicePort>| shape(&[("a/b", Service { ports, ..service(1) })]);
    (with(ports(1).collect()), with(ports(1000).collect()))
}

#[test]
fn one_service_takes_at_most_twenty_lines_and_one_summary_line() {
    let (from, to) = many_changes();
    let difference = diff(&from, &to);
    assert!(difference.services[0].fields.len() >= 800);
    let text = difference.text(false);
    assert!(text.lines().count() <= 20, "{text}");
    assert!(text.contains("… and "), "{text}");
    let [line] = difference.summary().try_into().unwrap();
    assert!(line.len() <= MAX_LINE && line.len() > MAX_LINE - 8 && line.ends_with('…'), "{line}");
    let markdown = difference.markdown();
    assert!(markdown.len() < 65_536 && markdown.contains("… and "), "{}", markdown.len());
}

#[test]
fn text_says_before_and_after_and_is_coloured_only_if_asked() {
    let affinity = Service { affinity: Some(60), ..service(1) };
    let from = shape(&[("a/b", service(1)), ("a/gone", service(2))]);
    let to = shape(&[("a/b", affinity)]);
    let difference = diff(&from, &to);
    assert_eq!(
        difference.text(false),
        "1 Service changed, 0 added, 1 removed\n~ a/b\n    sessionAffinity: None -> ClientIP (60 s)\n- a/gone\n"
    );
    assert!(difference.text(true).contains("\x1b[33m~ a/b\x1b[0m"));
    assert_eq!(diff(&to, &to).text(true), "no difference\n");
}

#[test]
fn names_cannot_forge_lines_tables_or_sections() {
    let bad = "x|y`z\n</details>\n| a | b |\x1b[31m";
    let from = shape(&[]);
    let vip =
        Service { ports: vec![port(bad, 80, None)], external_ips: vec![ip("198.51.100.1")], ..service(1) };
    let to = shape(&[(&format!("a/{bad}"), vip)]);
    let difference = diff(&from, &to);
    for text in [difference.text(false), difference.summary().join("\n"), difference.causes().join("\n")] {
        assert!(!text.contains('\x1b') && !text.contains("\n</details>"), "{text:?}");
    }
    assert_eq!(difference.summary().len(), 1);
    let markdown = difference.markdown();
    assert_eq!(markdown.matches("</details>").count(), 1);
    for row in markdown.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(row.matches('|').count(), 4, "{row}");
    }
    assert!(!markdown.contains('`') && !markdown.contains('\x1b'), "{markdown}");
}
