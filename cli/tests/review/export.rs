//! `export`: the tree in Git, and what is never touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::manifests::{POOL, directory, file, outcome, path, service, slice, write};

/// All files under a folder, with their content.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn export(manifests: &TempDir, tree: &Path) -> (i32, String, String) {
    outcome(&["export", path(manifests), "--output", tree.to_str().unwrap()])
}

/// Exports, which must work; returns what it says after the folder's name.
fn exported(manifests: &TempDir, tree: &Path) -> String {
    let (code, text, errors) = export(manifests, tree);
    assert_eq!((code, errors.as_str()), (0, ""));
    text.rsplit_once(": ").unwrap().1.trim().to_owned()
}

#[test]
fn a_tree_has_one_small_file_a_service() {
    let services = [service("prod/web", 1, 80), service("prod/api", 2, 80), service("dev/web", 3, 80)];
    let manifests =
        directory(&[("all.yaml", &file(&services)), ("s.yaml", &slice("prod/web", &["10.1.0.1"]))]);
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("compiled");
    assert_eq!(exported(&manifests, &tree), "5 written, 0 removed, 0 the same");
    let first = files(&tree);
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        [
            ".rulecast-export",
            "default/digest",
            "default/pool.yaml",
            "default/services/dev/web.yaml",
            "default/services/prod/api.yaml",
            "default/services/prod/web.yaml",
        ]
    );
    let web = &first["default/services/prod/web.yaml"];
    assert_eq!(
        web,
        "# Made by kubectl-rulecast export, which overwrites it.\n\
         clusterIPs:\n- \"10.96.0.1\"\ninternalTrafficPolicy: Cluster\nsessionAffinity: None\n\
         ports:\n- name: http\n  protocol: TCP\n  port: 80\n"
    );
    assert!(first["default/pool.yaml"].contains("chain nat-postrouting"));
    assert_eq!(first["default/digest"].trim().len(), 27);

    // Again, and with an endpoint more: nothing is written.
    assert_eq!(exported(&manifests, &tree), "0 written, 0 removed, 5 the same");
    write(manifests.path(), "s.yaml", &slice("prod/web", &["10.1.0.1", "10.1.0.2"]));
    assert_eq!(exported(&manifests, &tree), "0 written, 0 removed, 5 the same");
    assert_eq!(files(&tree), first);

    // One Service changes: its file, in a line, and the digest.
    write(
        manifests.path(),
        "all.yaml",
        &file(&[service("prod/web", 1, 8080), services[1].clone(), services[2].clone()]),
    );
    assert_eq!(exported(&manifests, &tree), "2 written, 0 removed, 3 the same");
    let second = files(&tree);
    let different: Vec<_> = first.keys().filter(|name| first[*name] != second[*name]).collect();
    assert_eq!(different, ["default/digest", "default/services/prod/web.yaml"]);
    let changed = web.lines().zip(second[different[1]].lines()).filter(|(a, b)| a != b).count();
    assert_eq!((changed, web.lines().count()), (1, second[different[1]].lines().count()));

    // One goes, and takes its folder along.
    write(manifests.path(), "all.yaml", &file(&services[..2]));
    assert_eq!(exported(&manifests, &tree), "2 written, 1 removed, 2 the same");
    assert!(!tree.join("default/services/dev").exists());
}

#[test]
fn pools_come_and_go() {
    let pool = |name: &str| POOL.replace("NAME", name);
    let manifests =
        directory(&[("p.yaml", &file(&[pool("a"), pool("b")])), ("w.yaml", &service("x/y", 1, 80))]);
    let tree = tempfile::tempdir().unwrap();
    assert_eq!(exported(&manifests, tree.path()), "6 written, 0 removed, 0 the same");
    write(manifests.path(), "p.yaml", &pool("b"));
    let (code, text, _) = outcome(&["export", path(&manifests), "--output", path(&tree), "--pool", "b"]);
    assert!(code == 0 && text.contains("0 written, 0 removed, 3 the same"), "{text}");
    assert!(tree.path().join("a/digest").exists(), "other pools stay when one is named");
    assert_eq!(exported(&manifests, tree.path()), "0 written, 3 removed, 3 the same");
    assert!(!tree.path().join("a").exists());
}

#[test]
fn what_is_not_from_an_export_is_never_touched() {
    let manifests = directory(&[("w.yaml", &service("x/y", 1, 80))]);
    // A folder with something in it is not begun with.
    let foreign = directory(&[("notes.txt", "mine")]);
    let (code, text, errors) = export(&manifests, foreign.path());
    assert!(code == 2 && text.is_empty() && errors.contains("notes.txt"), "{code} {text} {errors}");
    assert_eq!(files(foreign.path()).len(), 1);

    // In a tree, other files stay: also those with names like ours.
    let tree = tempfile::tempdir().unwrap();
    exported(&manifests, tree.path());
    let others = [
        ("README.md", "mine"),
        ("default/services/x/mine.yaml", "kind: Service\n"),
        ("default/services/x/deep/er.yaml", "mine"),
        ("default/services/notes", "mine"),
        ("other/digest", "not a digest"),
    ];
    for (name, text) in others {
        write(tree.path(), name, text);
    }
    fs::remove_file(manifests.path().join("w.yaml")).unwrap();
    write(manifests.path(), "v.yaml", &service("x/z", 1, 80));
    assert_eq!(exported(&manifests, tree.path()), "2 written, 1 removed, 1 the same");
    for (name, text) in others {
        assert_eq!(fs::read_to_string(tree.path().join(name)).unwrap(), text, "{name}");
    }

    // And are not overwritten.
    write(manifests.path(), "v.yaml", &service("x/mine", 1, 80));
    let (code, _, errors) = export(&manifests, tree.path());
    assert!(code == 2 && errors.contains("mine.yaml"), "{errors}");
    assert_eq!(
        fs::read_to_string(tree.path().join("default/services/x/mine.yaml")).unwrap(),
        "kind: Service\n"
    );
}

#[test]
fn nothing_leads_out_of_the_tree() {
    for name in ["../../../x", "..", "a/b", "x.yaml/../..", ".hidden", "UPPER"] {
        let manifests =
            directory(&[("w.yaml", &service("prod/NAME", 1, 80).replace("NAME", &format!("{name:?}")))]);
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let (code, text, errors) = export(&manifests, &tree);
        assert!(
            code == 2 && text.is_empty() && errors.contains("DNS label"),
            "{name}: {code} {text} {errors}"
        );
        assert!(files(dir.path()).is_empty(), "{name}");
    }
    // Neither does a link that somebody put there.
    let manifests = directory(&[("w.yaml", &service("x/y", 1, 80))]);
    let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    exported(&manifests, tree.path());
    fs::rename(tree.path().join("default/services/x"), outside.path().join("x")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("x"), tree.path().join("default/services/x")).unwrap();
    let before = files(outside.path());
    let (code, _, errors) = export(&manifests, tree.path());
    assert!(code == 2 && errors.contains("no folder"), "{code} {errors}");
    write(manifests.path(), "w.yaml", &service("z/y", 1, 80));
    assert_eq!(export(&manifests, tree.path()).0, 0);
    assert_eq!(files(outside.path()), before);
}
