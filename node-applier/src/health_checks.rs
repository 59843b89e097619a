//! healthCheckNodePorts: what load balancers ask to learn whether a node has endpoints of a Service.
//!
//! The answers are kube-proxy's to the byte (`pkg/proxy/healthcheck/service_health.go` of v1.36).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};
use tracing::info;

use crate::status::Shared;

mod listen;
#[cfg(test)]
mod tests;

/// The most connections to all ports at a time, so that they cannot take the node's memory.
const MAX_CONNECTIONS: usize = 128;
/// The most connections to one port, so that one port's clients do not keep the others' out.
const MAX_PORT_CONNECTIONS: usize = 16;
/// How often a port that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A Service with a healthCheckNodePort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Ready endpoints on this node, IPv4 and IPv6; each is told to who asks over that family. A family in which the
    /// Service has no ports counts as the other's.
    pub local_endpoints: [usize; 2],
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On all addresses.
    All,
    /// On these.
    Addrs(Vec<IpAddr>),
}

impl Listen {
    fn places(&self) -> Vec<Place> {
        match self {
            Self::All => vec![None],
            Self::Addrs(addrs) => addrs.iter().copied().map(Some).collect(),
        }
    }
}

/// An address; none for all of them.
type Place = Option<IpAddr>;
/// Room for connections to one port, and to all of them.
type Slots = [Arc<Semaphore>; 2];

/// The servers of all healthCheckNodePorts. One listener for each port and address.
pub struct HealthChecks {
    shared: Shared,
    ports: BTreeMap<u16, Port>,
    connections: Arc<Semaphore>,
    /// Services whose port another one has.
    taken: Vec<String>,
    next_retry: Instant,
}

struct Port {
    check: Arc<Mutex<HealthCheck>>,
    connections: Arc<Semaphore>,
    listeners: BTreeMap<Place, Listener>,
}

enum Listener {
    /// It serves until it is dropped.
    Open(#[expect(dead_code, reason = "kept for what its end does")] Task),
    /// It could not be bound, and this is why.
    Closed(String),
}

/// A listener's task, which ends with its owner, and its connections with it.
struct Task {
    listener: Arc<TcpListener>,
    handle: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        // The task lets go of the socket only when the runtime comes to it, and the port may be bound anew before that.
        let _gone_anyway = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        self.handle.abort();
    }
}

impl HealthChecks {
    /// No servers yet. The proxy's own health, which the answers depend on, is that of `shared`.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { shared, ports: BTreeMap::new(), connections, taken: Vec::new(), next_retry: Instant::now() }
    }

    /// Serves these and no others. Listeners of ports and addresses that stay are left alone; ports that could not be
    /// bound are tried again. Must be called in a tokio runtime.
    pub fn set(&mut self, mut wanted: Vec<HealthCheck>, addrs: &Listen) {
        // The same Service wins a port that two claim, whatever the order.
        wanted.sort_by(|a, b| (a.port, &a.namespace, &a.name).cmp(&(b.port, &b.namespace, &b.name)));
        self.taken.clear();
        let mut ports = BTreeMap::new();
        for check in wanted {
            if let Some(Port { check: owner, .. }) = ports.get(&check.port) {
                self.taken.push(taken(&check, &lock(owner)));
                continue;
            }
            ports.insert(check.port, self.port(check, addrs));
        }
        // What is not wanted any more closes here.
        self.ports = ports;
        self.open();
    }

    /// Tries again what could not be bound, if that is due. Cheap otherwise: call it often.
    pub fn retry(&mut self) {
        if self.next_retry <= Instant::now() && self.ports.values().any(Port::waits) {
            self.open();
        }
    }

    /// What is not served, in words: the Service, the port, the address, the cause and the next step.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let closed = self.ports.values().flat_map(|port| port.listeners.values());
        let closed = closed.filter_map(|listener| match listener {
            Listener::Open(_) => None,
            Listener::Closed(why) => Some(why),
        });
        self.taken.iter().chain(closed).cloned().collect()
    }

    /// The port with what stays of its listeners, and room for the new ones.
    fn port(&mut self, check: HealthCheck, addrs: &Listen) -> Port {
        let mut old = self.ports.remove(&check.port);
        let mut known = old.as_mut().map(|old| std::mem::take(&mut old.listeners)).unwrap_or_default();
        let new = |place: Place| (place, known.remove(&place).unwrap_or(Listener::Closed(String::new())));
        let listeners = addrs.places().into_iter().map(new).collect();
        let Some(Port { check: shared, connections, .. }) = old else {
            let connections = Arc::new(Semaphore::new(MAX_PORT_CONNECTIONS));
            return Port { check: Arc::new(Mutex::new(check)), connections, listeners };
        };
        *lock(&shared) = check;
        Port { check: shared, connections, listeners }
    }

    fn open(&mut self) {
        self.next_retry = Instant::now() + RETRY;
        for (number, port) in &mut self.ports {
            let Port { check, connections, listeners } = port;
            for (place, listener) in listeners {
                let Listener::Closed(_) = listener else { continue };
                match listen::bind(*place, *number) {
                    Ok(bound) => {
                        let HealthCheck { namespace, name, .. } = &*lock(check);
                        info!(namespace, name, port = number, "answering health checks");
                        let slots = [Arc::clone(connections), Arc::clone(&self.connections)];
                        *listener = Listener::Open(start(bound, slots, check, &self.shared));
                    }
                    Err(error) => {
                        *listener = Listener::Closed(refused(&lock(check), *place, &error));
                    }
                }
            }
        }
    }
}

