//! Directories of manifests, and the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs the program.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-rulecast")).args(args).output().unwrap()
}

/// What it did: exit code, standard output, standard error.
pub(crate) fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = run(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn path(dir: &TempDir) -> &str {
    dir.path().to_str().unwrap()
}

/// A directory with these files.
pub(crate) fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(dir.path(), name, text);
    }
    dir
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A Service `namespace/name` with one port.
pub(crate) fn service(name: &str, number: u16, port: u16) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let [high, low] = number.to_be_bytes();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  \
         clusterIP: 10.96.{high}.{low}\n  ports:\n  - name: http\n    port: {port}\n"
    )
}

/// An EndpointSlice of `namespace/name` with ready endpoints.
pub(crate) fn slice(service: &str, endpoints: &[&str]) -> String {
    let (namespace, name) = service.split_once('/').unwrap();
    let list: Vec<String> = endpoints.iter().map(|addr| format!("- addresses: [{addr}]\n")).collect();
    let list = list.concat();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
         labels:\n    kubernetes.io/service-name: {name}\naddressType: IPv4\nports:\n- name: http\n  port: 8080\n\
         endpoints:\n{list}"
    )
}

/// Documents of one file.
pub(crate) fn file(documents: &[String]) -> String {
    documents.join("---\n")
}

/// The same as `kubectl get -o yaml` prints it.
pub(crate) fn list(documents: &[String]) -> String {
    let item = |document: &String| {
        let lines: Vec<String> = document.lines().map(|line| format!("  {line}\n")).collect();
        format!("-{}", &lines.concat()[1..])
    };
    let items: Vec<String> = documents.iter().map(item).collect();
    format!("apiVersion: v1\nitems:\n{}kind: List\nmetadata:\n  resourceVersion: \"\"\n", items.concat())
}

pub(crate) const POOL: &str =
    "apiVersion: rulecast.dev/v1alpha1\nkind: RulePool\nmetadata:\n  name: NAME\nspec: {}\n";
