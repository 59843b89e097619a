//! Folders of manifests instead of an API server, for kernels in which that would take minutes: rulecast in both worlds, in
//! different modes. What the API server would allocate is allocated here.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rulecast_tests::process::Process;
use rulecast_tests::programs::{self, APPLIER, CONTROLLER};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::{Config, POOL};
use crate::objects::{Kind, Objects};
use crate::world::World;

/// What is allocated begins here; the fixtures' own are elsewhere.
const NODE_PORTS: u16 = 31_500;
const HEALTH_CHECK_NODE_PORTS: u16 = 32_000;
const CLUSTER_IPS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 96, 1, 0), Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x100));

/// Its parts end in the order of the fields.
pub(crate) struct Manifests {
    controllers: Vec<Process>,
    objects: BTreeMap<(Kind, String), Value>,
    allocated: u16,
    dir: TempDir,
}

impl Manifests {
    /// Two controllers, which run where the networks' switches are; and an applier for each node.
    pub(crate) fn start(peer: &mut World, ours: &mut World) -> anyhow::Result<Self> {
        let programs = programs::folder()?;
        let dir = tempfile::Builder::new().prefix("rcd-").tempdir()?;
        let mut controllers = Vec::new();
        for (world, name) in [(&mut *peer, "peer"), (&mut *ours, "ours")] {
            let text = |end: &str| dir.path().join(format!("{name}-{end}")).display().to_string();
            let (manifests, bundles) = (text("manifests"), text("bundles"));
            fs::create_dir(&manifests)?;
            fs::create_dir(&bundles)?;
            let args = ["run", "--manifests", &manifests, "--output", &bundles];
            let args = [&args[..], &["--publish-interval", "100ms", "--allow-shrink"]].concat();
            let (label, log) = (format!("the controller of {}", world.proxy), text("controller.log"));
            controllers.push(Process::new(&label, &programs.join(CONTROLLER), &args, Path::new(&log)));
            for node in ["node-a", "node-b"] {
                let (state, log) = (text(&format!("{node}-state")), text(&format!("{node}.log")));
                let args = ["run", "--bundle-dir", &bundles, "--state-dir", &state];
                let args = [&args[..], &["--hostname-override", node]].concat();
                let label = format!("the applier of {node}, {}", world.proxy);
                world.proxies.push(Process::new(&label, &programs.join(APPLIER), &args, Path::new(&log)));
            }
        }
        let mut objects = BTreeMap::new();
        for (node, zone) in peer.network.nodes.iter().zip(["zone-a", "zone-b"]) {
            let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip.to_string() });
            let object = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": node.name, "labels": { "topology.kubernetes.io/zone": zone } },
                "spec": { "podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs },
                "status": { "addresses": [address(node.v4), address(node.v6)] },
            });
            objects.insert((Kind::Node, node.name.clone()), object);
        }
        Ok(Self { controllers, objects, allocated: 0, dir })
    }

    /// A file of a world's manifests.
    fn file(&self, world: &str, name: &str) -> PathBuf {
        self.dir.path().join(format!("{world}-manifests")).join(name)
    }

    /// Both worlds' controllers see all of it at once, or nothing.
    fn write(&self) -> anyhow::Result<()> {
        let texts: Vec<String> = self.objects.values().map(Value::to_string).collect();
        for world in ["peer", "ours"] {
            put(&self.file(world, "objects.yaml"), &texts.join("\n---\n"))?;
        }
        Ok(())
    }

    fn next(&mut self) -> u16 {
        self.allocated += 1;
        self.allocated
    }

    /// What the API server gives a Service that asks for it.
    fn allocate(&mut self, service: &mut Value) {
        let spec = &mut service["spec"];
        let kind = spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
        if kind == "ExternalName" {
            return;
        }
        if spec["clusterIPs"].is_null() && spec["clusterIP"] != "None" {
            let number = self.next();
            let v4 = Ipv4Addr::from_bits(CLUSTER_IPS.0.to_bits() + u32::from(number)).to_string();
            let v6 = Ipv6Addr::from_bits(CLUSTER_IPS.1.to_bits() + u128::from(number)).to_string();
            let ips = match spec["ipFamilies"][0].as_str() {
                Some("IPv4") => vec![v4],
                Some(_) => vec![v6],
                None => vec![v4, v6],
            };
            spec["clusterIP"] = ips[0].as_str().into();
            spec["clusterIPs"] = ips.into();
        }
        let wants = kind == "NodePort"
            || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != Value::Bool(false));
        // The same for both protocols of a port, as fixtures have it.
        let mut of_port = BTreeMap::<u64, u16>::new();
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if wants && port["nodePort"].is_null() {
                let number = port["port"].as_u64().unwrap_or(0);
                let allocated = &mut self.allocated;
                let node_port = *of_port.entry(number).or_insert_with(|| {
                    *allocated += 1;
                    NODE_PORTS + *allocated
                });
                port["nodePort"] = node_port.into();
            } else if !wants && let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
        let health = kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
        if health && spec["healthCheckNodePort"].is_null() {
            let number = self.next();
            service["spec"]["healthCheckNodePort"] = (HEALTH_CHECK_NODE_PORTS + number).into();
        }
    }
}

