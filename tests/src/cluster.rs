//! A whole cluster: control plane, manifests, controller and appliers, each with the rights that the manifests give it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control_plane::{self, ControlPlane};
use crate::http;
use crate::kubectl::Kubectl;
use crate::network::{Network, Node, POD_CIDRS};
use crate::objects::{self, Endpoint, NAMESPACE};
use crate::process::Process;
use crate::programs::{self, APPLIER, CONTROLLER};
use crate::wait::{PATIENCE, wait_for};

/// Where the programs live.
pub const SYSTEM: &str = "rulecast-system";
/// The pool.
pub const POOL: &str = "default";
/// Longer than the publish interval.
const QUIET: Duration = Duration::from_millis(1200);
const GROUP: &str = "/apis/rulecast.dev/v1alpha1";
/// Where the controller tells its health, in the switch's namespace.
const CONTROLLER_BIND: &str = "127.0.0.1:10266";
const SECOND_BIND: &str = "127.0.0.1:10267";

/// The cluster. Its parts end in the order of the fields.
pub struct Cluster {
    /// The appliers, in the order of the network's nodes.
    pub appliers: Vec<Process>,
    /// The controller.
    pub controller: Process,
    /// The API server.
    pub control_plane: ControlPlane,
    kubectl: Kubectl,
    /// The namespaces.
    pub network: Network,
    dir: TempDir,
}

/// What nodes watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The sequence.
    pub sequence: u64,
    /// The digest.
    pub digest: String,
    /// Of the object.
    pub resource_version: String,
}

impl Cluster {
    /// Starts everything and waits until both nodes run what is published. Takes some seconds.
    pub fn start(prefix: &str, pods: u8) -> anyhow::Result<Self> {
        crate::namespace::require(&["ip", "nft"])?;
        let programs = programs::folder()?;
        let peers = control_plane::peers()?;
        let network = Network::new(prefix, pods)?;
        let dir = tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir()?;
        let control_plane = ControlPlane::start(&network.hub, &dir.path().join("control-plane"))?;
        let kubectl = Kubectl::new(&peers.join("kubectl"), &control_plane.kubeconfig(), dir.path());
        let path = |name: &str| dir.path().join(name);
        let text = |name: &str| path(name).display().to_string();
        let controller = controller(programs, dir.path(), "first", CONTROLLER_BIND);
        let appliers = network.nodes.iter().map(|node| {
            let (config, state) =
                (text(&format!("{}.kubeconfig", node.name)), text(&format!("{}-state", node.name)));
            let args = ["run", "--kubeconfig", &config, "--state-dir", &state];
            // Reports of new versions come every 10 s otherwise, and the tests wait for them.
            let args = [&args[..], &["--hostname-override", &node.name, "--report-interval", "1"]].concat();
            let log = path(&format!("{}.log", node.name));
            Process::new(&format!("the applier of {}", node.name), &programs.join(APPLIER), &args, &log)
        });
        let appliers = appliers.collect();
        let mut this = Self { appliers, controller, control_plane, kubectl, network, dir };
        this.install().and_then(|()| this.recover()).inspect_err(|_| this.print_logs())?;
        Ok(this)
    }

    /// A second controller, which does not run yet.
    pub fn second_controller(&self) -> anyhow::Result<Process> {
        Ok(controller(programs::folder()?, self.dir.path(), "second", SECOND_BIND))
    }

    fn install(&self) -> anyhow::Result<()> {
        let manifests = programs::repository().join("manifests");
        let hub = &self.network.hub;
        self.kubectl.apply_folder(hub, &manifests)?;
        self.kubectl.run(
            hub,
            &["wait", "--for", "condition=Established", "--timeout", "60s", "crd", "--all"],
            "",
        )?;
        self.kubectl.apply_folder(hub, &manifests.join("samples"))?;
        self.apply(&[json!({
            "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL },
            "spec": { "clusterCIDR": POD_CIDRS },
        })])?;
        for node in &self.network.nodes {
            self.install_node(node)?;
        }
        let token = ["create", "token", CONTROLLER, "-n", SYSTEM, "--duration", "24h"];
        self.write_kubeconfig("controller", &self.kubectl(&token)?)
    }

