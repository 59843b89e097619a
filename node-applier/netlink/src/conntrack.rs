//! Conntrack's UDP entries: reading and deleting them (ctnetlink).
//!
//! A UDP flow follows the NAT that its first packet met for as long as it sends, whatever the rules say meanwhile. So
//! flows to endpoints that are gone have to be deleted.

use rulecast_bundle::nft::Family;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::attr::{Buffer, messages};
use crate::connection::Connection;
use crate::describe::family_word;
use crate::error::Error;
use crate::expr::family_number;
use crate::link::Reply;
use crate::requests::end_of_dump;
use crate::uapi::*;

mod flow;
#[cfg(test)]
mod tests;

pub use flow::{Destinations, Flow};

/// Deletions in one `send`. The error of each, should all of them fail, fits into the receive buffer.
const DELETIONS: usize = 256;

/// A netlink socket to the conntrack table of the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Conntrack {
    connection: Connection,
    /// Whether dumps ask the kernel to filter. Not any more once it refused to.
    filter: bool,
}

/// What a dump took, and whether it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Flows that were asked for.
    pub flows: usize,
    /// Entries that the kernel sent, those included that nobody asked for.
    pub entries: usize,
    /// Bytes that the kernel sent.
    pub bytes: usize,
    /// Whether nothing disturbed the dump. Else flows may be missing, and those that were read are as good as ever.
    pub complete: bool,
}

impl Conntrack {
    /// Opens a connection and makes sure that ctnetlink is there and may be used.
    pub fn open() -> Result<Self, Error> {
        let mut conntrack = Self { connection: Connection::unproven()?, filter: true };
        match conntrack.entries() {
            // What nfnetlink says for a subsystem that it does not know.
            Err(Error::Refused { errno, .. }) if errno == Errno::INVAL.raw_os_error() => {
                Err(Error::NoConntrack(std::io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(conntrack),
        }
    }

    /// The number of entries of all protocols and families, with those that expired and were not yet collected.
    pub fn entries(&mut self) -> Result<u32, Error> {
        let read = |answer: crate::attr::Attributes<'_>| answer.number(CTA_STATS_GLOBAL_ENTRIES);
        self.connection
            .get(IPCTNL_MSG_CT_GET_STATS, 0, "count the conntrack entries", |_| (), read)?
            .ok_or(Error::Malformed("no number of conntrack entries"))
    }

    /// Tells `each` all UDP flows of a family whose original destination is one of `to`, as they arrive.
    ///
    /// The kernel looks at every entry of its table and sends those that match, so time spent there follows the table
    /// and bytes follow the match. Exceptions, in which it sends more and the rest is left out here: kernels before 5.8
    /// filter by family only; and for IPv6 the kernel is not asked to compare addresses, because it takes unequal
    /// ones for equal (`ctnetlink_filter_match_tuple`; so still in 6.18), only protocol and port.
    pub fn udp_flows(
        &mut self,
        family: Family,
        to: Destinations,
        mut each: impl FnMut(&Flow),
    ) -> Result<Read, Error> {
        if self.filter {
            match self.dump(family, to, true, &mut each) {
                Err(Error::Refused { errno, .. })
                    if errno == Errno::INVAL.raw_os_error() || errno == Errno::OPNOTSUPP.raw_os_error() =>
                {
                    self.filter = false;
                }
                result => return result,
            }
        }
        self.dump(family, to, false, &mut each)
    }

    /// Deletes a flow; false when it is gone already. A later flow between the same addresses stays if it goes to another
    /// endpoint.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        self.delete_all(std::slice::from_ref(flow)).map(|deleted| deleted == 1)
    }

    /// Deletes flows as [`Self::delete`] does; returns how many were still there. On an error some are deleted and
    /// others are not.
    pub fn delete_all(&mut self, flows: &[Flow]) -> Result<usize, Error> {
        let mut deleted = 0;
        for flows in flows.chunks(DELETIONS) {
            deleted += self.delete_some(flows)?;
        }
        Ok(deleted)
    }

    fn dump(
        &mut self,
        family: Family,
        to: Destinations,
        filter: bool,
        each: &mut impl FnMut(&Flow),
    ) -> Result<Read, Error> {
        let write = |request: &mut Buffer| {
            if filter {
                flow::write_filter(request, family, to);
            }
        };
        let seq = self.connection.request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family_number(family), write)?;
        let mut read = Read { flows: 0, entries: 0, bytes: 0, complete: true };
        while let Some(datagram) = self.connection.link.receive(RecvFlags::empty())? {
            for (_, message) in messages(datagram).filter(|(_, m)| m.seq == seq) {
                read.complete &= message.flags & NLM_F_DUMP_INTR == 0;
                match end_of_dump(&message) {
                    Some(reply) if reply.errno == 0 => return Ok(read),
                    Some(reply) if reply.errno == Errno::INTR.raw_os_error() => {
                        return Ok(Read { complete: false, ..read });
                    }
                    Some(reply) => return Err(reply.into_error(|_| list(family))),
                    None => (),
                }
                read.entries += 1;
                read.bytes += message.body.len() + NLMSG_HDRLEN;
                let flow = Flow::read(message.attributes());
                if let Some(flow) = flow.filter(|flow| flow.family() == family && to.contain(flow.dest)) {
                    read.flows += 1;
                    each(&flow);
                }
            }
        }
        Err(Error::Timeout("a dump of the conntrack entries"))
    }

    /// Sends several deletions at once. The kernel works one after the other and answers to those that fail and to the
    /// last one, all before `send` returns (`netlink_rcv_skb`).
    fn delete_some(&mut self, flows: &[Flow]) -> Result<usize, Error> {
        let link = &mut self.connection.link;
        link.discard()?;
        let request = flow::deletions(flows);
        link.send(request.bytes())?;
        let (mut gone, mut refused, mut acknowledged) = (0, None, false);
        while let Some(datagram) = link.receive(RecvFlags::DONTWAIT)? {
            for (_, message) in messages(datagram) {
                let Some(reply) = Reply::of(&message) else { continue };
                acknowledged |= usize::try_from(message.seq).is_ok_and(|seq| seq == flows.len());
                if reply.errno == Errno::NOENT.raw_os_error() {
                    gone += 1;
                } else if reply.errno != 0 {
                    refused.get_or_insert(reply);
                }
            }
        }
        match refused {
            Some(reply) => Err(reply.into_error(|_| "delete conntrack entries".to_owned())),
            None if acknowledged => Ok(flows.len() - gone),
            None => Err(Error::Lost),
        }
    }
}

fn list(family: Family) -> String {
    format!("list the conntrack entries of family {}", family_word(family))
}