/// In one step, so that nobody reads half of it.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path).with_context(|| path.display().to_string())
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("made one above").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn key(object: &Value) -> anyhow::Result<(Kind, String)> {
    let kind = match object["kind"].as_str() {
        Some("Service") => Kind::Service,
        Some("EndpointSlice") => Kind::EndpointSlice,
        other => anyhow::bail!("{other:?} is no kind that a test writes"),
    };
    Ok((kind, object["metadata"]["name"].as_str().context("a name")?.to_owned()))
}

impl Objects for Manifests {
    fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            let key = key(object)?;
            let mut object = object.clone();
            if key.0 == Kind::Service {
                if let Some(before) = self.objects.get(&key) {
                    object["status"] = before["status"].clone();
                    for field in ["clusterIP", "clusterIPs"] {
                        if object["spec"][field].is_null() && object["spec"]["type"] != "ExternalName" {
                            object["spec"][field] = before["spec"][field].clone();
                        }
                    }
                }
                self.allocate(&mut object);
            }
            self.objects.insert(key, object);
        }
        self.write()
    }

    fn set_statuses(&mut self, services: &[Value]) -> anyhow::Result<()> {
        for service in services {
            let object = self.objects.get_mut(&key(service)?).context("a Service")?;
            object["status"] = service["status"].clone();
        }
        self.write()
    }

    fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> anyhow::Result<()> {
        let key = (kind, name.to_owned());
        let mut object = self.objects.get(&key).with_context(|| format!("no {name}"))?.clone();
        merge(&mut object, patch);
        if kind == Kind::Service {
            self.allocate(&mut object);
        }
        self.objects.insert(key, object);
        self.write()
    }

    fn delete(&mut self, kind: Kind, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.objects.remove(&(kind, (*name).to_owned()));
        }
        self.write()
    }

    fn delete_slices(&mut self, services: &[&str]) -> anyhow::Result<()> {
        let is_its = |object: &Value| {
            let of = object["metadata"]["labels"]["kubernetes.io/service-name"].as_str();
            of.is_some_and(|of| services.contains(&of))
        };
        self.objects.retain(|(kind, _), object| *kind != Kind::EndpointSlice || !is_its(object));
        self.write()
    }

    fn services(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.objects.iter().filter(|((kind, _), _)| *kind == Kind::Service);
        Ok(all.map(|(_, object)| object.clone()).collect())
    }

    fn configure(
        &mut self,
        worlds: [&mut World; 2],
        _before: &Config,
        config: &Config,
    ) -> anyhow::Result<()> {
        self.write()?;
        for (name, mode) in [("peer", config.peer_mode), ("ours", config.mode)] {
            let pool = json!({
                "apiVersion": "rulecast.dev/v1alpha1", "kind": "RulePool", "metadata": { "name": POOL },
                "spec": config.pool(mode),
            });
            put(&self.file(name, "pool.yaml"), &pool.to_string())?;
        }
        for (world, controller) in worlds.into_iter().zip(&mut self.controllers) {
            controller.start(&world.network.hub)?;
            for (applier, node) in world.proxies.iter_mut().zip(&world.network.nodes) {
                applier.start(&node.namespace)?;
            }
        }
        Ok(())
    }

    fn processes(&self) -> Vec<&Process> {
        self.controllers.iter().collect()
    }

    fn log_tails(&self) -> String {
        String::new()
    }
}