    /// The node's objects and its applier's token, which names the node as a token of a pod on it does.
    fn install_node(&self, node: &Node) -> anyhow::Result<()> {
        let name = node.name.as_str();
        self.apply(&[
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
                "spec": { "podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs },
            }),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": SYSTEM },
                "spec": {
                    "serviceAccountName": APPLIER, "nodeName": name, "automountServiceAccountToken": false,
                    "containers": [{ "name": "applier", "image": "none" }],
                },
            }),
        ])?;
        let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
        let status = json!({ "addresses": [address(node.v4), address(node.v6)] });
        self.kubectl.patch_status(&self.network.hub, &["node", name], &status)?;
        let token = ["create", "token", APPLIER, "-n", SYSTEM, "--duration", "24h"];
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", name];
        self.write_kubeconfig(name, &self.kubectl(&[&token[..], &bound].concat())?)
    }

    /// The administrator's kubeconfig with another token in it.
    fn write_kubeconfig(&self, name: &str, token: &str) -> anyhow::Result<()> {
        let admin = fs::read_to_string(self.control_plane.kubeconfig())?;
        let start = admin.find("token: ").context("the administrator's kubeconfig has no token")? + 7;
        let end = start + admin[start..].find('}').context("a token ends somewhere")?;
        let text = format!("{}{}{}", &admin[..start], token.trim(), &admin[end..]);
        Ok(fs::write(self.dir.path().join(format!("{name}.kubeconfig")), text)?)
    }

    /// Starts what does not run and waits until both nodes run what is published.
    pub fn recover(&mut self) -> anyhow::Result<()> {
        self.control_plane.start_api_server(&self.network.hub)?;
        self.controller.start(&self.network.hub)?;
        self.controller.thaw()?;
        for (applier, node) in self.appliers.iter_mut().zip(&self.network.nodes) {
            applier.start(&node.namespace)?;
        }
        self.wait_until_in_force().map(drop)
    }

    /// Waits until the controller has published everything, and both nodes report just that and no problem.
    pub fn wait_until_in_force(&self) -> anyhow::Result<Head> {
        wait_for("both nodes to report what is published", PATIENCE, || {
            let earlier = self.head()?;
            // What changed right after a publication waits for the publish interval to end.
            std::thread::sleep(QUIET);
            let head = self.head()?;
            ensure!(head == earlier, "{earlier:?}, then {head:?}");
            for node in &self.network.nodes {
                let status = self.node_status(&node.name)?;
                let same = status["sequence"] == head.sequence && status["digest"] == head.digest.as_str();
                ensure!(same && status.get("error").is_none(), "{head:?}, {}: {status}", node.name);
            }
            Ok(head)
        })
    }

    /// The same, once something newer than `before` is published.
    pub fn wait_until_in_force_after(&self, before: &Head) -> anyhow::Result<Head> {
        wait_for("a publication", PATIENCE, || {
            let head = self.head()?;
            ensure!(head.sequence > before.sequence, "{head:?}");
            Ok(())
        })?;
        self.wait_until_in_force()
    }

    /// kubectl as administrator; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&self.network.hub, args, "")
    }

    /// kubectl with the token of one of the programs: `controller`, or a node's name.
    pub fn kubectl_as(&self, who: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
        let kubeconfig = self.dir.path().join(format!("{who}.kubeconfig"));
        self.kubectl.with(&kubeconfig).run(&self.network.hub, args, input)
    }

    /// `kubectl rulecast` as administrator; it must succeed.
    pub fn command_line(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.network.hub.run(|| {
            let mut command = Command::new(programs::command_line()?);
            command.args(args).env("KUBECONFIG", self.control_plane.kubeconfig()).stdin(Stdio::null());
            anyhow::Ok(command.env("NO_PROXY", "*").env("no_proxy", "*").output()?)
        })??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl rulecast {}: {}", args.join(" "), stderr.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The kubectl that is used.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        self.kubectl.program()
    }

    /// Where logs and data lie as long as the cluster does.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Applies objects as administrator.
    pub fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        self.kubectl.apply(&self.network.hub, objects)
    }

    /// kubectl as administrator, with input.
    pub fn kubectl_input(&self, args: &[&str], input: &Value) -> anyhow::Result<String> {
        self.kubectl.run(&self.network.hub, args, &input.to_string())
    }

    /// Reads an object by its path.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.kubectl.get(&self.network.hub, path)
    }

    /// Makes or changes a Service, and returns it as the API server has it now.
    pub fn set_service(&self, service: &Value) -> anyhow::Result<Service> {
        self.apply(std::slice::from_ref(service))?;
        let name = service["metadata"]["name"].as_str().context("a name")?;
        let object = self.get(&format!("/api/v1/namespaces/{NAMESPACE}/services/{name}"))?;
        Service::read(&object).with_context(|| object.to_string())
    }

    /// Makes or changes a Service's EndpointSlices, both families.
    pub fn set_endpoints(&self, service: &str, port: u16, endpoints: &[Endpoint<'_>]) -> anyhow::Result<()> {
        self.apply(&objects::slices(&self.network, service, port, endpoints))
    }

    /// Gives a Service the addresses that a cloud's load balancer would give it.
    pub fn set_ingress(&self, service: &str, addrs: &[IpAddr]) -> anyhow::Result<()> {
        let ingress: Vec<_> = addrs.iter().map(|a| json!({ "ip": a.to_string() })).collect();
        let status = json!({ "loadBalancer": { "ingress": ingress } });
        self.kubectl.patch_status(&self.network.hub, &["service", "-n", NAMESPACE, service], &status)
    }

    /// Removes a Service and its slices.
    pub fn delete_service(&self, service: &str) -> anyhow::Result<()> {
        let args = ["delete", "--ignore-not-found", "-n", NAMESPACE];
        self.kubectl(&[&args[..], &["service", service]].concat())?;
        let slices = ["v4", "v6"].map(|family| format!("{service}-{family}"));
        self.kubectl(&[&args[..], &["endpointslice", &slices[0], &slices[1]]].concat()).map(drop)
    }

    /// What is published.
    pub fn head(&self) -> anyhow::Result<Head> {
        self.head_of(POOL)
    }

    /// What is published for a pool.
    pub fn head_of(&self, pool: &str) -> anyhow::Result<Head> {
        let bundle = self.get(&format!("{GROUP}/rulebundles/{pool}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Head {
            sequence: bundle["spec"]["sequence"].as_u64().context("a sequence")?,
            digest: text(&bundle["spec"]["digest"]),
            resource_version: text(&bundle["metadata"]["resourceVersion"]),
        })
    }

    /// The RuleBundle.
    pub fn bundle(&self) -> anyhow::Result<Value> {
        self.get(&format!("{GROUP}/rulebundles/{POOL}"))
    }

    /// What a node reports.
    pub fn node_status(&self, node: &str) -> anyhow::Result<Value> {
        Ok(self.get(&format!("{GROUP}/rulenodes/{node}"))?["status"].take())
    }

    /// What the controller reports of a pool.
    pub fn pool_status(&self, pool: &str) -> anyhow::Result<Value> {
        Ok(self.get(&format!("{GROUP}/rulepools/{pool}"))?["status"].take())
    }

    /// Asks an applier: status code and body.
    pub fn ask_applier(&self, node: usize, path: &str) -> anyhow::Result<(u16, String)> {
        http::get(&self.network.nodes[node].namespace, SocketAddr::from(([127, 0, 0, 1], 10256)), path)
    }

    /// A number of an applier.
    pub fn applier_metric(&self, node: usize, name: &str) -> anyhow::Result<f64> {
        http::metric(&self.ask_applier(node, "/metrics")?.1, name)
    }

    /// Asks the controller: status code and body.
    pub fn ask_controller(&self, path: &str) -> anyhow::Result<(u16, String)> {
        http::get(&self.network.hub, CONTROLLER_BIND.parse()?, path)
    }

    /// Asks the second controller.
    pub fn ask_second_controller(&self, path: &str) -> anyhow::Result<(u16, String)> {
        http::get(&self.network.hub, SECOND_BIND.parse()?, path)
    }

    /// Waits until an applier answers.
    pub fn wait_for_applier(&self, node: usize) -> anyhow::Result<()> {
        wait_for("the applier to answer", Duration::from_secs(20), || {
            match self.ask_applier(node, "/healthz")? {
                (200, _) => Ok(()),
                (code, body) => Err(anyhow!("{code} {body}")),
            }
        })
    }

    /// Prints the ends of all logs, for a test that failed.
    pub fn print_logs(&self) {
        for process in self.appliers.iter().chain([&self.controller]) {
            println!("{}", process.log_tail());
        }
        println!("{}", self.control_plane.log_tails());
    }
}

