//! A node in a wave, between two directories: the pool's bundle and that of its next shape.

use std::fs;

use rulecast_bundle::{
    Bundle, Change, Checkpoint, ChunkId, Group, GroupId, Head, Key, LaneKey, Member, NodeFact, Tag, Value,
    next_of,
};
use rulecast_tests::nft::listing;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER};
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::{Bench, NODE, expected};

const POOL: &str = "default";
/// The cluster IP of the Service that the next shape has another port for.
const VIP: &str = "10.96.0.10";

/// Puts a bundle where an applier looks for it, without deltas.
fn publish(bench: &Bench, name: &str, sequence: u64, like: &Head, bundle: &Bundle) {
    let dir = bench.bundles().join(name);
    fs::create_dir_all(dir.join("chunks")).unwrap();
    let checkpoint = Checkpoint::encode(sequence, bundle);
    let index = checkpoint.index.encode();
    let checkpoint_id = ChunkId::of(&index).to_string();
    for bytes in checkpoint.chunks.into_iter().chain([index]) {
        fs::write(dir.join("chunks").join(ChunkId::of(&bytes).to_string()), bytes).unwrap();
    }
    let mut head = Head { sequence, checkpoint: checkpoint_id, delta: String::new(), ..like.clone() };
    head.digest = head.expected_digest(name, bundle.root()).to_string();
    fs::write(dir.join("head.new"), serde_json::to_vec(&head).unwrap()).unwrap();
    fs::rename(dir.join("head.new"), dir.join("head.json")).unwrap();
}

fn set(bundle: &mut Bundle, key: Key, value: Option<Value>) {
    let _final = bundle.apply(&[Change { key, value }]).unwrap();
}

fn in_wave(bundle: &mut Bundle, next: bool) {
    let key = Key::Node(Tag::of(NODE));
    let Some(Value::Node(fact)) = bundle.get(&key) else { panic!("nothing is said of {NODE}") };
    set(bundle, key, Some(Value::Node(NodeFact { next, ..fact })));
}

fn target(bundle: &Bundle) -> (GroupId, Group) {
    let groups = bundle.iter().filter_map(|(key, value)| match (key, value) {
        (Key::Group(id), Value::Group(group)) => Some((id, group)),
        _ => None,
    });
    let mut found = groups.filter(|(id, _)| id.addr.to_string() == VIP && id.port == 80);
    found.next().expect("the Service is published")
}

/// The Service answers at another port.
fn with_port(bundle: &Bundle, port: u16) -> Bundle {
    let mut next = bundle.clone();
    let (id, group) = target(bundle);
    let keys = group.keys.iter().map(|key| LaneKey { port, ..*key }).collect();
    set(&mut next, Key::Group(id), Some(Value::Group(Group { keys, ..group })));
    next
}

fn with_member(bundle: &mut Bundle, last: u8) {
    let group = target(bundle).0;
    let scope = rulecast_bundle::Scope::All;
    let key = Key::Member { group, scope, port: 8080, addr: [10, 244, 9, last].into() };
    set(bundle, key, Some(Value::Member(Member::default())));
}

#[test]
fn a_node_follows_the_next_shape_for_as_long_as_it_is_told_and_across_a_restart() {
    let bench = Bench::new();
    let (code, log) = bench.compile(&["--strict"]);
    assert_eq!(code, Some(0), "{log}");
    let (like, mut old) = expected::read(&bench.bundles());
    let first = like.sequence;
    let path = programs::folder().unwrap().join(APPLIER);
    let args = bench.applier_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut applier = Process::new(APPLIER, &path, &args, &bench.path("applier.log"));
    applier.start(&bench.namespace).unwrap();
    let at = |port: u16, members: usize| format!("{VIP} . tcp . {port} : goto lb-{members}");
    let wait = |applier: &Process, wanted: &str, gone: &str| {
        wait_for(&format!("{wanted}; {}", applier.log_tail()), PATIENCE, || {
            let text = listing(&bench.namespace)?;
            anyhow::ensure!(text.contains(wanted) && !text.contains(gone), "{text}");
            Ok(())
        })
        .unwrap();
    };
    wait(&applier, &at(80, 3), &at(81, 3));

    in_wave(&mut old, true);
    let mut new = with_port(&old, 81);
    publish(&bench, POOL, first + 1, &like, &old);
    publish(&bench, &next_of(POOL), first + 2, &like, &new);
    wait(&applier, &at(81, 3), &at(80, 3));

    // Killed, it goes on from disk without either directory.
    let (bundles, aside) = (bench.bundles(), bench.path("aside"));
    fs::rename(&bundles, &aside).unwrap();
    applier.kill().unwrap();
    bench.namespace.output("nft", &["delete", "table", "ip", "rulecast"]).unwrap();
    applier.start(&bench.namespace).unwrap();
    wait(&applier, &at(81, 3), &at(80, 3));
    fs::rename(&aside, &bundles).unwrap();
    with_member(&mut old, 1);
    with_member(&mut new, 1);
    publish(&bench, POOL, first + 3, &like, &old);
    publish(&bench, &next_of(POOL), first + 4, &like, &new);
    wait(&applier, &at(81, 4), &at(80, 3));

    // Everybody has the new shape: the pool's own bundle becomes what the wave's is.
    in_wave(&mut new, false);
    publish(&bench, &next_of(POOL), first + 5, &like, &new);
    publish(&bench, POOL, first + 6, &like, &new);
    wait_for("the pool's own bundle", PATIENCE, || {
        anyhow::ensure!(applier.log().contains("in force already under another number"), "{}", applier.log());
        Ok(())
    })
    .unwrap();
    wait(&applier, &at(81, 4), &at(80, 4));

    // Another wave, which is called off.
    in_wave(&mut new, true);
    publish(&bench, POOL, first + 7, &like, &new);
    let third = with_port(&new, 82);
    publish(&bench, &next_of(POOL), first + 8, &like, &third);
    wait(&applier, &at(82, 4), &at(81, 4));
    in_wave(&mut new, false);
    publish(&bench, POOL, first + 9, &like, &new);
    fs::remove_dir_all(bundles.join(next_of(POOL))).unwrap();
    wait(&applier, &at(81, 4), &at(82, 4));
    assert!(!applier.log().contains("Replay"), "{}", applier.log());
    assert!(applier.terminate().unwrap().success(), "{}", applier.log());
}
