//! Two worlds of the same addresses: in one each node runs kube-proxy, in the other rulecast's applier. One API server,
//! in a namespace of its own, serves both, so that both see the same objects.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::kube_proxy;
use rulecast_tests::kubectl::Kubectl;
use rulecast_tests::namespace::{self, Namespace};
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;
use tempfile::TempDir;

use crate::config::{Config, IPVS, NFTABLES, POOL};
use crate::world::World;

/// Where the API server listens. Every node has a second interface to it, which carries nothing else.
const API_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);
/// Sockets at once, of all probes and servers.
const FILES: u64 = 20_000;

/// Both. Its parts end in the order of the fields.
pub(crate) struct Worlds {
    /// That of kube-proxy.
    pub(crate) peer: World,
    /// That of rulecast.
    pub(crate) ours: World,
    controller: Process,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    /// The namespace of control plane and controller.
    pub(crate) hub: Namespace,
    /// What is in force.
    pub(crate) config: Config,
    /// What [`Worlds::clear`] goes back to.
    pub(crate) base: Config,
    /// Whether the fixtures are there.
    pub(crate) fixtures: bool,
    /// How often [`Worlds::settle`] has been called.
    pub(crate) settled: u16,
    dir: TempDir,
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
        clean(node, mode)?;
    }
    anyhow::bail!("kube-proxy never knows both the Service range and its zone")
}

