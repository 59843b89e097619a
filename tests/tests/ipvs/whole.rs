//! The programs themselves: manifests, a bundle on disk, the applier.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use rulecast_tests::network::POD_CIDRS;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};

use crate::world::{VIP, World, at, tcp};

pub(crate) fn manifests(world: &World, scheduler: &str) -> String {
    let node = &world.network.nodes[0];
    let (pod, addr) = (world.network.pod("b1").v4, node.v4);
    format!(
        "\
apiVersion: rulecast.dev/v1alpha1
kind: RulePool
metadata: {{ name: default }}
spec: {{ mode: ipvs, clusterCIDR: '{POD_CIDRS}', ipvs: {{ scheduler: {scheduler} }} }}
---
apiVersion: v1
kind: Node
metadata: {{ name: node-a }}
status: {{ addresses: [{{ type: InternalIP, address: {addr} }}] }}
---
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: shop }}
spec: {{ type: ClusterIP, clusterIP: {VIP}, clusterIPs: [{VIP}], ports: [{{ port: 80, protocol: TCP }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, namespace: shop, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports: [{{ name: '', port: 8080, protocol: TCP }}]
endpoints: [{{ addresses: ['{pod}'], nodeName: node-b, conditions: {{ ready: true }} }}]
"
    )
}

fn run(world: &World, program: &str, args: &[&str]) -> anyhow::Result<Output> {
    let mut command: Command = programs::command(program)?;
    Ok(world.node().run(|| command.args(args).output())??)
}

pub(crate) fn from_manifests_to_packets(world: &mut World) -> anyhow::Result<()> {
    let backend = &mut world.backend;
    world.network.nodes[0].namespace.run(|| rulecast_node::backend::Backend::clean_up(backend))??;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("manifests"))?;
    let apply = |scheduler: &str| -> anyhow::Result<Output> {
        fs::write(path("manifests") + "/all.yaml", manifests(world, scheduler))?;
        let (from, to) = (path("manifests"), path("bundles"));
        let compiled =
            run(world, CONTROLLER, &["run", "--manifests", &from, "--output", &to, "--once", "--strict"])?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let state = path("state");
        let args =
            ["run", "--bundle-dir", &to, "--state-dir", &state, "--hostname-override", "node-a", "--once"];
        run(world, APPLIER, &[&args[..], &["--healthz-bind-address", ""]].concat())
    };
    let applied = apply("lc")?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let answer = tcp(world.pod("a2"), at(VIP, 80))?;
    ensure!(answer.pod()? == "b1", "{answer:?}");
    let listed = world.node().output("ipvsadm", &["-Sn"])?;
    ensure!(listed.contains(&format!("-A -t {VIP}:80 -s lc")), "{listed}");

    // One that the kernel lacks is named, and what is there stays.
    let refused = apply("nosuch")?;
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && log.contains("ip_vs_nosuch"), "{log}");
    ensure!(world.node().output("ipvsadm", &["-Sn"])? == listed, "something changed");
    ensure!(tcp(world.pod("a2"), at(VIP, 80))?.pod()? == "b1", "it does not answer any more");

    let cleaned = run(world, APPLIER, &["cleanup"])?;
    let listed = world.node().output("ipvsadm", &["-Sn"])?;
    ensure!(listed.trim().is_empty(), "{listed}, {}", String::from_utf8_lossy(&cleaned.stderr));
    world.rebuild()?.context("for the other scenarios")?;
    Ok(())
}
