//! From the real kube-proxy in IPVS mode to rulecast's, as `docs/ipvs.md` says it is done.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use rulecast_compiler::model::Service;
use rulecast_node::backend::Backend as _;
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::kube_proxy;
use rulecast_tests::kubectl::Kubectl;
use rulecast_tests::network::POD_CIDRS;
use rulecast_tests::objects;
use rulecast_tests::process::Process;
use rulecast_tests::programs::repository;
use rulecast_tests::serve::{KEEP, PORTS};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::keeping::connecting_during;
use crate::schedulers::Kept;
use crate::world::{NODE_PORT, VIP, VIP6, World, at, ip, service, tcp};

/// The Service whose endpoints keep connections.
const KEPT: [&str; 2] = ["10.96.0.11", "fd00:96::11"];
const KEPT_NODE_PORT: u16 = 30_081;
/// A chain of kubelet's.
const KUBELETS: &str = "KUBE-IPTABLES-HINT";
const ENDPOINTS: [&str; 2] = ["a1", "b1"];

/// The hand-over takes seconds; a client that waits again and again makes fewer.
const ENOUGH: usize = 200;

fn object(name: &str, ips: [&str; 2], node_port: u16) -> Value {
    let port = |name: &str, protocol| json!({ "name": name, "protocol": protocol, "port": 80, "nodePort": node_port });
    let more =
        json!({ "clusterIP": ips[0], "clusterIPs": ips, "ports": [port("tcp", "TCP"), port("udp", "UDP")] });
    objects::service(name, "NodePort", &more)
}

/// kube-proxy with what it follows. Its parts end in the order of the fields.
struct Peer {
    process: Process,
    _control_plane: ControlPlane,
}

impl Peer {
    fn start(world: &World, dir: &Path) -> anyhow::Result<Self> {
        let (network, node) = (&world.network, &world.network.nodes[0]);
        let control_plane = ControlPlane::start(&network.hub, &dir.join("control-plane"))?;
        let kubeconfig = control_plane.kubeconfig();
        let kubectl = Kubectl::new(&control_plane::peers()?.join("kubectl"), &kubeconfig, dir);
        let mut all = vec![
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name } }),
            object("web", [VIP, VIP6], NODE_PORT),
            object("keep", KEPT, KEPT_NODE_PORT),
        ];
        let endpoints = ENDPOINTS.map(objects::ready);
        all.extend(objects::slices(network, "web", PORTS[0], &endpoints));
        all.extend(objects::slices(network, "keep", KEEP, &endpoints));
        kubectl.apply(&network.hub, &all)?;
        let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
        let status = json!({ "addresses": [address(node.v4), address(node.v6)] });
        kubectl.patch_status(&network.hub, &["node", &node.name], &status)?;

        let config = dir.join("kube-proxy.json");
        let conntrack = json!({
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        });
        let content = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "ipvs",
            "clientConnection": { "kubeconfig": kubeconfig }, "clusterCIDR": POD_CIDRS, "conntrack": conntrack,
        });
        fs::write(&config, content.to_string())?;
        let args = ["--config", &config.display().to_string(), "--hostname-override", &node.name];
        let program = kube_proxy::with_iptables("legacy", dir)?;
        let mut process = Process::new("kube-proxy", &program, &args, &dir.join("kube-proxy.log"));
        process.start(&node.namespace)?;
        let serves = || {
            for (addr, port) in [(ip(VIP), 80), (ip(VIP6), 80), (ip(KEPT[0]), 80), (node.v4, KEPT_NODE_PORT)]
            {
                tcp(world.pod("a2"), (addr, port).into())?.pod().or_else(|error| {
                    // Who keeps connections says nothing before it is asked.
                    Kept::open(world.pod("a2"), (addr, port).into()).map(|_| "").map_err(|_| error)
                })?;
            }
            Ok(())
        };
        wait_for("kube-proxy to serve", PATIENCE, serves).with_context(|| process.log_tail())?;
        Ok(Self { process, _control_plane: control_plane })
    }
}