/// Removes all rules of a node.
fn clean(node: &Namespace, mode: &str) -> anyhow::Result<()> {
    if mode != IPVS {
        return node.output("nft", &["flush", "ruleset"]).map(drop);
    }
    node.output("ipvsadm", &["--clear"])?;
    for (tool, table) in
        ["iptables", "ip6tables"].into_iter().flat_map(|f| ["mangle", "nat", "filter"].map(|t| (f, t)))
    {
        let tool = format!("{tool}-legacy");
        node.output(&tool, &["-w", "-t", table, "-F"])?;
        node.output(&tool, &["-w", "-t", table, "-X"])?;
    }
    node.output("ipset", &["destroy"])?;
    // It may not have been there yet.
    let _missing = node.ip("link del kube-ipvs0");
    Ok(())
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

impl Worlds {
    /// Starts everything, with this configuration.
    pub(crate) fn start(config: Config) -> anyhow::Result<Self> {
        namespace::require(&["ip", "nft", "iptables", "iptables-legacy", "iptables-nft"])?;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, FILES.min(most), most)
            .context("raising the limit of open files")?;
        let programs = programs::folder()?;
        let peers = control_plane::peers()?;
        namespace::remove_leftovers("rcd-hub")?;
        let hub = Namespace::new(&format!("rcd-hub-{}", std::process::id()))?;
        hub.ip("link add switch type bridge")?;
        hub.ip(&format!("addr add {API_SERVER}/24 dev switch"))?;
        hub.ip("link set switch up")?;
        hub.ip("-4 route add unreachable default")?;
        let mut peer = World::new("rcd-peer", "kube-proxy", &hub, 10)?;
        let mut ours = World::new("rcd-ours", "rulecast", &hub, 20)?;
        let dir = tempfile::Builder::new().prefix("rcd-").tempdir()?;
        let control_plane = ControlPlane::start_at(&hub, &dir.path().join("control-plane"), API_SERVER)?;
        let kubeconfig = control_plane.kubeconfig();
        let kubectl = Kubectl::new(&peers.join("kubectl"), &kubeconfig, dir.path());
        let kubeconfig = kubeconfig.display().to_string();

        // Few Services, of which a test may remove many.
        let args = ["run", "--kubeconfig", &kubeconfig, "--publish-interval", "100ms", "--allow-shrink"];
        let log = dir.path().join("controller.log");
        let controller = Process::new("the controller", &programs.join(CONTROLLER), &args, &log);
        // User-mode Linux has the older iptables only.
        let kube_proxy = match config.mode {
            IPVS => kube_proxy::with_iptables("legacy", dir.path())?,
            _ => peers.join("kube-proxy"),
        };
        for node in ["node-a", "node-b"] {
            let text = |name: &str| dir.path().join(format!("{node}-{name}")).display().to_string();
            let args = ["run", "--kubeconfig", &kubeconfig, "--state-dir", &text("state")];
            let args = [&args[..], &["--hostname-override", node, "--report-interval", "1"]].concat();
            let name = format!("the applier of {node}");
            ours.proxies.push(Process::new(
                &name,
                &programs.join(APPLIER),
                &args,
                Path::new(&text("applier.log")),
            ));
            let config = dir.path().join("kube-proxy.json").display().to_string();
            let args = ["--config", &config, "--hostname-override", node];
            let name = format!("kube-proxy of {node}");
            let log = text("kube-proxy.log");
            peer.proxies.push(Process::new(&name, &kube_proxy, &args, Path::new(&log)));
        }
        let base = config.clone();
        let mut this = Self {
            peer,
            ours,
            controller,
            control_plane,
            kubectl,
            hub,
            config,
            base,
            fixtures: false,
            settled: 0,
            dir,
        };
        // What is timed later begins when everything is up.
        this.install().and_then(|()| this.settle()).inspect_err(|_| this.print_logs())?;
        Ok(this)
    }

    fn install(&mut self) -> anyhow::Result<()> {
        self.kubectl.apply_folder(&self.hub, &programs::repository().join("crds/yaml"))?;
        let args = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd", "--all"];
        self.kubectl(&args)?;
        for (node, zone) in self.peer.network.nodes.iter().zip(["zone-a", "zone-b"]) {
            self.apply(&[json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": node.name, "labels": { "topology.kubernetes.io/zone": zone } },
                "spec": { "podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs },
            })])?;
            let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
            let status = json!({ "addresses": [address(node.v4), address(node.v6)] });
            self.kubectl.patch_status(&self.hub, &["node", &node.name], &status)?;
        }
        self.configure(self.config.clone())?;
        self.controller.start(&self.hub)?;
        for (applier, node) in self.ours.proxies.iter_mut().zip(&self.ours.network.nodes) {
            applier.start(&node.namespace)?;
        }
        Ok(())
    }

    /// Gives both worlds another configuration.
    pub(crate) fn configure(&mut self, config: Config) -> anyhow::Result<()> {
        let kubeconfig = self.control_plane.kubeconfig();
        let peers = config.kube_proxy(&kubeconfig).to_string();
        let path = self.dir.path().join("kube-proxy.json");
        let is_same = fs::read_to_string(&path).is_ok_and(|before| before == peers);
        if !is_same {
            self.stop_peers()?;
            fs::write(&path, &peers)?;
        }
        self.hint(config.hint)?;
        let pool = json!({
            "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL },
            "spec": config.pool(),
        });
        self.apply(&[pool])?;
        for (process, node) in self.peer.proxies.iter_mut().zip(&self.peer.network.nodes) {
            if !process.is_running()? {
                start_peer(process, &node.namespace, config.peer_mode)?;
            }
        }
        self.config = config;
        Ok(())
    }

    fn stop_peers(&mut self) -> anyhow::Result<()> {
        for (process, node) in self.peer.proxies.iter_mut().zip(&self.peer.network.nodes) {
            if process.is_running()? {
                process.terminate()?;
                clean(&node.namespace, self.config.peer_mode)?;
            }
        }
        Ok(())
    }

    /// Gives rulecast's nodes kubelet's chains in another variant of iptables, and their appliers a new start: like kube-proxy
    /// they look for them once.
    fn hint(&mut self, variant: Option<&str>) -> anyhow::Result<()> {
        if self.config.hint == variant {
            return Ok(());
        }
        for (applier, node) in self.ours.proxies.iter_mut().zip(&self.ours.network.nodes) {
            let chain = |variant: &str, verb: &str| {
                let args = ["-w", "-t", "mangle", verb, "KUBE-IPTABLES-HINT"];
                node.namespace.output(&format!("iptables-{variant}"), &args)
            };
            applier.terminate()?;
            self.config.hint.map(|before| chain(before, "-X")).transpose()?;
            variant.map(|now| chain(now, "-N")).transpose()?;
            applier.start(&node.namespace)?;
        }
        Ok(())
    }

    /// kubectl; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&self.hub, args, "")
    }

    /// kubectl with input.
    pub(crate) fn kubectl_input(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        self.kubectl.run(&self.hub, args, input)
    }

    /// Applies objects.
    pub(crate) fn apply(&self, objects: &[serde_json::Value]) -> anyhow::Result<()> {
        self.kubectl.apply(&self.hub, objects)
    }

    /// Both worlds, kube-proxy's first.
    pub(crate) fn both(&self) -> [&World; 2] {
        [&self.peer, &self.ours]
    }

    /// Prints what the proxies complained about.
    pub(crate) fn print_complaints(&self) {
        for process in self.peer.proxies.iter().chain(&self.ours.proxies).chain([&self.controller]) {
            let log = process.log();
            let is_complaint =
                |line: &&str| line.starts_with('E') || line.contains(" WARN ") || line.contains(" ERROR ");
            let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
            for line in &complaints[complaints.len().saturating_sub(5)..] {
                println!("{}: {line}", process.name());
            }
        }
    }

    /// Prints the ends of all logs.
    pub(crate) fn print_logs(&self) {
        for process in self.peer.proxies.iter().chain(&self.ours.proxies).chain([&self.controller]) {
            println!("{}", process.log_tail());
        }
        println!("{}", self.control_plane.log_tails());
    }
}
