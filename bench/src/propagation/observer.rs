//! When endpoints arrive in a node's kernel, as nf_tables itself tells it.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rulecast_tests::namespace::Namespace;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, recv};
use rustix::process::setpriority_process;

use super::notification::{Proxy, endpoints};

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFNLGRP_NFTABLES: u32 = 7;
/// For all that a transaction of 10,000 Services tells at once.
const RECEIVE_BUFFER: usize = 256 << 20;
/// Batches of notifications are smaller (`NLMSG_GOODSIZE`).
const DATAGRAM: usize = 64 << 10;
/// Between two looks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Listens to what one proxy writes into its node's kernel.
pub(super) struct Observer {
    name: &'static str,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When an endpoint was told to be new for the first time.
    arrived: HashMap<SocketAddrV4, Instant>,
    /// Why not everything was heard.
    failure: Option<String>,
}

impl Observer {
    /// Begins to listen in a namespace, on a thread of its own.
    pub(super) fn start(name: &'static str, namespace: &Namespace, proxy: Proxy) -> Result<Self> {
        let socket = namespace.run(open)?.context("listening to nf_tables")?;
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&socket, proxy, &shared)
        });
        Ok(Self { name, shared, thread: Some(thread) })
    }

    /// When an endpoint arrived, if it did. Fails when notifications were lost.
    pub(super) fn arrival(&self, endpoint: SocketAddrV4) -> Result<Option<Instant>> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &seen.failure {
            bail!("the notifications of {}'s kernel were not all heard: {failure}", self.name);
        }
        Ok(seen.arrived.get(&endpoint).copied())
    }

    /// Whose rules these are.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _its_own_failure = thread.join();
        }
    }
}

fn open() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    socket.add_membership(NFNLGRP_NFTABLES)?;
    Ok(socket)
}

fn listen(socket: &Socket, proxy: Proxy, shared: &Shared) {
    // A machine that is busy must not look like a slow proxy. Without the right to it, times are a little worse.
    let _without = setpriority_process(None, -20);
    let mut datagram = vec![0; DATAGRAM];
    while !shared.stop.load(Ordering::Relaxed) {
        let received = retry_on_intr(|| recv(socket, &mut datagram[..], RecvFlags::TRUNC));
        let now = Instant::now();
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match received {
            Ok((len, whole)) if len == whole => {
                for endpoint in endpoints(&datagram[..len], proxy) {
                    seen.arrived.entry(endpoint).or_insert(now);
                }
            }
            Err(Errno::WOULDBLOCK) => {}
            Ok((_, whole)) => seen.failure = Some(format!("a datagram of {whole} bytes")),
            Err(error) => {
                seen.failure = Some(error.to_string());
                return;
            }
        }
    }
}
