//! Endpoints that came and went, beside a shape that is the same.

use rulecast_bundle::{Mode, Shape};
use rulecast_compiler::model::{Options, Service};
use rulecast_review::{diff, membership};

use crate::world::{compile, port, service, slice};

#[test]
fn endpoints_are_told_by_service_and_are_no_shape() {
    let services = [("a/b", service(1)), ("a/c", service(2))];
    let with = |endpoints: &[&str]| {
        let slices = [("a/b-1", slice("a/b", endpoints)), ("a/c-1", slice("a/c", &["10.1.0.9"]))];
        compile(&Options::default(), &services, &slices)
    };
    let (from, to) = (with(&["10.1.0.1", "10.1.0.2"]), with(&["10.1.0.2", "10.1.0.3"]));
    assert!(diff(&Shape::of(Mode::Nftables, &from), &Shape::of(Mode::Nftables, &to)).is_empty());
    assert!(membership(&from, &from).is_empty());
    let difference = membership(&from, &to);
    assert_eq!(
        difference.text(false),
        "~ a/b\n    port http: -10.1.0.1:8080 for all nodes\n    port http: +10.1.0.3:8080 for all nodes\n"
    );
    assert!(difference.markdown().contains("<summary><code>a/b</code> endpoints</summary>"));
}

#[test]
fn a_port_that_moves_keeps_its_endpoints() {
    let slices = [("a/b-1", slice("a/b", &["10.1.0.1"]))];
    let moved = Service { ports: vec![port("http", 8080, None)], ..service(1) };
    let [from, to] = [service(1), moved].map(|s| compile(&Options::default(), &[("a/b", s)], &slices));
    assert!(!diff(&Shape::of(Mode::Nftables, &from), &Shape::of(Mode::Nftables, &to)).is_empty());
    assert!(membership(&from, &to).is_empty());
    let gone = compile(&Options::default(), &[], &slices);
    assert_eq!(membership(&from, &gone).text(false), "~ a/b\n    port http: -10.1.0.1:8080 for all nodes\n");
}
