//! Noticing that the node's addresses changed.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use crate::error::Error;
use crate::uapi::*;

/// Room for the beginning of a notification; nothing of it is looked at.
const DATAGRAM: usize = 256;

/// A socket that hears of addresses and interfaces that come, go or change in the network namespace of the thread that
/// opens it. It tells that something happened, not what: whoever asks reads the addresses anew. Its file descriptor
/// becomes readable when something happened.
#[derive(Debug)]
pub struct AddressMonitor {
    socket: Socket,
}

impl AddressMonitor {
    /// Listens from now on. Needs no capability.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::socket("open for addresses"))?;
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        socket
            .bind(&SocketAddr::new(0, groups))
            .map_err(Error::socket("join the groups of address changes"))?;
        Ok(Self { socket })
    }

    /// Whether anything happened since the last call, or may have: notifications that did not fit into the receive
    /// buffer count. Never waits, and is one system call when nothing happened.
    pub fn changed(&mut self) -> Result<bool, Error> {
        let mut changed = false;
        let mut datagram = [0; DATAGRAM];
        loop {
            match retry_on_intr(|| recv(&self.socket, &mut datagram[..], RecvFlags::DONTWAIT)) {
                // A lost notification is told once, by ENOBUFS; later ones can be read after that.
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::WOULDBLOCK) => return Ok(changed),
                Err(error) => return Err(Error::socket("receive address changes")(error)),
            }
        }
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
