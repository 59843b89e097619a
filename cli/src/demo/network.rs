//! Three network namespaces: the node (this process), its pods, and a client pod.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, gettid};

/// Puts this process, which must have one thread yet, into a network namespace of its own. Without root it first
/// becomes root of a user namespace.
pub(crate) fn enter_own_namespace() -> anyhow::Result<()> {
    if Command::new("ip").arg("-V").output().is_err() {
        bail!("the tool `ip` is missing: install the package iproute2");
    }
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return unshare(CloneFlags::CLONE_NEWNET).context(
            "no network namespace can be made here although this is root: in a container, give it CAP_SYS_ADMIN",
        );
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .context("no namespaces for users here: run the demo as root (sudo make demo)")?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

/// The namespaces, with backends that answer.
pub(crate) struct Network {
    pub(crate) client: Client,
}

impl Network {
    pub(crate) fn new(backends: &[&str]) -> anyhow::Result<Self> {
        ip("link set lo up")?;
        // Cluster IPs that nothing translates stay on this machine.
        for route in ["10.96.0.0/16", "fd00:96::/112"] {
            ip(&format!("route add unreachable {route}"))?;
        }
        ip("addr add 192.168.50.1/32 dev lo")?;
        ip("addr add fd00:50::1/128 dev lo nodad")?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        pods(backends)?;
        Ok(Self { client: Client::new()? })
    }
}

/// Starts a thread in a network namespace of its own, joined to the node by a veth pair: `addrs` on its side.
fn joined<T: Send + 'static>(
    name: &'static str,
    subnet: u8,
    addrs: Vec<String>,
    body: impl FnOnce(mpsc::Sender<anyhow::Result<()>>) -> T + Send + 'static,
) -> anyhow::Result<()> {
    let (tell_tid, tid) = mpsc::channel();
    let (tell_link, link) = mpsc::channel();
    let (tell_ready, ready) = mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
        let _gone = tell_tid.send(result);
        if link.recv().is_err() {
            return;
        }
        if let Err(error) = configure(subnet, &addrs) {
            let _gone = tell_ready.send(Err(error));
            return;
        }
        body(tell_ready);
    })?;
    let tid = tid.recv()?.context("a network namespace")?;
    ip(&format!("link add {name} type veth peer name eth0 netns {tid}"))?;
    ip(&format!("addr add 10.244.{subnet}.254/24 dev {name}"))?;
    ip(&format!("addr add fd00:244:{subnet}::fe/64 dev {name} nodad"))?;
    ip(&format!("link set {name} up"))?;
    tell_link.send(())?;
    ready.recv()?
}

fn configure(subnet: u8, addrs: &[String]) -> anyhow::Result<()> {
    ip("link set lo up")?;
    for addr in addrs {
        let flags = if addr.contains(':') { "nodad" } else { "" };
        ip(&format!("addr add {addr} dev eth0 {flags}"))?;
    }
    ip("link set eth0 up")?;
    ip(&format!("route add default via 10.244.{subnet}.254"))?;
    ip(&format!("-6 route add default via fd00:244:{subnet}::fe"))
}

/// The node's pods: on each address a server that says who it is.
fn pods(backends: &[&str]) -> anyhow::Result<()> {
    let v6 = |i: usize| format!("fd00:244:1::{}", i + 1);
    let mut addrs: Vec<String> = backends.iter().map(|a| format!("{a}/24")).collect();
    addrs.extend((0..backends.len()).map(|i| format!("{}/64", v6(i))));
    let mut listeners: Vec<(IpAddr, String)> = Vec::new();
    for (i, addr) in backends.iter().enumerate() {
        listeners.push((addr.parse()?, format!("backend-{}", i + 1)));
        listeners.push((v6(i).parse()?, format!("backend-{}", i + 1)));
    }
    joined("pods", 1, addrs, move |ready| {
        for (addr, name) in listeners {
            let listener = match TcpListener::bind((addr, 8080)) {
                Ok(listener) => listener,
                Err(error) => return drop(ready.send(Err(anyhow!("a backend on {addr}: {error}")))),
            };
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _gone = stream.write_all(name.as_bytes());
                }
            });
        }
        drop(ready.send(Ok(())));
    })
}

type Answers = anyhow::Result<BTreeMap<String, usize>>;

/// A pod that connects to things.
pub(crate) struct Client(mpsc::Sender<(SocketAddr, usize, mpsc::Sender<Answers>)>);

impl Client {
    fn new() -> anyhow::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<(SocketAddr, usize, mpsc::Sender<Answers>)>();
        joined("client", 2, vec!["10.244.2.1/24".into(), "fd00:244:2::1/64".into()], move |ready| {
            drop(ready.send(Ok(())));
            for (addr, count, answer) in inbox {
                let _gone = answer.send(connect(addr, count));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Connects so many times and counts who answers.
    pub(crate) fn connect(&self, addr: SocketAddr, count: usize) -> Answers {
        let (tell, answer) = mpsc::channel();
        self.0.send((addr, count, tell))?;
        answer.recv()?
    }
}

fn connect(addr: SocketAddr, count: usize) -> Answers {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let mut stream =
            TcpStream::connect_timeout(&addr, Duration::from_secs(2)).with_context(|| addr.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut name = String::new();
        stream.read_to_string(&mut name)?;
        *answers.entry(name).or_default() += 1;
    }
    Ok(answers)
}

fn ip(args: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args.split_whitespace()).output().context("the tool `ip`")?;
    if !output.status.success() {
        bail!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
