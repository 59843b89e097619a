//! Backends: servers that say who they are, and whom they see.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::namespace::Namespace;

/// The ports on which every pod answers, over TCP and UDP.
pub const PORTS: [u16; 2] = [8080, 9090];

/// The port on which every pod keeps connections: it answers each thing that it is sent, until the client ends it.
pub const KEEP: u16 = 7070;

/// Starts a pod's servers. Their threads live as long as the process.
pub fn start(namespace: &Namespace, name: &str) -> anyhow::Result<()> {
    for port in PORTS {
        // One socket for both families.
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let sockets =
            namespace.run(|| Ok::<_, std::io::Error>((TcpListener::bind(any)?, UdpSocket::bind(any)?)))?;
        let (tcp, udp) = sockets.with_context(|| format!("the servers of pod {name} on port {port}"))?;
        let (tcp_name, udp_name) = (name.to_owned(), name.to_owned());
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let name = tcp_name.clone();
                thread::spawn(move || drop(answer(stream, &name, port)));
            }
        });
        thread::spawn(move || {
            let mut request = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut request) {
                let _gone = udp.send_to(text(&udp_name, port, peer).as_bytes(), peer);
            }
        });
    }
    keep(namespace, name).with_context(|| format!("the server of pod {name} on port {KEEP}"))
}

fn keep(namespace: &Namespace, name: &str) -> anyhow::Result<()> {
    let listener = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, KEEP)))??;
    let name = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            thread::spawn(move || drop(answer_each(stream, &name)));
        }
    });
    Ok(())
}

fn answer_each(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut request = [0; 64];
    while stream.read(&mut request)? > 0 {
        stream.write_all(text(name, KEEP, stream.peer_addr()?).as_bytes())?;
    }
    Ok(())
}

fn text(name: &str, port: u16, peer: SocketAddr) -> String {
    format!("{name} {port} {}\n", peer.ip().to_canonical())
}

/// Answers at once, whatever is asked, as HTTP, so that curl can be used too.
fn answer(mut stream: TcpStream, name: &str, port: u16) -> std::io::Result<()> {
    let body = text(name, port, stream.peer_addr()?);
    let head =
        format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with a request unread would reset the connection and might take the answer with it.
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}