/// The commands of the page that remove what kube-proxy left.
fn remove_leftovers(world: &World, path: &str) -> anyhow::Result<()> {
    let page = fs::read_to_string(repository().join("docs/ipvs.md"))?;
    let block = page.split("## From kube-proxy in IPVS mode").nth(1).context("the page says how")?;
    let lines: Vec<&str> = block
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    ensure!(lines.len() >= 3, "{lines:?}");
    let script = lines.join("\n");
    let output =
        world.node().run(|| Command::new("bash").args(["-ec", &script]).env("PATH", path).output())??;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn from_kube_proxy(world: &mut World) -> anyhow::Result<()> {
    let (node, backend) = (&world.network.nodes[0].namespace, &mut world.backend);
    node.run(|| backend.clean_up())??;
    let dir = tempfile::tempdir()?;
    world.node().output("iptables-legacy", &["-t", "mangle", "-N", KUBELETS])?;
    let mut peer = Peer::start(world, dir.path())?;
    // With the tools that kube-proxy used.
    let tools = format!("{}/iptables-legacy:{}", dir.path().display(), std::env::var("PATH")?);

    let node_port = (world.network.nodes[0].v4, KEPT_NODE_PORT);
    let mut kept = [
        Kept::open(world.pod("a2"), at(KEPT[0], 80))?,
        Kept::open(world.pod("a2"), at(KEPT[1], 80))?,
        Kept::open(world.node(), at(KEPT[0], 80))?,
        Kept::open(world.client(), node_port.into())?,
    ];
    let pods: Vec<String> = kept.iter().map(|kept| kept.pod.clone()).collect();
    let mut stay = |when: &str| -> anyhow::Result<()> {
        for (kept, pod) in kept.iter_mut().zip(&pods) {
            let now = kept.ask().with_context(|| format!("{when}: the connection to {pod}"))?;
            ensure!(now == *pod, "{when}: the connection to {pod} went to {now}");
        }
        Ok(())
    };
    let (made, slow) = connecting_during(world, |world, _| {
        peer.process.terminate()?;
        stay("kube-proxy has ended")?;
        let mut kept = service();
        kept.cluster_ips = KEPT.map(ip).to_vec();
        kept.ports.iter_mut().for_each(|port| port.node_port = Some(KEPT_NODE_PORT));
        for (name, service, port) in
            [("default/web", service(), PORTS[0]), ("default/keep", kept, KEEP)] as [(_, Service, _); 2]
        {
            world.set_service(name, Some(service));
            world.set_endpoints(name, &ENDPOINTS, port);
        }
        world.begin_anew()?;
        stay("rulecast has written its rules")?;
        remove_leftovers(world, &tools)?;
        stay("what kube-proxy left is gone")?;
        world.set_endpoints("default/web", &["b1"], PORTS[0]);
        world.apply()?;
        stay("an endpoint has gone")
    })?;
    println!("{made} connections meanwhile; {slow} took more than 900 ms");
    ensure!(made >= ENOUGH && slow <= made / 50, "{made} connections, {slow} of them slow");
    ensure!(world.tick()?.is_none(), "something is missing");
    let tables = ["iptables-legacy-save", "ip6tables-legacy-save"].map(|tool| (tool, &[][..]));
    for (tool, args) in tables.into_iter().chain([("ipset", &["list", "-n"][..]), ("ip", &["link"])]) {
        let text = world.node().output(tool, args)?.replace(KUBELETS, "");
        ensure!(!text.contains("KUBE-") && !text.contains("kube-ipvs0"), "{tool}: {text}");
    }
    let kubelets = world.node().output("iptables-legacy-save", &["-t", "mangle"])?;
    ensure!(kubelets.contains(KUBELETS), "{kubelets}");
    world.node().output("iptables-legacy", &["-t", "mangle", "-X", KUBELETS])?;
    let answer = tcp(world.pod("a2"), at(VIP, 80))?;
    ensure!(answer.pod()? == "b1", "{answer:?}");
    Ok(())
}
