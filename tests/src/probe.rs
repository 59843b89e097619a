//! Connecting to Services from a namespace, and what comes of it.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::sys::socket::sockopt::{Linger, ReuseAddr, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect as connect_socket,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::namespace::Namespace;

/// How long an answer may take that is on its way. Also what it costs to learn that there is none.
const ANSWER: Duration = Duration::from_millis(600);
/// The same for a connection. A refusal that comes back while the first SYN is still being sent, as it does within a
/// machine, counts only when the SYN is repeated, after a second.
const CONNECT: Duration = Duration::from_millis(1500);

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A pod answered.
    Pod {
        /// Its name.
        name: String,
        /// The port it was reached at.
        port: u16,
        /// The client's address as the pod sees it.
        peer: IpAddr,
    },
    /// It was refused.
    Refused,
    /// Nothing came back.
    Silence,
    /// There is no way to it: no rule translates it, and nobody has that address. Over UDP that is [`Self::Silence`]:
    /// only a closed port is told to a socket.
    Unreachable,
}

impl Answer {
    /// The pod's name.
    pub fn pod(&self) -> anyhow::Result<&str> {
        match self {
            Self::Pod { name, .. } => Ok(name),
            other => Err(anyhow!("no pod answered: {other:?}")),
        }
    }

    /// The client's address as the pod sees it.
    pub fn peer(&self) -> anyhow::Result<IpAddr> {
        match self {
            Self::Pod { peer, .. } => Ok(*peer),
            other => Err(anyhow!("no pod answered: {other:?}")),
        }
    }

    /// The port at which the pod was reached.
    pub fn port(&self) -> anyhow::Result<u16> {
        match self {
            Self::Pod { port, .. } => Ok(*port),
            other => Err(anyhow!("no pod answered: {other:?}")),
        }
    }
}

/// Connects once, from a new port.
pub fn connect(from: &Namespace, proto: Proto, to: SocketAddr) -> anyhow::Result<Answer> {
    from.run(|| once(proto, to))?
}

/// Connects so many times and returns the names of those who answer; anything else is an error.
pub fn pods(
    from: &Namespace,
    proto: Proto,
    to: SocketAddr,
    count: usize,
) -> anyhow::Result<BTreeSet<String>> {
    from.run(|| {
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let answer = once(proto, to)?;
            let name = answer.pod().with_context(|| format!("{proto:?} to {to}"))?;
            names.insert(name.to_owned());
        }
        Ok(names)
    })?
}

/// Connects once over TCP from this port, and leaves nothing behind that would keep the port. An IPv4 address.
pub fn connect_from_port(from: &Namespace, port: u16, to: SocketAddr) -> anyhow::Result<Answer> {
    from.run(|| match tcp_from_port(port, to) {
        Ok(text) => parse(&text).ok_or_else(|| anyhow!("{to} answered {text:?}")),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Answer::Refused),
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(Answer::Silence),
        Err(e) => Err(e).with_context(|| format!("from port {port} to {to}")),
    })?
}

fn tcp_from_port(port: u16, to: SocketAddr) -> io::Result<String> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(CONNECT.as_millis().try_into().unwrap_or(1500)))?;
    setsockopt(&socket, Linger, &close_is_reset())?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn close_is_reset() -> nix::libc::linger {
    nix::libc::linger { l_onoff: 1, l_linger: 0 }
}

fn once(proto: Proto, to: SocketAddr) -> anyhow::Result<Answer> {
    attempt(proto, to, CONNECT, ANSWER)
}

/// Connects once, from a new port, in the namespace of the caller. Silence is what lasts so long.
pub fn connect_here(proto: Proto, to: SocketAddr, patience: Duration) -> anyhow::Result<Answer> {
    attempt(proto, to, patience, patience)
}

fn attempt(proto: Proto, to: SocketAddr, connect: Duration, answer: Duration) -> anyhow::Result<Answer> {
    let text = match proto {
        Proto::Tcp => tcp(to, connect, answer),
        Proto::Udp => udp(to, answer),
    };
    match text {
        Ok(text) => parse(&text).ok_or_else(|| anyhow!("{to} answered {text:?}, which is no pod's answer")),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Answer::Refused),
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(Answer::Silence),
        Err(e) if matches!(e.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            Ok(Answer::Unreachable)
        }
        Err(e) => Err(e).with_context(|| format!("{proto:?} to {to}")),
    }
}

fn tcp(to: SocketAddr, connect: Duration, answer: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, connect)?;
    // Neither end then waits for stragglers: with many connections in a row a port is soon used again, and an end that waits
    // would answer the new connection for the old one, whoever translates.
    setsockopt(&stream, Linger, &close_is_reset())?;
    stream.set_read_timeout(Some(answer))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn udp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who?")?;
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn parse(text: &str) -> Option<Answer> {
    let mut words = text.lines().last()?.split(' ');
    let (name, port, peer) =
        (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Answer::Pod { name, port, peer })
}
