//! Two worlds of the same addresses: what serves Services differs, and the objects are the same.

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rulecast_tests::namespace;
use rulecast_tests::process::Process;
use serde_json::Value;

use crate::api_server::ApiServer;
use crate::config::Config;
use crate::manifests::Manifests;
use crate::objects::{Kind, Objects};
use crate::world::World;

/// Sockets at once, of all probes and servers.
const FILES: u64 = 20_000;

/// The peer that rulecast is held against outside of user-mode Linux.
pub(crate) const KUBE_PROXY: &str = "kube-proxy";

/// Both. Its parts end in the order of the fields.
pub(crate) struct Worlds {
    /// That of the proxy to compare with.
    pub(crate) peer: World,
    /// That of rulecast.
    pub(crate) ours: World,
    objects: Box<dyn Objects>,
    /// What is in force.
    pub(crate) config: Config,
    /// What [`Worlds::clear`] goes back to.
    pub(crate) base: Config,
    /// Whether the fixtures are there.
    pub(crate) fixtures: bool,
    /// How often [`Worlds::settle`] has been called.
    pub(crate) settled: u16,
}

impl Worlds {
    /// kube-proxy and rulecast, at one API server in a namespace of its own.
    pub(crate) fn with_kube_proxy() -> anyhow::Result<Self> {
        namespace::require(&["nft", "iptables", "iptables-nft"])?;
        let [mut peer, mut ours] = networks([KUBE_PROXY, "rulecast"])?;
        let objects = ApiServer::start(&mut peer, &mut ours)?;
        Self::start(peer, ours, Box::new(objects), Config::default())
    }

    /// rulecast in iptables mode, which is compared with kube-proxy elsewhere, and in IPVS mode.
    pub(crate) fn with_iptables() -> anyhow::Result<Self> {
        namespace::require(&["ipset", "ipvsadm"])?;
        let [mut peer, mut ours] = networks(["rulecast, iptables", "rulecast, ipvs"])?;
        let objects = Manifests::start(&mut peer, &mut ours)?;
        Self::start(peer, ours, Box::new(objects), Config::ipvs())
    }

    fn start(peer: World, ours: World, objects: Box<dyn Objects>, config: Config) -> anyhow::Result<Self> {
        let base = config.clone();
        let mut this =
            Self { peer, ours, objects, config: config.clone(), base, fixtures: false, settled: 0 };
        // What is timed later begins when everything is up.
        this.configure(config).and_then(|()| this.settle()).inspect_err(|_| this.print_logs())?;
        Ok(this)
    }

    /// Gives both worlds another configuration.
    pub(crate) fn configure(&mut self, config: Config) -> anyhow::Result<()> {
        self.objects.configure([&mut self.peer, &mut self.ours], &self.config, &config)?;
        self.config = config;
        Ok(())
    }

    /// Applies Services and slices.
    pub(crate) fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()> {
        self.objects.apply(objects)
    }

    /// What load balancers report.
    pub(crate) fn set_statuses(&mut self, services: &[Value]) -> anyhow::Result<()> {
        self.objects.set_statuses(services)
    }

    /// Changes an object.
    pub(crate) fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> anyhow::Result<()> {
        self.objects.patch(kind, name, patch)
    }

    /// Removes a Service and all its slices.
    pub(crate) fn delete(&mut self, service: &str) -> anyhow::Result<()> {
        self.delete_all(&[service])
    }

    /// Removes Services and all their slices.
    pub(crate) fn delete_all(&mut self, services: &[&str]) -> anyhow::Result<()> {
        self.objects.delete(Kind::Service, services)?;
        self.delete_slices(services)
    }

    /// Removes all slices of Services.
    pub(crate) fn delete_slices(&mut self, services: &[&str]) -> anyhow::Result<()> {
        self.objects.delete_slices(services)
    }

    /// Removes one slice.
    pub(crate) fn delete_slice(&mut self, name: &str) -> anyhow::Result<()> {
        self.objects.delete(Kind::EndpointSlice, &[name])
    }

    /// All Services, with what was allocated.
    pub(crate) fn services(&self) -> anyhow::Result<Vec<Value>> {
        self.objects.services()
    }

    /// Both worlds, the peer's first.
    pub(crate) fn both(&self) -> [&World; 2] {
        [&self.peer, &self.ours]
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.peer.proxies.iter().chain(&self.ours.proxies).chain(self.objects.processes())
    }

    /// Prints what the proxies complained about.
    pub(crate) fn print_complaints(&self) {
        for process in self.processes() {
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
    fn print_logs(&self) {
        for process in self.processes() {
            println!("{}", process.log_tail());
        }
        println!("{}", self.objects.log_tails());
    }
}

/// Two networks of the same addresses.
fn networks([peer, ours]: [&'static str; 2]) -> anyhow::Result<[World; 2]> {
    namespace::require(&["ip", "iptables-legacy"])?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, FILES.min(most), most).context("raising the limit of open files")?;
    Ok([World::new("rcd-peer", peer)?, World::new("rcd-ours", ours)?])
}
