//! A small cluster, its records, and the backend of the first node.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use rulecast_bundle::{Mode, Proto};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, NodePortAddresses, Options, Pool, Service, ServicePort, Slice, SlicePort,
};
use rulecast_node::addresses;
use rulecast_node::backend::{Applied, Backend as _, BackendError};
use rulecast_node::ipvs::Ipvs;
use rulecast_node::view::View;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::network::{Network, POD_CIDRS};
use rulecast_tests::{namespace, probe, serve};

/// The cluster IPs, of which the client outside has a route to the first node.
pub(crate) const CLUSTER_IPS: &str = "10.96.0.0/16";
/// A Service's cluster IPs.
pub(crate) const VIP: &str = "10.96.0.10";
pub(crate) const VIP6: &str = "fd00:96::10";
/// An address that the client outside has a route for.
pub(crate) const EXTERNAL: &str = "203.0.113.7";
pub(crate) const NODE_PORT: u16 = 30_080;

pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) compiler: Compiler,
    pub(crate) view: View,
    pub(crate) backend: Ipvs,
    pub(crate) options: Options,
    services: Vec<String>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

/// A Service at [`VIP`], port 80 over TCP and UDP.
pub(crate) fn service() -> Service {
    let port = |name: &str, proto, node_port| ServicePort {
        name: name.to_owned(),
        proto,
        port: 80,
        node_port: Some(node_port),
    };
    Service {
        cluster_ips: vec![ip(VIP), ip(VIP6)],
        ports: vec![port("tcp", Proto::Tcp, NODE_PORT), port("udp", Proto::Udp, NODE_PORT)],
        ..Service::default()
    }
}

/// Connects once over TCP.
pub(crate) fn tcp(from: &Namespace, to: SocketAddr) -> anyhow::Result<probe::Answer> {
    probe::connect(from, probe::Proto::Tcp, to)
}

impl World {
    pub(crate) fn new() -> anyhow::Result<Self> {
        namespace::require(&["ip", "iptables-legacy-save", "ip6tables-legacy-save", "ipset", "ipvsadm"])?;
        let network = Network::new("rc-ipvs", 2)?;
        let client = &network.client.namespace;
        client.ip(&format!("route add {CLUSTER_IPS} via {}", network.nodes[0].v4))?;
        let prefixes = POD_CIDRS.split(',').map(|cidr| {
            let (addr, len) = cidr.split_once('/').context("a prefix")?;
            Ok((addr.parse()?, len.parse()?))
        });
        let pods = prefixes.collect::<anyhow::Result<_>>()?;
        let options = Options {
            mode: Mode::Ipvs,
            detect_local: DetectLocal::ClusterCidr(pods),
            node_port_addresses: NodePortAddresses::All,
            ..Options::default()
        };
        let mut compiler = Compiler::default();
        for node in &network.nodes {
            let addrs = vec![node.v4, node.v6];
            compiler.set_node(&node.name, Some(Node { addrs, ..Node::default() }));
        }
        let backend = network.nodes[0].namespace.run(Ipvs::open)??;
        let view = View::new("node-a", &rulecast_bundle::Bundle::default());
        let mut world = Self { network, compiler, view, backend, options, services: Vec::new() };
        let options = world.options.clone();
        world.set_options(options)?;
        Ok(world)
    }

    /// The namespace of the first node, where the rules are.
    pub(crate) fn node(&self) -> &Namespace {
        &self.network.nodes[0].namespace
    }

    pub(crate) fn pod(&self, name: &str) -> &Namespace {
        &self.network.pod(name).namespace
    }

    pub(crate) fn client(&self) -> &Namespace {
        &self.network.client.namespace
    }

    /// Sets the pool's options and brings everything up to date.
    pub(crate) fn set_options(&mut self, options: Options) -> anyhow::Result<Applied> {
        self.try_options(options)?.map_err(anyhow::Error::from)
    }

    pub(crate) fn try_options(&mut self, options: Options) -> anyhow::Result<Result<Applied, BackendError>> {
        self.options = options.clone();
        self.compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        self.try_apply()
    }

