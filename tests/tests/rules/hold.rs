//! What somebody on a node can ask of its applier, with real rules and without an API server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rulecast_tests::nft::listing;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::Value;

use crate::Bench;

/// A controller and an applier that run.
struct Running {
    bench: Bench,
    controller: Process,
    applier: Process,
}

impl Running {
    fn start() -> Self {
        let bench = Bench::new();
        let process = |program: &str, args: &[String]| {
            let path = programs::folder().unwrap().join(program);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Process::new(program, &path, &args, &bench.path(&format!("{program}.log")))
        };
        let args = [bench.controller_args(), vec!["--bind".to_owned(), "127.0.0.1:0".to_owned()]].concat();
        let (mut controller, mut applier) =
            (process(CONTROLLER, &args), process(APPLIER, &bench.applier_args()));
        controller.start(&bench.namespace).unwrap();
        applier.start(&bench.namespace).unwrap();
        Self { bench, controller, applier }
    }

    /// Replaces words of a manifest, whole as editors do it.
    fn edit(&self, from: &str, to: &str) {
        let file = self.bench.manifests().join("plain.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        let new = self.bench.manifests().join(".plain.yaml.new");
        fs::write(&new, text.replace(from, to)).unwrap();
        fs::rename(&new, &file).unwrap();
    }

    fn wait_for(&self, wanted: &str, gone: &str) {
        let what = format!("{wanted}, not {gone}; {}", self.applier.log_tail());
        wait_for(&what, PATIENCE, || {
            let text = listing(&self.bench.namespace)?;
            anyhow::ensure!(text.contains(wanted) && !text.contains(gone), "{text}");
            Ok(())
        })
        .unwrap();
    }

    /// Exit code, what it printed, and what it complained about.
    fn ask(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = programs::command(APPLIER).unwrap();
        command.args(args).arg("--state-dir").arg(self.bench.path("state"));
        command.args(["--hostname-override", crate::NODE]);
        let output = self.bench.run(command);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, text, complaints) = self.ask(&[args, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{args:?}: {complaints}");
        serde_json::from_str(&text).unwrap()
    }

    fn restart(&mut self) {
        self.applier.kill().unwrap();
        self.applier.start(&self.bench.namespace).unwrap();
    }
}

const PORT_80: &str = "10.96.0.10 . tcp . 80 : goto";
const PORT_81: &str = "10.96.0.10 . tcp . 81 : goto";

#[test]
fn a_held_node_keeps_its_ports_and_loses_endpoints_that_go() {
    let mut running = Running::start();
    running.wait_for(PORT_80, PORT_81);
    let (code, text, _) = running.ask(&["use-previous"]);
    assert_eq!((code, text.as_str()), (Some(3), ""), "nothing changed yet");
    let (code, text, complaints) = running.ask(&["show", "-o", "nft", "--service", "shop/plain"]);
    assert!(code == Some(0) && text.contains(PORT_80), "{text}{complaints}");
    assert!(!text.contains("10.96.0.20"), "another Service's: {text}");
    assert_eq!(running.ask(&["show", "-o", "nft", "--service", "shop/none"]).0, Some(3));
    let held = running.json(&["hold", "--reason", "a test"]);
    assert_eq!((&held["already"], &held["hold"]["text"]), (&false.into(), &"a test".into()));
    let since = held["hold"]["since"].clone();

    running.edit("name: http, protocol: TCP, port: 80,", "name: http, protocol: TCP, port: 81,");
    running.edit(
        "10.244.2.2], nodeName: node-2, conditions: { ready: true }",
        "10.244.2.2], nodeName: node-2, conditions: { ready: false }",
    );
    // It runs the new version, under which the endpoints of a port that is not published are those from before; the Service's
    // other port is published and has lost one.
    running.wait_for("10.96.0.10 . udp . 53 : goto lb-2", PORT_81);
    running.wait_for(PORT_80, PORT_81);
    let status = running.json(&["status"]);
    assert!(status["inForce"]["publishedShape"].is_string(), "{status:#}");
    assert_eq!((&status["hold"]["reason"], &status["hold"]["since"]), (&"Hold".into(), &since));
    assert!(status["hold"]["lastKnownEndpoints"].as_u64() > Some(0), "{status:#}");
    let service = running.json(&["show", "--service", "shop/plain"]);
    let ports = service["ports"].as_array().unwrap();
    let port = |name: &str| {
        ports.iter().find(|p| p["name"] == name && p["cluster"].as_str().unwrap().starts_with("10.")).unwrap()
    };
    assert_eq!((&port("http")["lastKnown"], &port("dns")["lastKnown"]), (&true.into(), &false.into()));
    assert_eq!(port("dns")["endpoints"].as_array().unwrap().len(), 2, "{service:#}");

    // It goes on across a restart, and asking again changes nothing.
    running.restart();
    let again = wait_for("an answer", PATIENCE, || {
        let (code, text, complaints) = running.ask(&["hold", "-o", "json"]);
        anyhow::ensure!(code == Some(0), "{complaints}");
        let answer: Value = serde_json::from_str(&text)?;
        anyhow::ensure!(answer["running"] == true, "{answer}");
        Ok(answer)
    })
    .unwrap();
    assert_eq!((&again["already"], &again["hold"]["since"]), (&true.into(), &since));
    running.wait_for(PORT_80, PORT_81);
    assert!(running.applier.log().contains("does not follow its pool's shape"), "{}", running.applier.log());

    let (code, text, _) = running.ask(&["resume"]);
    assert_eq!((code, text.as_str()), (Some(0), "Resumed: the pool is followed again.\n"));
    running.wait_for(PORT_81, PORT_80);
    assert_eq!(running.json(&["status"])["hold"], Value::Null);

    // Back to port 80, whose endpoints are known from before.
    let (code, text, complaints) = running.ask(&["use-previous"]);
    assert!(code == Some(0) && text.starts_with("UsePrevious: "), "{text}{complaints}");
    running.wait_for(PORT_80, PORT_81);
    running.ask(&["resume"]);
    running.wait_for(PORT_81, PORT_80);

    // What the kernel holds is what was written, until somebody else deletes from it; half a second later it is back.
    let (code, text, complaints) = running.ask(&["verify"]);
    assert!(code == Some(0) && text.starts_with("The kernel holds what it should"), "{text}{complaints}");
    let delete = "delete element ip rulecast cluster-ips { 10.96.0.10 }";
    let found = wait_for("a difference before it is repaired", PATIENCE, || {
        running.bench.namespace.output("nft", &[delete])?;
        let (code, text, complaints) = running.ask(&["verify", "-o", "json"]);
        anyhow::ensure!(code == Some(1), "{text}{complaints}");
        Ok(serde_json::from_str::<Value>(&text)?)
    })
    .unwrap();
    let difference = "table ip rulecast, set cluster-ips, element 10.96.0.10: missing";
    assert_eq!((&found["same"], &found["differences"][0]), (&false.into(), &difference.into()), "{found:#}");
    wait_for("the repair", PATIENCE, || {
        anyhow::ensure!(running.ask(&["verify"]).0 == Some(0), "it still differs");
        Ok(())
    })
    .unwrap();
    assert!(running.controller.terminate().unwrap().success());
    assert!(running.applier.terminate().unwrap().success(), "{}", running.applier.log());
}

#[test]
fn where_no_applier_runs_the_disk_answers_and_the_next_start_does_what_was_asked() {
    let mut running = Running::start();
    running.wait_for(PORT_80, PORT_81);
    let socket = running.bench.path("state/applier.sock");
    wait_for("the socket", PATIENCE, || Ok(fs::metadata(&socket)?)).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    running.edit("name: http, protocol: TCP, port: 80,", "name: http, protocol: TCP, port: 81,");
    running.wait_for(PORT_81, PORT_80);
    running.applier.kill().unwrap();
    let (code, text, _) = running.ask(&["status"]);
    assert!(code == Some(0) && text.contains("does not run"), "{text}");
    assert_eq!(running.ask(&["verify"]).0, Some(2), "only an applier that runs knows what it wrote");
    let (code, text, _) = running.ask(&["show", "--service", "shop/plain"]);
    assert!(code == Some(0) && text.contains("10.244.1.1:8080 on this node"), "{text}");
    let (code, _, complaints) = running.ask(&["show", "--service", "shop/none"]);
    assert_eq!(code, Some(3), "{complaints}");
    let (code, text, _) = running.ask(&["use-previous", "--reason", "at night"]);
    assert!(code == Some(0) && text.contains("The next applier that starts will do so"), "{text}");
    running.applier.start(&running.bench.namespace).unwrap();
    running.wait_for(PORT_80, PORT_81);
    running.applier.kill().unwrap();

    // A hold that is damaged is told, and the pool is followed.
    let file = running.bench.path("state/default/hold");
    let mut bytes = fs::read(&file).unwrap();
    bytes[9] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, text, _) = running.ask(&["status"]);
    assert!(code == Some(0) && text.contains("cannot be read, so the pool is followed"), "{text}");
    running.applier.start(&running.bench.namespace).unwrap();
    running.wait_for(PORT_81, PORT_80);
    running.applier.kill().unwrap();
    let (code, text, _) = running.ask(&["resume"]);
    assert!(code == Some(0) && text.contains("follows the pool again"), "{text}");

    // Damaged and missing stores, and somebody who may not.
    for (args, expected) in [(["status", "--pool", "other"], 1), (["status", "--reason", "none"], 2)] {
        assert_eq!(running.ask(&args).0, Some(expected), "{args:?}");
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--clear-groups"]).arg(programs::folder().unwrap().join(APPLIER));
    nobody.arg("status").arg("--state-dir").arg(running.bench.path("state"));
    let (code, complaints) = crate::outcome(&running.bench.run(nobody));
    assert!(code == Some(77) && complaints.contains("Run it as root"), "{code:?} {complaints}");
    let base = running.bench.path("state/default/base");
    let mut bytes = fs::read(&base).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&base, bytes).unwrap();
    let (code, _, complaints) = running.ask(&["hold"]);
    assert!(code == Some(1) && complaints.contains("damaged"), "{code:?} {complaints}");
}
