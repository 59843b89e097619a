//! A real API server; kube-proxy follows it in one world, rulecast's controller and appliers in the other.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::kubectl::Kubectl;
use rulecast_tests::namespace::{self, Namespace};
use rulecast_tests::objects::NAMESPACE;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::{Config, NFTABLES, POOL};
use crate::objects::{Kind, Objects};
use crate::world::World;

/// Where the API server listens. Every node has a second interface to it, which carries nothing else.
const API_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);

/// Its parts end in the order of the fields.
pub(crate) struct ApiServer {
    controller: Process,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    /// The namespace of control plane and controller.
    hub: Namespace,
    dir: TempDir,
}

impl ApiServer {
    /// Starts it, in a namespace of its own to which the nodes of both worlds have a way.
    pub(crate) fn start(peer: &mut World, ours: &mut World) -> anyhow::Result<Self> {
        let (programs, peers) = (programs::folder()?, control_plane::peers()?);
        namespace::remove_leftovers("rcd-hub")?;
        let hub = Namespace::new(&format!("rcd-hub-{}", std::process::id()))?;
        hub.ip("link add switch type bridge")?;
        hub.ip(&format!("addr add {API_SERVER}/24 dev switch"))?;
        hub.ip("link set switch up")?;
        hub.ip("-4 route add unreachable default")?;
        peer.join(&hub, 10)?;
        ours.join(&hub, 20)?;
        let dir = tempfile::Builder::new().prefix("rcd-").tempdir()?;
        let control_plane = ControlPlane::start_at(&hub, &dir.path().join("control-plane"), API_SERVER)?;
        let kubeconfig = control_plane.kubeconfig();
        let kubectl = Kubectl::new(&peers.join("kubectl"), &kubeconfig, dir.path());
        let kubeconfig = kubeconfig.display().to_string();

        // Few Services, of which a test may remove many.
        let args = ["run", "--kubeconfig", &kubeconfig, "--publish-interval", "100ms", "--allow-shrink"];
        let log = dir.path().join("controller.log");
        let controller = Process::new("the controller", &programs.join(CONTROLLER), &args, &log);
        for node in ["node-a", "node-b"] {
            let text = |name: &str| dir.path().join(format!("{node}-{name}")).display().to_string();
            let args = ["run", "--kubeconfig", &kubeconfig, "--state-dir", &text("state")];
            let args = [&args[..], &["--hostname-override", node, "--report-interval", "1"]].concat();
            let (name, log) = (format!("the applier of {node}"), text("applier.log"));
            ours.proxies.push(Process::new(&name, &programs.join(APPLIER), &args, Path::new(&log)));
            let config = dir.path().join("kube-proxy.json").display().to_string();
            let args = ["--config", &config, "--hostname-override", node];
            let (name, log) = (format!("kube-proxy of {node}"), text("kube-proxy.log"));
            peer.proxies.push(Process::new(&name, &peers.join("kube-proxy"), &args, Path::new(&log)));
        }
        let this = Self { controller, control_plane, kubectl, hub, dir };
        this.install(peer)?;
        Ok(this)
    }

    fn install(&self, world: &World) -> anyhow::Result<()> {
        self.kubectl.apply_folder(&self.hub, &programs::repository().join("crds/yaml"))?;
        let args = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd", "--all"];
        self.kubectl(&args)?;
        for (node, zone) in world.network.nodes.iter().zip(["zone-a", "zone-b"]) {
            let object = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": node.name, "labels": { "topology.kubernetes.io/zone": zone } },
                "spec": { "podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs },
            });
            self.kubectl.apply(&self.hub, &[object])?;
            let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
            let status = json!({ "addresses": [address(node.v4), address(node.v6)] });
            self.kubectl.patch_status(&self.hub, &["node", &node.name], &status)?;
        }
        Ok(())
    }

    /// kubectl; it must succeed.
    fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&self.hub, args, "")
    }
}

impl Objects for ApiServer {
    fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()> {
        self.kubectl.apply(&self.hub, objects)
    }