fn controller(programs: &Path, dir: &Path, name: &str, bind: &str) -> Process {
    let kubeconfig = dir.join("controller.kubeconfig").display().to_string();
    let lease = ["--lease-namespace", SYSTEM, "--identity", name];
    let args = [&["run", "--kubeconfig", &kubeconfig, "--bind", bind], &lease[..]].concat();
    let log = dir.join(format!("controller-{name}.log"));
    Process::new(&format!("the {name} controller"), &programs.join(CONTROLLER), &args, &log)
}

/// A Service as the API server made it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its cluster IPs with port 80, IPv4 and IPv6.
    pub cluster: [SocketAddr; 2],
    /// The nodePort of its first port; 0 without.
    pub node_port: u16,
    /// The nodePort of its second port; 0 without.
    pub udp_node_port: u16,
}

impl Service {
    fn read(object: &Value) -> anyhow::Result<Self> {
        let spec = &object["spec"];
        let mut cluster = Vec::new();
        for ip in spec["clusterIPs"].as_array().context("cluster IPs")? {
            let ip: IpAddr = ip.as_str().unwrap_or_default().parse()?;
            let port = u16::try_from(spec["ports"][0]["port"].as_u64().context("a port")?)?;
            cluster.push(SocketAddr::new(ip, port));
        }
        cluster.sort_by_key(SocketAddr::is_ipv6);
        let Ok(cluster) = cluster.try_into() else { bail!("a Service of both families is wanted") };
        let node_port = |index: usize| spec["ports"][index]["nodePort"].as_u64().unwrap_or(0).try_into();
        Ok(Self { cluster, node_port: node_port(0)?, udp_node_port: node_port(1)? })
    }
}
