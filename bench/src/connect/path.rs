//! The path that packets take: from a client's namespace through the node's to that of all backends.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rulecast_tests::namespace::Namespace;

use crate::cluster::Cluster;
use crate::objects::{CLUSTER_CIDR, OUTSIDE, POD, SERVICE_CIDR, TARGET_PORTS};

/// The node's addresses on the links, and the backends' one.
const NODE_TO_CLIENT: &str = "192.168.77.1";
const NODE_TO_BACKENDS: &str = "192.168.78.1";
const BACKENDS: &str = "192.168.78.2";
/// The namespaces of one proxy. They end with this value, and what runs in them.
pub(super) struct Path {
    /// Where connections begin, as a pod or as a client outside.
    client: Namespace,
    /// Where the proxy runs.
    pub(super) node: Namespace,
    /// Where all pods are.
    _backends: Namespace,
    listeners: Vec<TcpListener>,
}

impl Path {
    /// Makes it. All pods of the cluster answer, at all target ports.
    pub(super) fn new(prefix: &str, cluster: &Cluster) -> Result<Self> {
        let [client, node, backends] =
            ["client", "node", "backends"].map(|part| Namespace::new(&format!("{prefix}-{part}")));
        let (client, node, backends) = (client?, node?, backends?);
        let address = crate::objects::node_address(cluster);
        for (far, name, local) in
            [(&client, "client", NODE_TO_CLIENT), (&backends, "backends", NODE_TO_BACKENDS)]
        {
            node.ip(&format!("link add {name} type veth peer name eth0 netns {}", far.name()))?;
            node.ip(&format!("addr add {local}/30 dev {name}"))?;
            node.ip(&format!("link set {name} up"))?;
            far.ip("link set eth0 up")?;
        }
        node.ip(&format!("addr add {address}/32 dev client"))?;
        for namespace in [&client, &node] {
            // What is refused silently fails after three seconds.
            namespace.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1"))??;
        }
        for at in [POD, OUTSIDE] {
            client.ip(&format!("addr add {at}/32 dev eth0"))?;
            node.ip(&format!("route add {at}/32 dev client"))?;
        }
        client.ip(&format!("route add {NODE_TO_CLIENT}/32 dev eth0 src {OUTSIDE}"))?;
        let outside = [format!("{address}/32"), "198.18.0.0/15".to_owned()].map(|net| (net, OUTSIDE));
        let inside = [SERVICE_CIDR, CLUSTER_CIDR].map(|net| (net.to_owned(), POD));
        for (net, source) in outside.into_iter().chain(inside) {
            client.ip(&format!("route add {net} via {NODE_TO_CLIENT} src {source}"))?;
        }
        // The node's own connections to cluster IPs are routed before they are translated.
        for net in [CLUSTER_CIDR, SERVICE_CIDR] {
            node.ip(&format!("route add {net} via {BACKENDS}"))?;
        }
        backends.ip(&format!("addr add {BACKENDS}/30 dev eth0"))?;
        // In the main table, where the client's own address is the longer prefix; the local one comes before it.
        backends.ip(&format!("route add local {CLUSTER_CIDR} dev lo table main"))?;
        backends.ip(&format!("route add {POD}/32 via {NODE_TO_BACKENDS}"))?;
        backends.ip(&format!("route add default via {NODE_TO_BACKENDS}"))?;
        for namespace in [&client, &node] {
            // Nothing leaves the machine, nor does it go in circles.
            namespace.ip("route add unreachable default")?;
        }
        let listeners =
            backends.run(|| TARGET_PORTS.map(|port| listen(port).map_err(anyhow::Error::from)))?;
        let listeners = listeners.into_iter().collect::<Result<_>>()?;
        Ok(Self { client, node, _backends: backends, listeners })
    }

    /// Connects once to each of these, one after the other; returns how long each took.
    pub(super) fn connect(&self, targets: &[SocketAddr]) -> Result<Vec<Duration>> {
        let connected = self.client.run(|| targets.iter().map(timed).collect::<Result<Vec<_>>>())??;
        let (streams, times): (Vec<_>, _) = connected.into_iter().unzip();
        // Both ends are closed outside of the measurement, and nothing else runs during it.
        drop(streams);
        self.accept_all()?;
        Ok(times)
    }

    /// As [`Path::connect`], once and from the node itself.
    pub(super) fn connect_from_node(&self, target: SocketAddr) -> Result<()> {
        self.node.run(|| timed(&target))??;
        self.accept_all()
    }

    fn accept_all(&self) -> Result<()> {
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("accepting"),
                }
            }
        }
        Ok(())
    }
}

/// A listener that is never waited for: connections are complete before they are accepted.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn timed(target: &SocketAddr) -> Result<(TcpStream, Duration)> {
    let start = Instant::now();
    let stream = TcpStream::connect(target);
    let took = start.elapsed();
    Ok((stream.with_context(|| format!("connecting to {target}"))?, took))
}
