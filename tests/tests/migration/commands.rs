//! The commands of `docs/migration.md` that concern the API server alone, as they stand there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use rulecast_tests::cluster::POOL;
use rulecast_tests::programs;
use serde_json::{Value, json};

use crate::kube_proxy::Mode;
use crate::site::{NFTABLES, Site};

/// These need pods that run.
const NEED_PODS: [&str; 2] = ["kubectl debug ", "kubectl drain "];

pub(crate) fn of_the_page_are_taken(site: &mut Site) -> anyhow::Result<()> {
    site.empty()?;
    // With what kubeadm installs.
    site.import_pool(Mode::Nftables, NFTABLES)?;
    let labels = json!({ "k8s-app": "kube-proxy" });
    site.cluster.apply(&[json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "kube-proxy", "image": "none" }] },
            },
        },
    })])?;
    let zone = ["label", "nodes", "--all", "topology.kubernetes.io/zone=zone-a"];
    site.cluster.kubectl(&zone)?;
    site.start_applier(POOL)?;

    let page = fs::read_to_string(programs::repository().join("docs/migration.md"))?;
    let folder = site.cluster.dir().join("commands");
    fs::create_dir_all(&folder)?;
    symlink(site.cluster.kubectl_program(), folder.join("kubectl"))?;
    symlink(programs::command_line()?, folder.join("kubectl-rulecast"))?;
    only_labelled_nodes(site, &page, &folder)?;
    let commands = commands(&page);
    ensure!(commands.len() >= 15, "the page has {} commands: {commands:#?}", commands.len());
    for command in commands {
        let output = run(site, &folder, &command)?;
        println!("  {command}\n    {}", output.trim().replace('\n', "\n    "));
    }
    Ok(())
}

/// The kustomization of the page lets the applier run on nodes with the label only.
fn only_labelled_nodes(site: &Site, page: &str, folder: &Path) -> anyhow::Result<()> {
    let block = page.split("    # kustomization.yaml\n").nth(1).context("the page has a kustomization")?;
    let text: Vec<_> = block.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let overlay = folder.join("overlay");
    fs::create_dir_all(&overlay)?;
    symlink(programs::repository().join("manifests"), folder.join("manifests"))?;
    fs::write(overlay.join("kustomization.yaml"), text.join("\n"))?;
    let args = ["apply", "--server-side", "--force-conflicts", "-k", &overlay.display().to_string()];
    site.cluster.kubectl(&args)?;
    let set: Value = site.cluster.get("/apis/apps/v1/namespaces/rulecast-system/daemonsets/rulecast-node")?;
    let selector = &set["spec"]["template"]["spec"]["nodeSelector"];
    let wanted = json!({ "kubernetes.io/os": "linux", "rulecast.dev/pool": "default" });
    ensure!(*selector == wanted, "{selector}");
    Ok(())
}

/// Lines of blocks and cells of tables that are commands of kubectl.
fn commands(page: &str) -> Vec<String> {
    let in_line = |line: &str| -> Vec<String> {
        if let Some(line) = line.strip_prefix("    ") {
            return vec![line.split(" # ").next().unwrap_or_default().trim().to_owned()];
        }
        let cells = line.starts_with('|').then(|| line.split('`').skip(1).step_by(2).map(str::to_owned));
        cells.into_iter().flatten().collect()
    };
    let all = page.lines().flat_map(in_line).filter(|command| command.starts_with("kubectl "));
    all.filter(|command| !NEED_PODS.iter().any(|words| command.starts_with(words))).collect()
}

/// Runs a line as a shell would, where kubectl and its plugin are.
fn run(site: &Site, folder: &Path, line: &str) -> anyhow::Result<String> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let path = std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
    let output = site.network().hub.run(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(folder).env("PATH", path);
        shell.env("KUBECONFIG", site.cluster.control_plane.kubeconfig());
        shell.env("KUBECACHEDIR", folder.join("cache")).env("NO_PROXY", "*").env("no_proxy", "*");
        shell.output()
    })??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
    Ok(out)
}
