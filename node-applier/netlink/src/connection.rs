//! Requests to nf_tables and their answers.

use std::time::{Duration, Instant};

use rulecast_bundle::nft::Family;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::attr::{Attributes, Buffer, messages};
use crate::batch::{Batch, Sealed};
use crate::describe;
use crate::error::Error;
use crate::link::{Link, Reply};
use crate::uapi::*;

/// How often a commit or a dump that was interrupted is made.
pub(crate) const ATTEMPTS: usize = 3;

/// A netlink socket for transactions and dumps in the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Connection {
    pub(crate) link: Link,
    seq: u32,
}

/// What a transaction did and took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The ruleset's generation right after. If somebody else committed in the microseconds between, it is already
    /// theirs; the monitor tells.
    pub generation: u32,
    /// Bytes sent.
    pub bytes: usize,
    /// Messages sent, the first and the last left out.
    pub messages: usize,
    /// The time inside `send`: all the work that the kernel did.
    pub kernel: Duration,
}

impl Connection {
    /// Opens a connection and makes sure that nf_tables is there and may be used.
    pub fn open() -> Result<Self, Error> {
        let mut connection = Self::unproven()?;
        match connection.generation() {
            Err(Error::Refused { errno, .. })
                if errno == Errno::INVAL.raw_os_error() || errno == Errno::OPNOTSUPP.raw_os_error() =>
            {
                Err(Error::Unsupported(std::io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(connection),
        }
    }

    /// A connection to nfnetlink, of which nothing is known yet.
    pub(crate) fn unproven() -> Result<Self, Error> {
        Ok(Self { link: Link::open()?, seq: 0 })
    }

    /// The socket's port id, by which notifications name whoever made a change.
    #[must_use]
    pub fn port_id(&self) -> u32 {
        self.link.port()
    }

    /// The ruleset's generation: grows with every transaction of anybody (`NFT_MSG_GETGEN`).
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.get(NFT_MSG_GETGEN, 0, "read the ruleset's generation", |_| (), |a| a.number(NFTA_GEN_ID))?
            .ok_or(Error::Malformed("no generation"))
    }

    /// Whether there is a table `rulecast` of this family.
    pub fn table_exists(&mut self, family: Family) -> Result<bool, Error> {
        let table = |request: &mut Buffer| request.text(NFTA_TABLE, crate::TABLE);
        let number = crate::expr::family_number(family);
        match self.get(NFT_MSG_GETTABLE, number, "look for the table", table, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Carries out a transaction. On an error other than [`Error::Lost`] the kernel's state is what it was.
    pub fn commit(&mut self, batch: Batch) -> Result<Committed, Error> {
        let empty = batch.is_empty();
        let batch = batch.seal()?;
        let kernel = if empty { Duration::ZERO } else { self.send_batch(&batch)? };
        // Nothing but a committed transaction stands behind this point, whatever fails.
        let generation = self.generation().map_err(|error| if empty { error } else { Error::Lost })?;
        Ok(Committed { generation, bytes: batch.bytes().len(), messages: batch.messages(), kernel })
    }

    /// Sends a batch until no signal interrupts it.
    fn send_batch(&mut self, batch: &Sealed) -> Result<Duration, Error> {
        for _ in 1..ATTEMPTS {
            match self.try_batch(batch) {
                Err(Error::Interrupted) => (),
                result => return result,
            }
        }
        self.try_batch(batch)
    }

    fn try_batch(&mut self, batch: &Sealed) -> Result<Duration, Error> {
        self.link.discard()?;
        let start = Instant::now();
        self.link.send(batch.bytes())?;
        let kernel = start.elapsed();

        // nfnetlink works inside `send`, so all answers are here by now. Kernels before 6.10 do not acknowledge the
        // end of a batch: then no error means success.
        let (mut refused, mut acknowledged, mut lost) = (None, false, false);
        loop {
            let datagram = match self.link.receive(RecvFlags::DONTWAIT) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                Err(Error::Lost) => {
                    lost = true;
                    continue;
                }
                Err(_) => {
                    lost = true;
                    break;
                }
            };
            for (_, message) in messages(datagram) {
                match Reply::of(&message) {
                    Some(reply) if reply.errno == 0 => acknowledged |= message.seq == batch.end,
                    // The first error is the cause; others may follow from it.
                    Some(reply) if refused.is_none() => refused = Some((message.seq, reply)),
                    _ => (),
                }
            }
        }
        match refused {
            Some((seq, reply)) => {
                Err(reply.into_error(|offset| describe::operation(batch.bytes(), seq, offset)))
            }
            None if lost && !acknowledged => Err(Error::Lost),
            None => Ok(kernel),
        }
    }

    /// One request with one answer, which `read` reads.
    pub(crate) fn get<T>(
        &mut self,
        kind: u16,
        family: u8,
        operation: &'static str,
        write: impl FnOnce(&mut Buffer),
        read: impl Fn(Attributes<'_>) -> T,
    ) -> Result<T, Error> {
        let seq = self.request(kind, 0, family, write)?;
        while let Some(datagram) = self.link.receive(RecvFlags::empty())? {
            let Some((_, answer)) = messages(datagram).find(|(_, m)| m.seq == seq) else { continue };
            return match Reply::of(&answer) {
                Some(reply) => Err(reply.into_error(|_| operation.to_owned())),
                None => Ok(read(answer.attributes())),
            };
        }
        Err(Error::Timeout(operation))
    }

    /// Sends a request; returns its sequence number, which its answers carry.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        write: impl FnOnce(&mut Buffer),
    ) -> Result<u32, Error> {
        self.link.discard()?;
        self.seq = self.seq.wrapping_add(1);
        let mut request = Buffer::default();
        let start = request.open_message(kind, NLM_F_REQUEST | flags, self.seq, family, 0);
        write(&mut request);
        request.close_message(start);
        self.link.send(request.bytes())?;
        Ok(self.seq)
    }
}
