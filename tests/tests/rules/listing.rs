//! What nft prints, nft reads.

use rulecast_tests::nft::{check, listing, nft};

use crate::Bench;

/// nft before 1.0.7 writes this in a concatenation and does not read it: it does not know the type of the original port
/// ("ct: use inet_service_type for proto-src and proto-dst").
pub(crate) const UNREADABLE: &str = "ct original proto-dst";

#[test]
fn the_listing_can_be_loaded_again() {
    let bench = Bench::new();
    bench.program();
    let text = listing(&bench.namespace).unwrap();
    for word in ["table ip rulecast", "table ip6 rulecast", "10.96.0.10 . tcp . 80 : goto lb-3", UNREADABLE] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    // In a namespace without rules, as after a reboot.
    let empty = Bench::new();
    let readable = readable(&empty, &text);
    assert_eq!(check(&empty.namespace, &readable).unwrap(), None);
}

/// What this nft reads of a listing: all of it, but for lines that nft before 1.0.7 complains about.
pub(crate) fn readable(bench: &Bench, text: &str) -> String {
    let complaints = check(&bench.namespace, text).unwrap();
    let version = nft(&bench.namespace, &["--version"]).unwrap();
    let old = ["v1.0.0", "v1.0.1", "v1.0.2", "v1.0.3", "v1.0.4", "v1.0.5", "v1.0.6"];
    if !old.iter().any(|old| version.contains(&format!("{old} "))) {
        assert_eq!(complaints, None, "{version}");
        return text.to_owned();
    }
    let complaints = complaints.expect("this nft cannot read the original port");
    let lines: Vec<&str> = text.lines().collect();
    let mut number = 0;
    for complaint in complaints.lines().filter(|line| line.contains("Error:")) {
        let line: usize = complaint.split(':').nth(1).and_then(|n| n.parse().ok()).expect(complaint);
        assert!(lines[line - 1].contains(UNREADABLE), "{complaint}\n{}", lines[line - 1]);
        number += 1;
    }
    assert!(number > 0, "{complaints}");
    text.split_inclusive('\n').filter(|line| !line.contains(UNREADABLE)).collect()
}