    fn set_statuses(&mut self, services: &[Value]) -> anyhow::Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": services }).to_string();
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=false",
            "--subresource=status",
            "-f",
            "-",
        ];
        self.kubectl.run(&self.hub, &args, &list).map(drop)
    }

    fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> anyhow::Result<()> {
        self.kubectl(&["patch", kind.word(), name, "--type=merge", "-p", &patch.to_string()]).map(drop)
    }

    fn delete(&mut self, kind: Kind, names: &[&str]) -> anyhow::Result<()> {
        let args = [&["delete", kind.word(), "--ignore-not-found", "--wait=false"], names].concat();
        self.kubectl(&args).map(drop)
    }

    fn delete_slices(&mut self, services: &[&str]) -> anyhow::Result<()> {
        let label = format!("kubernetes.io/service-name in ({})", services.join(","));
        self.kubectl(&["delete", "endpointslices", "--wait=false", "-l", &label]).map(drop)
    }

    fn services(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.kubectl(&["get", "services", "-n", NAMESPACE, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array_mut().context("a list")?;
        Ok(std::mem::take(items))
    }

    fn configure(
        &mut self,
        [peer, ours]: [&mut World; 2],
        before: &Config,
        config: &Config,
    ) -> anyhow::Result<()> {
        let peers = config.kube_proxy(&self.control_plane.kubeconfig()).to_string();
        let path = self.dir.path().join("kube-proxy.json");
        let is_same = fs::read_to_string(&path).is_ok_and(|before| before == peers);
        if !is_same {
            stop_peers(peer)?;
            fs::write(&path, &peers)?;
        }
        hint(ours, before.hint, config.hint)?;
        let pool = json!({
            "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL },
            "spec": config.pool(config.mode),
        });
        self.kubectl.apply(&self.hub, &[pool])?;
        for (process, node) in peer.proxies.iter_mut().zip(&peer.network.nodes) {
            if !process.is_running()? {
                start_peer(process, &node.namespace, config.peer_mode)?;
            }
        }
        self.controller.start(&self.hub)?;
        for (applier, node) in ours.proxies.iter_mut().zip(&ours.network.nodes) {
            applier.start(&node.namespace)?;
        }
        Ok(())
    }

    fn processes(&self) -> Vec<&Process> {
        vec![&self.controller]
    }

    fn log_tails(&self) -> String {
        self.control_plane.log_tails()
    }
}

fn stop_peers(peer: &mut World) -> anyhow::Result<()> {
    for (process, node) in peer.proxies.iter_mut().zip(&peer.network.nodes) {
        if process.is_running()? {
            process.terminate()?;
            node.namespace.output("nft", &["flush", "ruleset"])?;
        }
    }
    Ok(())
}

/// Starts a kube-proxy until it knows the Service range and its zone. It writes the rule for the range in its first sync only,
/// for which the ServiceCIDRs may come too late, and does not hear of the zone if its Node comes too early.
fn start_peer(process: &mut Process, node: &Namespace, mode: &str) -> anyhow::Result<()> {
    for _ in 0..20 {
        let mark = process.log_mark();
        process.start(node)?;
        let ranges = mode != NFTABLES || (knows_range(node, "ip")? && knows_range(node, "ip6")?);
        // One for each family.
        let zone = || match process.log_since(mark).matches(KNOWS_ZONE).count() {
            2.. => Ok(()),
            count => Err(anyhow::anyhow!("{count} families know the zone")),
        };
        if ranges && wait_for("kube-proxy to know its zone", Duration::from_secs(3), zone).is_ok() {
            return Ok(());
        }
        process.terminate()?;
        // Its rules would pass for those of the next one.
        node.output("nft", &["flush", "ruleset"])?;
    }
    anyhow::bail!("kube-proxy never knows both the Service range and its zone")
}

const KNOWS_ZONE: &str = "Updated proxier node topology labels";

fn knows_range(node: &Namespace, family: &str) -> anyhow::Result<bool> {
    let args = ["list", "chain", family, "kube-proxy", "cluster-ips-check"];
    // There is a rule that refuses once the chain is complete.
    wait_for("kube-proxy's first sync", PATIENCE, || match node.output("nft", &args)? {
        text if text.contains("reject") => Ok(text.contains("drop")),
        text => Err(anyhow::anyhow!("{text}")),
    })
}

/// Gives rulecast's nodes kubelet's chains in another variant of iptables, and their appliers a new start: like kube-proxy
/// they look for them once.
fn hint(ours: &mut World, before: Option<&str>, now: Option<&str>) -> anyhow::Result<()> {
    if before == now {
        return Ok(());
    }
    for (applier, node) in ours.proxies.iter_mut().zip(&ours.network.nodes) {
        let chain = |variant: &str, verb: &str| {
            let args = ["-w", "-t", "mangle", verb, "KUBE-IPTABLES-HINT"];
            node.namespace.output(&format!("iptables-{variant}"), &args)
        };
        applier.terminate()?;
        before.map(|before| chain(before, "-X")).transpose()?;
        now.map(|now| chain(now, "-N")).transpose()?;
        applier.start(&node.namespace)?;
    }
    Ok(())
}