impl Port {
    fn waits(&self) -> bool {
        self.listeners.values().any(|listener| matches!(listener, Listener::Closed(_)))
    }
}

fn start(bound: TcpListener, slots: Slots, check: &Arc<Mutex<HealthCheck>>, shared: &Shared) -> Task {
    let (listener, check, shared) = (Arc::new(bound), Arc::clone(check), shared.clone());
    let serve = listen::serve(Arc::clone(&listener), slots, move |at| answer(at, &check, &shared));
    Task { listener, handle: tokio::spawn(serve).abort_handle() }
}

fn lock(check: &Mutex<HealthCheck>) -> std::sync::MutexGuard<'_, HealthCheck> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken(check: &HealthCheck, owner: &HealthCheck) -> String {
    let HealthCheck { port, namespace, name, .. } = check;
    format!(
        "Service {namespace}/{name}: healthCheckNodePort {port} is that of Service {}/{} already: give one of them another",
        owner.namespace, owner.name
    )
}

fn refused(check: &HealthCheck, place: Place, error: &std::io::Error) -> String {
    let HealthCheck { port, namespace, name, .. } = check;
    let addr = place.map_or("all addresses".to_owned(), |addr| addr.to_string());
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => "; see 'ss -ltnp' for the process that has it",
        std::io::ErrorKind::AddrNotAvailable => "; it comes when the address is usable on the node",
        _ => "",
    };
    format!(
        "Service {namespace}/{name}: cannot listen on healthCheckNodePort {port} at {addr} ({error}); load balancers \
         take this node for one without endpoints{advice}"
    )
}

/// The answer to whoever connected to this address, whatever they ask for.
fn answer(at: SocketAddr, check: &Mutex<HealthCheck>, shared: &Shared) -> Response<Full<Bytes>> {
    let healthy = shared.lock().0.proxy_healthy();
    let check = lock(check);
    // A socket for both families tells IPv4 addresses as mapped ones.
    let count = check.local_endpoints[usize::from(at.ip().to_canonical().is_ipv6())];
    let code = if count > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {count},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        check.namespace, check.name
    );
    Response::builder()
        .status(code)
        .header("Content-Type", "application/json")
        .header("X-Content-Type-Options", "nosniff")
        .header("X-Load-Balancing-Endpoint-Weight", count)
        .body(Full::new(body.into()))
        .expect("fixed headers are valid")
}

/// All addresses of a family, as a listener's.
const fn unspecified(v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}
