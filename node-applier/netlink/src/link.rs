//! A netlink socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::attr::{Attributes, Message, host_u32};
use crate::error::Error;
use crate::uapi::*;

/// The kernel makes dumps in pieces of at most 32 KiB and batches of notifications smaller than that.
const DATAGRAM: usize = 64 * 1024;
/// Room for the errors of a batch that fails in a thousand places, and for a thousand notifications.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// The kernel answers before `send` returns; this only bounds what must not happen.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    port: u32,
    send_buffer: usize,
    datagram: Vec<u8>,
}

impl Link {
    /// A socket to nfnetlink.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_to(NETLINK_NETFILTER)
    }

    /// A socket to one of netlink's protocols.
    pub(crate) fn open_to(protocol: isize) -> Result<Self, Error> {
        let mut socket = Socket::new(protocol).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => Error::Unsupported(error),
            _ => Error::socket("open")(error),
        })?;
        let port = socket.bind_auto().map_err(Error::socket("bind"))?.port_number();
        // Errors with a text and the place, and without a copy of the message that failed.
        socket.set_ext_ack(true).map_err(Error::socket("ask for extended acknowledgements"))?;
        socket.set_cap_ack(true).map_err(Error::socket("ask for short acknowledgements"))?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))
            .map_err(Error::socket("set the time limit"))?;
        // The "force" variants need CAP_NET_ADMIN in the initial user namespace.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
                .map_err(Error::socket("set the receive buffer"))?;
        }
        Ok(Self { socket, port, send_buffer: 0, datagram: vec![0; DATAGRAM] })
    }

    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    pub(crate) fn join(&self, group: u32) -> Result<(), Error> {
        self.socket.add_membership(group).map_err(Error::socket("join the group of nftables notifications"))
    }

    pub(crate) fn leave(&self, group: u32) -> Result<(), Error> {
        self.socket.drop_membership(group).map_err(Error::socket("leave the group of nftables notifications"))
    }

    /// Sends in one piece: a transaction must not be split, so the send buffer grows to its size.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // netlink_sendmsg wants 32 bytes more than the message.
        let needed = bytes.len() + 4096;
        if needed > self.send_buffer {
            if sockopt::set_socket_send_buffer_size_force(&self.socket, needed).is_err() {
                // Capped by net.core.wmem_max; send then says whether it was enough.
                sockopt::set_socket_send_buffer_size(&self.socket, needed)
                    .map_err(Error::socket("set the send buffer"))?;
            }
            self.send_buffer = needed;
        }
        match retry_on_intr(|| send(&self.socket, bytes, SendFlags::empty())) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Error::TooLarge { bytes: bytes.len() }),
            Err(error) => Err(Error::socket("send")(error)),
        }
    }

    /// The next datagram; none when there is none (with [`RecvFlags::DONTWAIT`]) or none came in time. What does not
    /// fit into the receive buffer is [`Error::Lost`]; later datagrams can be read after that.
    pub(crate) fn receive(&mut self, flags: RecvFlags) -> Result<Option<&[u8]>, Error> {
        let flags = flags | RecvFlags::TRUNC;
        match retry_on_intr(|| recv(&self.socket, &mut self.datagram[..], flags)) {
            Ok((len, whole)) if len == whole => Ok(Some(&self.datagram[..len])),
            Ok(_) | Err(Errno::NOBUFS) => Err(Error::Lost),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::socket("receive")(error)),
        }
    }

    /// Throws away what is left of earlier requests.
    pub(crate) fn discard(&mut self) -> Result<(), Error> {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(Error::Lost) => (),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `struct nlmsgerr` and its attributes: an error, or an acknowledgement (errno 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) errno: i32,
    pub(crate) text: Option<String>,
    /// The attribute complained about, from the start of the request's message.
    pub(crate) offset: Option<u32>,
}

impl Reply {
    /// The reply in a message of type `NLMSG_ERROR`; none in any other.
    pub(crate) fn of(message: &Message<'_>) -> Option<Self> {
        if message.kind != NLMSG_ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(message.body.get(..4)?.try_into().ok()?);
        let mut reply = Self { errno: code.checked_neg()?, text: None, offset: None };
        if message.flags & NLM_F_ACK_TLVS != 0 {
            // The header of the request stands behind the code; its body too, unless capped.
            let request = usize::try_from(host_u32(message.body, 4)?).ok()?;
            let repeated = if message.flags & NLM_F_CAPPED == 0 { request } else { NLMSG_HDRLEN };
            let behind = repeated.checked_next_multiple_of(4)?.checked_add(4)?;
            let attributes = Attributes(message.body.get(behind..).unwrap_or_default());
            reply.text = attributes.text(NLMSGERR_ATTR_MSG).map(str::to_owned);
            reply.offset = attributes.raw(NLMSGERR_ATTR_OFFS).and_then(|raw| host_u32(raw, 0));
        }
        Some(reply)
    }

    /// This reply as the error that an operation failed with.
    pub(crate) fn into_error(self, operation: impl FnOnce(Option<u32>) -> String) -> Error {
        match Errno::from_raw_os_error(self.errno) {
            Errno::PERM => Error::Permission,
            Errno::RESTART => Error::Changed,
            Errno::INTR => Error::Interrupted,
            _ => {
                let operation = operation(self.offset);
                Error::Refused { operation, errno: self.errno, kernel_message: self.text }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: u16, body: &[u8]) -> Option<Reply> {
        Reply::of(&Message { kind: NLMSG_ERROR, flags, seq: 1, port: 0, body })
    }

    #[test]
    fn replies_are_read_with_and_without_the_request() {
        let mut body = (-2_i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&20_u32.to_ne_bytes());
        body.extend_from_slice(&[0; 12]);
        let plain = error(NLM_F_CAPPED, &body).unwrap();
        assert_eq!((plain.errno, plain.text, plain.offset), (2, None, None));

        let attributes: Vec<u8> =
            [&[8, 0, 2, 0][..], &48_u32.to_ne_bytes(), &[7, 0, 1, 0, b'n', b'o', 0, 0]].concat();
        let capped = [body.clone(), attributes.clone()].concat();
        let expected = Some(Reply { errno: 2, text: Some("no".to_owned()), offset: Some(48) });
        assert_eq!(error(NLM_F_CAPPED | NLM_F_ACK_TLVS, &capped), expected);
        let whole = [body, vec![0; 4], attributes].concat();
        assert_eq!(error(NLM_F_ACK_TLVS, &whole), expected);

        for len in 0..whole.len() {
            let _ = error(NLM_F_ACK_TLVS, &whole[..len]);
        }
        let mut huge = whole;
        huge[..8].copy_from_slice(&[0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(error(NLM_F_ACK_TLVS, &huge), None);
    }
}
