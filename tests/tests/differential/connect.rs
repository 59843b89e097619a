//! One connection. Thousands run at once, since silence can only be waited for.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rulecast_tests::probe::Proto;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::outcome::{End, KEPT};
use crate::world::World;

/// A refusal that comes back while the first SYN is still being sent, as it does within a machine, counts only when the
/// SYN is repeated, after a second.
const CONNECT: Duration = Duration::from_millis(1700);
const ANSWER: Duration = Duration::from_secs(1);
/// The ports that connections are made from, one after the other: conntrack remembers UDP flows for minutes, and must
/// not take a new one for an old one.
const SOURCE_PORTS: std::ops::Range<u16> = 33_000..64_000;

/// Gives out source ports; one for each namespace.
pub(crate) struct Ports(AtomicU16);

impl Ports {
    /// From the beginning.
    pub(crate) const fn new() -> Self {
        Self(AtomicU16::new(0))
    }

    fn next(&self) -> u16 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        SOURCE_PORTS.start + number % (SOURCE_PORTS.end - SOURCE_PORTS.start)
    }
}

/// Connections that may be at work at the same time; more of them only wait for each other, and are taken for silent.
static AT_WORK: Semaphore = Semaphore::const_new(96);
/// Who has no answer after this time only waits.
const WORK: Duration = Duration::from_millis(100);

/// Connects from the namespace of the calling thread and says what came of it.
pub(crate) async fn connect(
    world: &World,
    ports: &Ports,
    proto: Proto,
    to: SocketAddr,
) -> anyhow::Result<End> {
    let permit = AT_WORK.acquire().await.context("nobody closes it")?;
    let work = async {
        match proto {
            Proto::Tcp => timeout(CONNECT + ANSWER, tcp(ports, to)).await,
            Proto::Udp => timeout(ANSWER, udp(ports, to)).await,
        }
    };
    tokio::pin!(work);
    let result = if let Ok(result) = timeout(WORK, &mut work).await {
        result
    } else {
        drop(permit);
        work.await
    };
    let result = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let (text, local) = match result {
        Ok(answer) => answer,
        Err(e) => return other(&e).map(End::Other).with_context(|| format!("{proto:?} to {to}")),
    };
    let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
    let [name, port, peer] = words[..] else { return Err(anyhow!("{to} answered {text:?}")) };
    let peer: IpAddr = peer.parse()?;
    let source =
        if peer == local { KEPT.to_owned() } else { format!("masqueraded to {}", world.describe(peer)) };
    Ok(End::Pod(name.to_owned(), port.parse()?, source))
}

fn other(error: &io::Error) -> io::Result<&'static str> {
    Ok(match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        // What is dropped where it is sent from is told to the sender.
        ErrorKind::TimedOut | ErrorKind::PermissionDenied => "no answer",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => "reset",
        _ => return Err(io::Error::new(error.kind(), error.to_string())),
    })
}

fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

async fn tcp(ports: &Ports, to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let socket = loop {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        match socket.bind((any(to), ports.next()).into()) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            other => break other.map(|()| socket)?,
        }
    };
    let mut stream = timeout(CONNECT, socket.connect(to)).await.map_err(|_| ErrorKind::TimedOut)??;
    let local = stream.local_addr()?.ip();
    let mut text = String::new();
    timeout(ANSWER, stream.read_to_string(&mut text)).await.map_err(|_| ErrorKind::TimedOut)??;
    if text.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok((text, local)) }
}

async fn udp(ports: &Ports, to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let socket = loop {
        match UdpSocket::bind((any(to), ports.next())).await {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            other => break other?,
        }
    };
    socket.connect(to).await?;
    let local = socket.local_addr()?.ip();
    match socket.send(b"who?").await {
        // Dropped or refused where it is sent from: which of them, the socket hears next.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
        other => drop(other?),
    }
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer).await?;
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), local))
}
