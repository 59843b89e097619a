//! Directories all the way: what people see who have no cluster, and what CI sees.

use std::fs;

use rulecast_tests::nft::{listing, state};
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::{Bench, NODE, expected, outcome};

/// A Service whose cluster IP is no address.
const BROKEN: &str = "\
apiVersion: v1
kind: Service
metadata: { name: broken, namespace: shop }
spec: { clusterIP: 10.96.0.300, ports: [{ port: 80 }] }
";

#[test]
fn a_malformed_manifest_is_named_and_the_others_are_used() {
    let bench = Bench::new();
    fs::write(bench.manifests().join("broken.yaml"), BROKEN).unwrap();
    fs::write(bench.manifests().join("unfinished.yaml"), "apiVersion: v1\nkind: [Service\n").unwrap();
    let (code, log) = bench.compile(&[]);
    assert_eq!(code, Some(0), "{log}");
    for word in ["shop/broken", "10.96.0.300", "unfinished.yaml"] {
        assert!(log.contains(word), "the log does not say {word}:\n{log}");
    }
    let (head, bundle) = expected::read(&bench.bundles());
    assert!(bundle.iter().count() > 20);
    let (code, log) = bench.apply();
    assert_eq!(code, Some(0), "{log}");
    assert!(listing(&bench.namespace).unwrap().contains("10.96.0.10 . tcp . 80 : goto lb-3"));

    // The same again: exit code 2 says that something was left out, and nothing new is published.
    let (code, log) = bench.compile(&["--strict"]);
    assert_eq!(code, Some(2), "{log}");
    assert_eq!(expected::read(&bench.bundles()).0, head);
    for file in ["broken.yaml", "unfinished.yaml"] {
        fs::remove_file(bench.manifests().join(file)).unwrap();
    }
    let (code, log) = bench.compile(&["--strict"]);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(
        expected::read(&bench.bundles()).0.digest,
        head.digest,
        "what cannot be used was never part of it"
    );
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let bench = Bench::new();
    let run = |program: &str, args: &[&str]| {
        let mut command = programs::command(program).unwrap();
        command.args(args);
        outcome(&bench.run(command))
    };
    for (program, args) in [
        (CONTROLLER, &["run", "--no-such-option"][..]),
        (CONTROLLER, &["run", "--strict"]),
        (APPLIER, &["run", "--no-such-option"]),
        (APPLIER, &["run", "--pool", "../etc"]),
    ] {
        let (code, log) = run(program, args);
        assert_eq!(code, Some(2), "{program} {args:?}: {log}");
    }
    let [nowhere, output] = ["nowhere", "output"].map(|name| bench.path(name).display().to_string());
    let (code, log) = run(CONTROLLER, &["run", "--manifests", &nowhere, "--output", &output, "--once"]);
    assert!(code == Some(1) && log.contains("nowhere"), "{code:?} {log}");

    bench.program();
    let before = state(&bench.namespace).unwrap();
    let path = bench.bundles().join("default/head.json");
    let head = fs::read_to_string(&path).unwrap();
    let digest = expected::read(&bench.bundles()).0.digest;
    fs::write(&path, head.replace(&digest, &"d".repeat(27))).unwrap();
    let (code, log) = bench.apply();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("Conflict"), "{log}");
    // Without a last good bundle there is nothing to compare it with but its content.
    fs::remove_dir_all(bench.path("state")).unwrap();
    let (code, log) = bench.apply();
    assert!(code == Some(1) && log.contains("digest"), "{code:?} {log}");
    assert_eq!(state(&bench.namespace).unwrap(), before, "a refused version leaves the kernel alone");
}

#[test]
fn changes_of_files_reach_the_kernel_and_cleanup_removes_everything() {
    let bench = Bench::new();
    let args = [bench.controller_args(), vec!["--bind".to_owned(), "127.0.0.1:0".to_owned()]].concat();
    let process = |program: &str, args: &[String]| {
        let path = programs::folder().unwrap().join(program);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = Process::new(program, &path, &args, &bench.path(&format!("{program}.log")));
        process.start(&bench.namespace).unwrap();
        process
    };
    let mut controller = process(CONTROLLER, &args);
    let mut applier = process(APPLIER, &bench.applier_args());
    let wait_for_verdict = |wanted: &str| {
        let what = format!("{wanted} of {NODE}; logs\n{}\n{}", controller.log_tail(), applier.log_tail());
        let look = || match listing(&bench.namespace)? {
            text if text.contains(wanted) => Ok(()),
            text => Err(anyhow::anyhow!("{text}")),
        };
        wait_for(&what, PATIENCE, look).unwrap();
    };
    wait_for_verdict("10.96.0.10 . tcp . 80 : goto lb-3");
    let file = bench.manifests().join("plain.yaml");
    let original = fs::read_to_string(&file).unwrap();
    let write = |text: &str| {
        // Whole, as editors do it.
        let new = bench.manifests().join(".plain.yaml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    write(&original.replace("ready: false", "ready: true"));
    wait_for_verdict("10.96.0.10 . tcp . 80 : goto lb-4");
    // A file that cannot be read any more leaves what it said in force.
    let sequence = expected::read(&bench.bundles()).0.sequence;
    write("kind: [Service\n");
    wait_for("the file to be named", PATIENCE, || {
        anyhow::ensure!(controller.log().contains("plain.yaml"), "{}", controller.log());
        Ok(())
    })
    .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(expected::read(&bench.bundles()).0.sequence, sequence);
    wait_for_verdict("10.96.0.10 . tcp . 80 : goto lb-4");
    write(&original);
    wait_for_verdict("10.96.0.10 . tcp . 80 : goto lb-3");

    assert!(controller.terminate().unwrap().success(), "{}", controller.log());
    assert!(applier.terminate().unwrap().success(), "{}", applier.log());
    assert!(listing(&bench.namespace).unwrap().contains("goto lb-3"), "the rules outlive the applier");
    let mut cleanup = programs::command(APPLIER).unwrap();
    cleanup.arg("cleanup");
    assert_eq!(outcome(&bench.run(cleanup)), (Some(0), String::new()));
    assert_eq!(listing(&bench.namespace).unwrap(), "");
}
