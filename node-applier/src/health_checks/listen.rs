//! One listener: how it is bound and served.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind as bind_socket};
use nix::sys::socket::{listen as listen_socket, setsockopt, socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tracing::debug;

use super::{Place, Slots, unspecified};

const BACKLOG: i32 = 128;
/// How long a client may take to ask, and a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(10);

/// Binds a port of an address; without one of all addresses of both families, or of IPv4 where there is no IPv6.
pub(super) fn bind(place: Place, port: u16) -> io::Result<TcpListener> {
    let listener = match place {
        Some(addr) => std::net::TcpListener::bind((addr, port))?,
        None => match dual_stack(port) {
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                std::net::TcpListener::bind((unspecified(false), port))?
            }
            listener => listener?,
        },
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The standard library leaves it to a sysctl whether a socket of `::` hears IPv4.
fn dual_stack(port: u16) -> nix::Result<std::net::TcpListener> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    setsockopt(&fd, Ipv6V6Only, &false)?;
    let IpAddr::V6(addr) = unspecified(true) else { unreachable!("asked for IPv6") };
    bind_socket(fd.as_raw_fd(), &SockaddrIn6::from(std::net::SocketAddrV6::new(addr, port, 0, 0)))?;
    listen_socket(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

/// Serves until it is aborted; connections end with it. A connection needs a slot of each kind; the next one is not
/// accepted while one waits for its slots.
pub(super) async fn serve(
    listener: Arc<TcpListener>,
    slots: Slots,
    answer: impl Fn(SocketAddr) -> Response<Full<Bytes>> + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let [own, common] = slots.clone();
        let (Ok(own), Ok(common)) = (own.acquire_owned().await, common.acquire_owned().await) else { return };
        let answer = answer.clone();
        connections.spawn(async move {
            converse(stream, answer).await;
            drop((own, common));
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, answer: impl Fn(SocketAddr) -> Response<Full<Bytes>>) {
    let Ok(at) = stream.local_addr() else { return };
    let service = service_fn(move |_| std::future::ready(Ok::<_, Infallible>(answer(at))));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        // A slot is for one answer: probers that keep their connections would keep others out.
        .keep_alive(false)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended");
    }
}
