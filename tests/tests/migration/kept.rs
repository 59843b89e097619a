//! Connections that were there before and have to stay: over TCP, and flows over UDP.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rulecast_tests::namespace::Namespace;
use rulecast_tests::probe::Proto;

use crate::traffic::{Clock, PATIENCE};

/// Between two lines.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection that says a line every 50 ms until the clock stops, and has to hear the same each time: the pod, and the
/// client's address as the pod sees it.
pub(crate) struct Kept {
    name: String,
    thread: JoinHandle<anyhow::Result<Heard>>,
}

#[derive(Default)]
struct Heard {
    lines: usize,
    slowest: Duration,
    answer: String,
}

enum Line {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Kept {
    pub(crate) fn open(
        from: &Namespace,
        name: String,
        proto: Proto,
        to: SocketAddr,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let line = from.run(|| connect(proto, to))?.with_context(|| format!("{name} to {to}"))?;
        let clock = clock.clone();
        Ok(Self { name, thread: thread::spawn(move || keep(line, &clock)) })
    }

    /// Waits for its end, and returns how many lines were answered.
    pub(crate) fn end(self) -> anyhow::Result<usize> {
        let heard = self.thread.join().map_err(|_| anyhow::anyhow!("{} panicked", self.name))?;
        let Heard { lines, slowest, answer } = heard.with_context(|| format!("{} broke", self.name))?;
        let slowest = slowest.as_millis();
        println!("  {}: {lines} lines, slowest {slowest} ms, all {:?}", self.name, answer.trim());
        Ok(lines)
    }
}

fn connect(proto: Proto, to: SocketAddr) -> anyhow::Result<Line> {
    Ok(match proto {
        Proto::Tcp => {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Line::Tcp(stream)
        }
        Proto::Udp => {
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Line::Udp(socket)
        }
    })
}

fn keep(mut line: Line, clock: &Clock) -> anyhow::Result<Heard> {
    let mut heard = Heard::default();
    while !clock.is_over() {
        let start = Instant::now();
        let answer = line.ask().with_context(|| format!("{}, after {} lines", clock.now(), heard.lines))?;
        heard.slowest = heard.slowest.max(start.elapsed());
        if heard.lines == 0 {
            heard.answer.clone_from(&answer);
        }
        ensure!(answer == heard.answer, "{}: {:?}, then {answer:?}", clock.now(), heard.answer);
        heard.lines += 1;
        thread::sleep(PAUSE);
    }
    Ok(heard)
}

impl Line {
    fn ask(&mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        let mut part = [0; 256];
        while !answer.ends_with(b"\n") {
            let length = match self {
                Self::Tcp(stream) => {
                    if answer.is_empty() {
                        stream.write_all(b"still there?")?;
                    }
                    stream.read(&mut part)
                }
                Self::Udp(socket) => {
                    socket.send(b"still there?")?;
                    socket.recv(&mut part)
                }
            };
            match length {
                Ok(0) => bail!("the other end closed it"),
                Ok(length) => answer.extend(&part[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer in {PATIENCE:?}"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8(answer)?)
    }
}
