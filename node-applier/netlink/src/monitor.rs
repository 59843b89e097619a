//! Noticing what others do to the ruleset.

use std::os::fd::{AsFd, BorrowedFd};

use rulecast_bundle::nft::Family;
use rustix::net::RecvFlags;

use crate::TABLE;
use crate::attr::{Message, message};
use crate::describe::{family_of, subject};
use crate::error::Error;
use crate::link::Link;
use crate::uapi::*;

/// Something that another socket did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It changed one of our tables.
    Foreign {
        /// The table's family.
        family: Family,
        /// What it did: `table deleted`, `elements of set service-ips deleted`.
        what: String,
        /// The port id of the socket.
        port_id: u32,
    },
    /// It committed a transaction, on our tables or others. Comes last of a transaction's events.
    NewGeneration {
        /// The ruleset's generation since then.
        generation: u32,
        /// The name of its process.
        process: String,
        /// Its process id.
        pid: u32,
        /// The port id of the socket.
        port_id: u32,
    },
    /// Events were lost: there were more than the receive buffer holds.
    Overflow,
}

/// A socket that hears of every change of the ruleset in its network namespace (`NFNLGRP_NFTABLES`). Its file
/// descriptor becomes readable when there may be an event.
#[derive(Debug)]
pub struct Monitor {
    link: Link,
    own_port: u32,
    /// The part of the latest datagram that was not looked at yet.
    pending: Vec<u8>,
    position: usize,
}

impl Monitor {
    /// Listens to everybody but the socket with this port id, which is [`Connection::port_id`](crate::Connection).
    pub fn open(own_port: u32) -> Result<Self, Error> {
        let link = Link::open()?;
        link.join(NFNLGRP_NFTABLES)?;
        Ok(Self { link, own_port, pending: Vec::new(), position: 0 })
    }

    /// Stops listening, so that a large transaction of our own costs no notifications, which the kernel makes for each
    /// element and which would fill the receive buffer. What came in before is still there to be read.
    ///
    /// What others do during the pause is missed. To notice it, make the transaction with
    /// [`Batch::with_generation`](crate::Batch::with_generation), and after [`Self::resume`] compare
    /// [`Connection::generation`](crate::Connection::generation) with that of the commit.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.link.leave(NFNLGRP_NFTABLES)
    }

    /// Listens again.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.link.join(NFNLGRP_NFTABLES)
    }

    /// Forgets all that came in so far, for when the kernel's state is about to be read or written as a whole.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.position = self.pending.len();
        self.link.discard()
    }

    /// The next event; none when there is none right now. Never waits.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: it goes on after none")]
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some((message, len)) = message(self.pending.get(self.position..).unwrap_or_default()) {
                self.position += len;
                if let Some(event) = event(&message, self.own_port) {
                    return Ok(Some(event));
                }
            }
            match self.link.receive(RecvFlags::DONTWAIT) {
                Ok(Some(datagram)) => {
                    self.pending.clear();
                    self.pending.extend_from_slice(datagram);
                    self.position = 0;
                }
                Ok(None) => return Ok(None),
                Err(Error::Lost) => return Ok(Some(Event::Overflow)),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// What a notification says, if it is somebody else's and concerns us.
fn event(message: &Message<'_>, own_port: u32) -> Option<Event> {
    if message.port == own_port {
        return None;
    }
    let (attributes, port_id) = (message.attributes(), message.port);
    if message.kind == NFT_MSG_NEWGEN {
        return Some(Event::NewGeneration {
            generation: attributes.number(NFTA_GEN_ID)?,
            process: attributes.text(NFTA_GEN_PROC_NAME).unwrap_or_default().to_owned(),
            pid: attributes.number(NFTA_GEN_PROC_PID).unwrap_or(0),
            port_id,
        });
    }
    let family = family_of(message.family())?;
    if attributes.text(NFTA_TABLE) != Some(TABLE) {
        return None;
    }
    let (subject, added) = subject(message)?;
    let what = format!("{subject} {}", if added { "added" } else { "deleted" });
    Some(Event::Foreign { family, what, port_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;
    use crate::attr::messages;

    /// Requests and notifications have the same form, so a batch does for notifications.
    #[test]
    fn only_other_peoples_changes_of_our_tables_count() {
        let mut batch = Batch::new();
        batch.delete_table(Family::V6);
        batch.add_chain(Family::V4, "lb-3", None);
        let sealed = batch.seal().unwrap();
        let read =
            |bytes: &[u8], own| messages(bytes).filter_map(|(_, m)| event(&m, own)).collect::<Vec<_>>();
        assert_eq!(read(sealed.bytes(), 0), []);
        let foreign = |family, what: &str| Event::Foreign { family, what: what.to_owned(), port_id: 0 };
        let expected = [foreign(Family::V6, "table deleted"), foreign(Family::V4, "chain lb-3 added")];
        assert_eq!(read(sealed.bytes(), 7), expected);

        let mut other = sealed.bytes().to_vec();
        let name = other.windows(8).position(|w| w == TABLE.as_bytes()).unwrap();
        other[name] = b'x';
        assert_eq!(read(&other, 7), expected[1..]);
        for i in 0..other.len() {
            for value in [0, 4, 255] {
                let mut bad = other.clone();
                bad[i] = value;
                read(&bad, 7);
            }
        }
    }
}
