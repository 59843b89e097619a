//! Requests that are acknowledged one by one, many of them in one `send`, and dumps: what IPVS, ipsets and devices share.
//!
//! There are no transactions here. The kernel works through the messages of one `send` in their order, goes on after one
//! that fails, and answers to those that fail and to those that ask for it, all before `send` returns
//! (`netlink_rcv_skb`).

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::attr::{Buffer, Message, host_u32, messages};
use crate::connection::ATTEMPTS;
use crate::error::Error;
use crate::link::{Link, Reply};
use crate::uapi::*;

/// Messages in one `send`. The errors of all of them fit into the receive buffer.
const AT_ONCE: usize = 256;

/// What was sent to the kernel, and what it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
    /// The time inside `send`: all the work that the kernel did.
    pub kernel: Duration,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.kernel += other.kernel;
    }
}

/// The first of several requests that the kernel refused. Others, before and after it, were carried out.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Its position; none when it is unknown which of them were carried out.
    pub at: Option<usize>,
    /// Why.
    #[source]
    pub error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { at: None, error }
    }
}

#[derive(Debug)]
pub(crate) struct Requests {
    link: Link,
    seq: u32,
}

impl Requests {
    pub(crate) fn open(protocol: isize) -> Result<Self, Error> {
        Ok(Self { link: Link::open_to(protocol)?, seq: 0 })
    }

    /// Sends all of `items`, each as `write` encodes it with a sequence number and flags, and waits for the outcome.
    /// Stops behind the run of [`AT_ONCE`] messages in which the first one is refused.
    pub(crate) fn send_all<T>(
        &mut self,
        items: &[T],
        write: impl Fn(&mut Buffer, &T, u32, u16),
        describe: impl Fn(&T) -> String,
    ) -> Result<Sent, Failed> {
        let mut sent = Sent::default();
        for (run, items) in items.chunks(AT_ONCE).enumerate() {
            let mut buffer = Buffer::default();
            for (seq, item) in (1_u32..).zip(items) {
                let last = if seq as usize == items.len() { NLM_F_ACK } else { 0 };
                write(&mut buffer, item, seq, NLM_F_REQUEST | last);
            }
            if buffer.overflow() {
                return Err(Error::TooLarge { bytes: buffer.len() }.into());
            }
            let kernel = self.send_run(&buffer, items.len()).map_err(|(at, reply)| match (at, reply) {
                (Some(at), Ok(reply)) => {
                    let error = reply.into_error(|_| describe(&items[at]));
                    Failed { at: Some(run * AT_ONCE + at), error }
                }
                (_, Ok(_)) => Error::Lost.into(),
                (_, Err(error)) => error.into(),
            })?;
            sent += Sent { messages: items.len(), bytes: buffer.len(), kernel };
        }
        Ok(sent)
    }

    fn send_run(
        &mut self,
        buffer: &Buffer,
        count: usize,
    ) -> Result<Duration, (Option<usize>, Result<Reply, Error>)> {
        let broken = |error| (None, Err(error));
        self.link.discard().map_err(broken)?;
        let start = Instant::now();
        self.link.send(buffer.bytes()).map_err(broken)?;
        let kernel = start.elapsed();
        let (mut refused, mut acknowledged) = (None, false);
        while let Some(datagram) = self.link.receive(RecvFlags::DONTWAIT).map_err(broken)? {
            for (_, message) in messages(datagram) {
                let Some(reply) = Reply::of(&message) else { continue };
                let at = (message.seq as usize).checked_sub(1).filter(|at| *at < count);
                acknowledged |= at == Some(count - 1);
                if reply.errno != 0 && refused.is_none() {
                    refused = Some((at, Ok(reply)));
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if acknowledged => Ok(kernel),
            None => Err(broken(Error::Lost)),
        }
    }

    /// One request with one answer, which `read` reads.
    pub(crate) fn get<T>(
        &mut self,
        operation: &'static str,
        write: impl Fn(&mut Buffer, u32, u16),
        read: impl Fn(&Message<'_>) -> T,
    ) -> Result<T, Error> {
        let seq = self.request(0, &write)?;
        while let Some(datagram) = self.link.receive(RecvFlags::empty())? {
            let Some((_, answer)) = messages(datagram).find(|(_, m)| m.seq == seq) else { continue };
            return match Reply::of(&answer) {
                Some(reply) => Err(reply.into_error(|_| operation.to_owned())),
                None => Ok(read(&answer)),
            };
        }
        Err(Error::Timeout(operation))
    }

    /// Folds a dump into `start()`, begun anew when a change disturbs it.
    pub(crate) fn dump<T>(
        &mut self,
        operation: &'static str,
        write: impl Fn(&mut Buffer, u32, u16),
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let seq = self.request(NLM_F_DUMP, &write)?;
            match self.read_dump(operation, seq, start(), &mut each) {
                Err(Error::Interrupted) => (),
                result => return result,
            }
        }
        Err(Error::Interrupted)
    }

    fn read_dump<T>(
        &mut self,
        operation: &'static str,
        seq: u32,
        mut all: T,
        each: &mut impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T, Error> {
        while let Some(datagram) = self.link.receive(RecvFlags::empty())? {
            for (_, message) in messages(datagram).filter(|(_, m)| m.seq == seq) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(Error::Interrupted);
                }
                match end_of_dump(&message) {
                    Some(reply) if reply.errno == 0 => return Ok(all),
                    Some(reply) => return Err(reply.into_error(|_| operation.to_owned())),
                    None => each(&mut all, &message),
                }
            }
        }
        Err(Error::Timeout(operation))
    }

    fn request(&mut self, flags: u16, write: &impl Fn(&mut Buffer, u32, u16)) -> Result<u32, Error> {
        self.link.discard()?;
        // Not a number that `send_run` uses, so that no late answer is taken for another's.
        self.seq = self.seq.wrapping_add(1) | 0x8000_0000;
        let mut buffer = Buffer::default();
        write(&mut buffer, self.seq, NLM_F_REQUEST | flags);
        self.link.send(buffer.bytes())?;
        Ok(self.seq)
    }
}

/// The end of a dump, as an error or as `NLMSG_DONE` with an error number of its own; none in between.
pub(crate) fn end_of_dump(message: &Message<'_>) -> Option<Reply> {
    if message.kind != NLMSG_DONE {
        return Reply::of(message);
    }
    let code = host_u32(message.body, 0).unwrap_or(0).cast_signed();
    Some(Reply { errno: code.checked_neg()?, text: None, offset: None })
}

/// Whether the kernel does not know whom a request is for.
pub(crate) fn is_unknown(errno: i32) -> bool {
    [Errno::NOENT, Errno::INVAL, Errno::OPNOTSUPP].iter().any(|e| e.raw_os_error() == errno)
}
