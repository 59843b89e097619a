//! Connections that last: what is in conntrack stays there, whatever becomes of the rules.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rulecast_tests::namespace::Namespace;

use crate::world::World;
use crate::worlds::KUBE_PROXY;

/// How long an answer may take that is on its way.
const ANSWER: Duration = Duration::from_millis(300);
/// Enough that every endpoint has one.
const FLOWS: usize = 8;
/// How long UDP flows may go on to the wrong endpoint.
const LIMIT: Duration = Duration::from_secs(5);

/// Flows of one world, from one client to one Service.
pub(crate) struct Flows {
    proxy: &'static str,
    is_ours: bool,
    udp: Vec<Udp>,
    tcp: Option<(TcpStream, String)>,
}

struct Udp {
    socket: UdpSocket,
    /// Who answered last: pod and port.
    last: Option<String>,
}

/// What UDP flows have to do after a step. Endpoints are written as pod and port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Endpoints that are serving; flows stay with them.
    pub(crate) serving: &'a [&'a str],
    /// Endpoints for new connections; flows of others move there. None: they end.
    pub(crate) usable: &'a [&'a str],
}

impl Flows {
    /// Opens them: UDP to `udp` and, when given, one TCP connection to a port that is kept.
    pub(crate) fn open(
        world: &World,
        is_ours: bool,
        from: &Namespace,
        udp: SocketAddr,
        tcp: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let any: IpAddr = if udp.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let open = || {
            let mut flows = Vec::new();
            for _ in 0..FLOWS {
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(udp)?;
                socket.set_read_timeout(Some(ANSWER))?;
                flows.push(Udp { socket, last: None });
            }
            let tcp = tcp.map(|to| TcpStream::connect_timeout(&to, Duration::from_secs(3))).transpose()?;
            std::io::Result::Ok((flows, tcp))
        };
        let (udp, tcp) = from.run(open)?.with_context(|| format!("flows in the world of {}", world.proxy))?;
        let mut this = Self { proxy: world.proxy, is_ours, udp, tcp: None };
        for flow in &mut this.udp {
            flow.last = flow.ask();
        }
        if let Some(mut stream) = tcp {
            let pod = ask_tcp(&mut stream)?;
            this.tcp = Some((stream, pod));
        }
        Ok(this)
    }

    /// Whether they are of rulecast's world.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// What is not as wanted.
    pub(crate) fn problems(&mut self, step: &str, wanted: Wanted<'_>) -> Vec<String> {
        let proxy = self.proxy;
        let mut wrong = BTreeMap::<String, usize>::new();
        let end = Instant::now() + LIMIT;
        for flow in &mut self.udp {
            let before = flow.last.clone();
            loop {
                flow.last = flow.ask();
                let right = is_right(before.as_deref(), flow.last.as_deref(), wanted);
                // kube-proxy leaves flows alone that have nowhere to go, even to the dead.
                if right || (proxy == KUBE_PROXY && wanted.serving.is_empty()) {
                    break;
                }
                if Instant::now() >= end {
                    *wrong.entry(format!("from {before:?} to {:?}", flow.last)).or_default() += 1;
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let text = |(what, count)| format!("{step}: {count} UDP flows of {proxy} went {what}: {wanted:?}");
        let mut problems: Vec<String> = wrong.into_iter().map(text).collect();
        if let Some((stream, pod)) = &mut self.tcp {
            let answer = ask_tcp(stream);
            if !answer.as_ref().is_ok_and(|now| now == pod) {
                problems.push(format!("{step}: the TCP connection of {proxy} to {pod} broke: {answer:?}"));
            }
        }
        problems
    }
}

fn is_right(before: Option<&str>, now: Option<&str>, wanted: Wanted<'_>) -> bool {
    match (before, now) {
        (Some(before), now) if wanted.serving.contains(&before) => now == Some(before),
        (_, Some(now)) => wanted.usable.contains(&now),
        (_, None) => wanted.usable.is_empty(),
    }
}

impl Udp {
    fn ask(&self) -> Option<String> {
        let mut answer = [0; 256];
        // What the socket heard since; an error of an earlier packet is told once.
        self.socket.set_nonblocking(true).ok()?;
        for _ in 0..4 {
            let _old = self.socket.recv(&mut answer);
        }
        self.socket.set_nonblocking(false).ok()?;
        let _refused = self.socket.send(b"who?");
        let length = self.socket.recv(&mut answer).ok()?;
        pod_and_port(&String::from_utf8_lossy(&answer[..length]))
    }
}

fn ask_tcp(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"who?")?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer)?;
    ensure!(length > 0, "it was closed");
    pod_and_port(&String::from_utf8_lossy(&answer[..length])).context("no pod's answer")
}

fn pod_and_port(text: &str) -> Option<String> {
    let mut words = text.split(' ');
    Some(format!("{} {}", words.next()?, words.next()?))
}
