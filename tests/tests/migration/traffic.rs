//! All that goes on while a node changes hands.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::probe::Proto;

use crate::callers::{Call, Caller};
use crate::kept::Kept;
use crate::site::{ENDPOINTS, LOCAL, Site, VIP};
use crate::sticky::Sticky;

/// How long an answer may take: long, as a busy machine is no gap in the rules. What a gap swallows never comes, over UDP; over
/// TCP it is seen by the SYN that is sent again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// New connections that have to be made in a run, so that "none failed" means something.
const ENOUGH: usize = 1000;
/// Before the first step and after the last.
const LEAD: Duration = Duration::from_millis(700);

/// What all threads look at: whether it is over, and where the run is.
#[derive(Clone)]
pub(crate) struct Clock {
    start: Instant,
    over: Arc<AtomicBool>,
    step: Arc<Mutex<String>>,
}

impl Clock {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The time and the step, in words.
    pub(crate) fn now(&self) -> String {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:.2} s ({step})", self.start.elapsed().as_secs_f64())
    }
}

/// Clients in a pod, on the node and outside, connections that stay open, and a client with affinity.
pub(crate) struct Traffic {
    clock: Clock,
    callers: Vec<Caller>,
    kept: Vec<Kept>,
    sticky: Sticky,
}

impl Traffic {
    /// Starts everything; what stays open is open when this returns.
    pub(crate) fn start(site: &Site) -> anyhow::Result<Self> {
        let step = Arc::new(Mutex::new("before".to_owned()));
        let clock = Clock { start: Instant::now(), over: Arc::new(AtomicBool::new(false)), step };
        let mut callers = Vec::new();
        for (from, call) in calls(site) {
            callers.push(Caller::start(from, call, &clock)?);
        }
        let mut kept = Vec::new();
        for (from, name, proto, to) in open(site) {
            kept.push(Kept::open(from, name, proto, to, &clock)?);
        }
        let pod = &site.network().pod("a3").namespace;
        let sticky = Sticky::start(pod, site.services.sticky.cluster[0], &clock)?;
        sleep(LEAD);
        Ok(Self { clock, callers, kept, sticky })
    }

    /// Says which step comes now.
    pub(crate) fn step(&mut self, name: &str) {
        println!("  {:.2} s: {name}", self.clock.start.elapsed().as_secs_f64());
        name.clone_into(&mut self.clock.step.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends everything. Nothing may have failed.
    pub(crate) fn end(mut self, hand_overs: usize) -> anyhow::Result<()> {
        self.step("after");
        sleep(LEAD);
        self.clock.over.store(true, Ordering::Relaxed);
        let callers: Vec<_> = self.callers.into_iter().map(Caller::end).collect();
        let kept: Vec<_> = self.kept.into_iter().map(Kept::end).collect();
        let sticky = self.sticky.end(hand_overs);
        let [made, lines] = [callers, kept].map(sum);
        let (made, lines) = (made?, lines?);
        println!("  {made} new connections, none failed; {lines} lines over connections that stayed");
        sticky?;
        ensure!(made >= ENOUGH, "only {made} new connections were made");
        Ok(())
    }
}

/// The sum; or all errors.
fn sum(results: Vec<anyhow::Result<usize>>) -> anyhow::Result<usize> {
    let mut total = 0;
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(count) => total += count,
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(total)
}

fn calls(site: &Site) -> Vec<(&Namespace, Call)> {
    let network = site.network();
    let node = &network.nodes[0];
    let client = &network.client;
    let services = &site.services;
    let mut calls = Vec::new();
    let mut add = |from, name: &str, proto, to: SocketAddr, pods, peer: Option<IpAddr>| {
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        let name = format!("{proto:?}, {family}, {name}");
        calls.push((from, Call { name, proto, to, pods, peer }));
    };
    for proto in [Proto::Tcp, Proto::Udp] {
        for to in services.web.cluster {
            let pod = network.pod("a3");
            let own = if to.is_ipv4() { pod.v4 } else { pod.v6 };
            add(&pod.namespace, "pod to cluster IP", proto, to, ENDPOINTS, Some(own));
            add(&node.namespace, "node to cluster IP", proto, to, ENDPOINTS, None);
        }
        let port = if proto == Proto::Tcp { services.web.node_port } else { services.web.udp_node_port };
        for addr in [node.v4, node.v6] {
            let to = SocketAddr::new(addr, port);
            add(&client.namespace, "outside to nodePort", proto, to, ENDPOINTS, None);
        }
    }
    // One in four of these comes back to the pod that made it.
    let itself = &network.pod("a1").namespace;
    add(itself, "endpoint to its own cluster IP", Proto::Tcp, services.web.cluster[0], ENDPOINTS, None);
    let to = SocketAddr::new(node.v4, services.local.node_port);
    add(&client.namespace, "outside to nodePort, policy Local", Proto::Tcp, to, LOCAL, Some(client.v4));
    let vip = SocketAddr::new(VIP.into(), 80);
    add(&client.namespace, "outside to load balancer", Proto::Tcp, vip, LOCAL, Some(client.v4));
    calls
}

/// What stays open: from where, its name, the protocol and where to.
fn open(site: &Site) -> Vec<(&Namespace, String, Proto, SocketAddr)> {
    let network = site.network();
    let node = &network.nodes[0];
    let keep = &site.services.keep;
    let pod = &network.pod("a3").namespace;
    let client = &network.client.namespace;
    let mut open = Vec::new();
    // Several, as the endpoint is one of this node's or one of the other's.
    for _ in 0..3 {
        for to in keep.cluster {
            open.push((pod, "kept, pod to cluster IP", Proto::Tcp, to));
            open.push((&node.namespace, "kept, node to cluster IP", Proto::Tcp, to));
        }
        for addr in [node.v4, node.v6] {
            let to = SocketAddr::new(addr, keep.node_port);
            open.push((client, "kept, outside to nodePort", Proto::Tcp, to));
        }
        open.push((pod, "kept, pod to cluster IP", Proto::Udp, site.services.web.cluster[0]));
        let to = SocketAddr::new(node.v4, site.services.web.udp_node_port);
        open.push((client, "kept, outside to nodePort", Proto::Udp, to));
    }
    open.into_iter().map(|(from, name, proto, to)| (from, format!("{proto:?}, {name}"), proto, to)).collect()
}