    /// Removes all Services, and what waits for the end of connections.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        for name in std::mem::take(&mut self.services) {
            self.compiler.set_service(&name, None);
            self.compiler.set_slice(&name, None);
        }
        let mut options = self.options.clone();
        options.ipvs = rulecast_compiler::model::default_ipvs();
        self.set_options(options)?;
        Ok(())
    }

    pub(crate) fn set_service(&mut self, name: &str, service: Option<Service>) {
        self.services.push(name.to_owned());
        self.compiler.set_service(name, service);
    }

    /// Gives a Service these pods as endpoints, for TCP and for UDP, in both families.
    pub(crate) fn set_endpoints(&mut self, name: &str, pods: &[&str], port: u16) {
        let pods: Vec<_> =
            pods.iter().map(|pod| (self.network.pod(pod), &self.network.node_of(pod).name)).collect();
        for (family, suffix) in [(4, ""), (6, "-6")] {
            let endpoints = pods.iter().map(|(pod, node)| Endpoint {
                node: Some(node.as_str().into()),
                ..Endpoint::ready(if family == 4 { pod.v4 } else { pod.v6 })
            });
            let port = |name: &str, proto| SlicePort { name: name.to_owned(), proto, port };
            let ports = vec![port("tcp", Proto::Tcp), port("udp", Proto::Udp)];
            let slice = Slice { service: name.to_owned(), ports, endpoints: endpoints.collect() };
            let key = format!("{name}{suffix}");
            self.compiler.set_slice(&key, Some(slice));
            self.services.push(key);
        }
    }

    /// A Service with endpoints, written.
    pub(crate) fn serve(&mut self, service: Service, pods: &[&str]) -> anyhow::Result<Applied> {
        self.set_service("ns/web", Some(service));
        self.set_endpoints("ns/web", pods, serve::PORTS[0]);
        self.apply()
    }

    pub(crate) fn apply(&mut self) -> anyhow::Result<Applied> {
        self.try_apply()?.map_err(anyhow::Error::from)
    }

    /// Compiles, and brings the kernel up to date.
    pub(crate) fn try_apply(&mut self) -> anyhow::Result<Result<Applied, BackendError>> {
        self.compiler.compile();
        let pool = self.compiler.pool_mut("default").context("the pool")?;
        let touched = self.view.apply(&pool.take_changes());
        if touched.everything {
            return self.rebuild();
        }
        let (node, view, backend) = (&self.network.nodes[0].namespace, &self.view, &mut self.backend);
        node.run(|| backend.update(view, &touched, &addresses::of_this_node().unwrap_or_default()))
    }

    /// What the pool would be in another mode.
    pub(crate) fn view_in(&mut self, mode: Mode) -> anyhow::Result<View> {
        let options = Options { mode, ..self.options.clone() };
        self.compiler.set_pool("default", Some(Pool { options, ..Pool::default() }));
        self.compiler.compile();
        Ok(View::new("node-a", self.compiler.pools().next().context("the pool")?.1.bundle()))
    }

    /// After others wrote to the kernel: a new backend, and everything as it should be.
    pub(crate) fn begin_anew(&mut self) -> anyhow::Result<()> {
        self.backend = self.node().run(Ipvs::open)??;
        let _nothing_known = self.try_options(self.options.clone())?;
        self.rebuild()??;
        Ok(())
    }

    /// Writes everything.
    pub(crate) fn rebuild(&mut self) -> anyhow::Result<Result<Applied, BackendError>> {
        let pool = self.compiler.pools().next().context("the pool")?.1;
        self.view = View::new("node-a", pool.bundle());
        let (node, view, backend) = (&self.network.nodes[0].namespace, &self.view, &mut self.backend);
        node.run(|| backend.rebuild(view, &addresses::of_this_node().unwrap_or_default()))
    }

    /// What happens now and then.
    pub(crate) fn tick(&mut self) -> anyhow::Result<Option<String>> {
        let (node, backend) = (&self.network.nodes[0].namespace, &mut self.backend);
        Ok(node.run(|| backend.interference())??)
    }

    /// Shows what is in the kernel, for a scenario that failed.
    pub(crate) fn print(&self) {
        for (tool, args) in [
            ("ipvsadm", &["-Ln"][..]),
            ("ipset", &["save"]),
            ("iptables-legacy-save", &["-c"]),
            ("ip", &["-4", "address"]),
            ("ipvsadm", &["-Lnc"]),
        ] {
            match self.node().output(tool, args) {
                Ok(text) => println!("{tool} {args:?}\n{text}"),
                Err(error) => println!("{error:#}"),
            }
        }
    }
}
