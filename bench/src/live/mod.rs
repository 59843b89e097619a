//! A real API server with a synthetic cluster in it, in a network namespace of its own, with everything that rulecast
//! installs; and what changes that cluster.
//!
//! Loading 10,000 Services takes minutes, so etcd's folder is kept below the cache folder (`$RULECAST_CACHE`, or
//! `~/.cache/rulecast`), and later starts begin with a copy of it.

mod api;
mod churn;
mod counted;
pub mod cpu;
mod load;
mod snapshot;

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::Method;
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::kubectl::Kubectl;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use serde_json::json;
use tempfile::TempDir;

pub use self::api::{Api, Ask, Connection, Protocol};
pub use self::churn::{Change, Churn, Run};
pub use self::counted::Traffic;
use crate::cluster::{Cluster, Size};
use crate::objects;
use crate::progress::Progress;

/// Where rulecast's programs live in the cluster.
pub const SYSTEM: &str = "rulecast-system";

/// A running API server with a cluster in it. Its parts end in the order of the fields.
pub struct Live {
    /// etcd and the API server.
    pub control_plane: ControlPlane,
    /// The namespace that they run in.
    pub hub: Namespace,
    kubectl: Kubectl,
    api: Api,
    admin: String,
    cluster: Cluster,
    size: Size,
    dir: TempDir,
}

impl Live {
    /// Starts an API server in `hub` at an address that the namespace has, with a cluster of this size and with rulecast's
    /// manifests and a RulePool `default`. Nothing of rulecast runs yet. The first time at a size takes minutes.
    pub fn start(hub: Namespace, address: Ipv4Addr, size: Size, progress: &mut Progress) -> Result<Self> {
        let cluster = Cluster::new(size)?;
        let peers = control_plane::peers()?;
        progress.step("an API server");
        let folder = snapshot::folder(&hub, address, &cluster, size, progress)?;
        progress.step(&format!("an API server with {} MB of data", snapshot::megabytes(&folder)?));
        let dir = tempfile::Builder::new().prefix("rulecast-bench-").tempdir()?;
        let running = dir.path().join("control-plane");
        let control_plane = ControlPlane::start_with(&hub, &running, address, Some(&folder), &flags())?;
        let kubectl = Kubectl::new(&peers.join("kubectl"), &control_plane.kubeconfig(), dir.path());
        let api = Api::new(control_plane.address()?, &control_plane.authority())?;
        let admin = control_plane.token()?;
        let this = Self { control_plane, hub, kubectl, api, admin, cluster, size, dir };
        progress.step("rulecast's manifests");
        this.install().inspect_err(|_| eprintln!("{}", this.control_plane.log_tails()))?;
        Ok(this)
    }

    fn install(&self) -> Result<()> {
        self.kubectl.apply_folder(&self.hub, &programs::repository().join("manifests"))?;
        let established = ["wait", "--for", "condition=Established", "--timeout", "60s", "crd", "--all"];
        self.kubectl.run(&self.hub, &established, "")?;
        self.kubectl.apply(&self.hub, &[objects::pool()])
    }

    /// The cluster in it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How to reach it, from its namespace: see [`Live::run`].
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The administrator's bearer token.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// A folder that lasts as long as this value.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The real kubectl, as administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(&self.hub, args, "")
    }

    /// Applies objects as administrator.
    pub fn apply(&self, objects: &[serde_json::Value]) -> Result<()> {
        self.kubectl.apply(&self.hub, objects)
    }

    /// The API server's process.
    pub fn pid(&self) -> Result<u32> {
        self.control_plane.pid("kube-apiserver")
    }

    /// Does something on a runtime whose threads are in the namespace. Its connections end with it.
    pub fn run<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
        run_in(&self.hub, work)?
    }

    /// Changes of endpoints; for use within [`Live::run`]. Only one of these may be made, since it knows what it changed.
    pub async fn churn(&self) -> Result<Churn> {
        Churn::new(&self.api, &self.admin, self.cluster, self.size).await
    }

    /// Creates Nodes that the cluster does not have, if this range goes beyond it, and a pod for the applier of each node,
    /// so that tokens can name the nodes. For use within [`Live::run`], once a node.
    pub async fn add_appliers(&self, nodes: Range<u32>, progress: &mut Progress) -> Result<()> {
        let make = |n: u32| {
            let n = nodes.start + n;
            let node = (n >= self.cluster.nodes()).then(|| load::node(&self.cluster, n));
            node.into_iter().chain([load::applier_pod(&self.cluster, n, SYSTEM, APPLIER)]).collect()
        };
        let count = u32::try_from(nodes.len())?;
        load::create(&self.api, &self.admin, count, "appliers' pods", make, progress).await
    }

    /// A token of the applier on a node, as the kubelet would get it. [`Live::add_appliers`] comes first.
    pub async fn applier_token(&self, connection: &mut Connection, node: u32) -> Result<String> {
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": self.cluster.node_name(node) });
        let spec = json!({ "expirationSeconds": 86_400, "boundObjectRef": bound });
        token(connection, SYSTEM, APPLIER, &spec).await
    }

    /// A kubeconfig for who has this token.
    pub fn kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let admin = fs::read_to_string(self.control_plane.kubeconfig())?;
        let path = self.dir.path().join(format!("{name}.kubeconfig"));
        fs::write(&path, admin.replace(&self.admin, token))?;
        Ok(path)
    }

    /// The real controller, with the rights that the manifests give it and with its Lease, as the Deployment runs it. It
    /// does not run yet.
    pub fn controller(&self) -> Result<Process> {
        let token = self.run(async || {
            let mut connection = self.api.connect(Protocol::Http1, &self.admin).await?;
            token(&mut connection, SYSTEM, CONTROLLER, &json!({ "expirationSeconds": 86_400 })).await
        })?;
        let kubeconfig = self.kubeconfig("controller", &token)?.display().to_string();
        let args = ["run", "--kubeconfig", &kubeconfig, "--lease-namespace", SYSTEM, "--identity", "bench"];
        let log = self.dir.path().join("controller.log");
        Ok(Process::new("the controller", &programs::folder()?.join(CONTROLLER), &args, &log))
    }
}

/// Asks for a service account's token.
async fn token(
    connection: &mut Connection,
    namespace: &str,
    account: &str,
    spec: &serde_json::Value,
) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
    let answer = connection.json(Method::POST, &path, Some(&request)).await?;
    Ok(answer["status"]["token"].as_str().context("an answer without token")?.to_owned())
}

/// What the API server needs for clusters of this kind.
fn flags() -> [&'static str; 4] {
    ["--service-cluster-ip-range", objects::SERVICE_CIDR, "--service-node-port-range", load::NODE_PORT_RANGE]
}

fn run_in<T: Send>(hub: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> Result<T> {
    // Threads are in the namespace of the thread that makes them.
    hub.run(|| -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(work());
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(result)
    })?
}
