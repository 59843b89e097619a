//! A device that only holds addresses, over rtnetlink (`include/uapi/linux/rtnetlink.h`, `if_link.h`, `if_addr.h`).

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use crate::attr::{Attributes, Buffer, Message, host_u32};
use crate::error::Error;
use crate::requests::{Failed, Requests, Sent};
use crate::uapi::*;

#[cfg(test)]
mod tests;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// `struct ifinfomsg`: family, type, index, flags, and which flags are meant.
const IFINFOMSG_LEN: usize = 16;
/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const IFADDRMSG_LEN: usize = 8;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
/// The address is used at once, without asking whether somebody else has it.
const IFA_F_NODAD: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What to do with an address of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOperation {
    /// Adds it, with a prefix of its full length; `EEXIST` if it is there.
    Add(IpAddr),
    /// Removes it; `EADDRNOTAVAIL` if it is not there.
    Remove(IpAddr),
}

/// A dummy device in the network namespace of the thread that opens the socket.
#[derive(Debug)]
pub struct Device {
    requests: Requests,
    name: String,
    index: u32,
}

impl Device {
    /// Finds the device, or makes it, and sets it up. Names have up to 15 bytes.
    pub fn open_or_create(name: &str) -> Result<Self, Error> {
        if let Some(device) = Self::open(name)? {
            return Ok(device);
        }
        let mut requests = Requests::open(NETLINK_ROUTE)?;
        let describe = |name: &&str| format!("make the device {name}");
        match requests.send_all(&[name], write_new, describe) {
            Err(failed) if failed.error.errno() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
                let (what, module) = ("dummy devices".to_owned(), "dummy".to_owned());
                return Err(Error::NoModule { what, module });
            }
            other => other.map_err(|failed| failed.error)?,
        };
        Self::open(name)?.ok_or(Error::Malformed("a device that was just made is not there"))
    }

    /// Finds the device and sets it up; none when there is none of this name.
    pub fn open(name: &str) -> Result<Option<Self>, Error> {
        let mut requests = Requests::open(NETLINK_ROUTE)?;
        let index = requests.get(
            "look for a device",
            |b, seq, flags| write_link(b, RTM_GETLINK, seq, flags, 0, |b| b.text(IFLA_IFNAME, name)),
            |answer| host_u32(answer.body, 4),
        );
        let index = match index {
            Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => return Ok(None),
            index => index?.ok_or(Error::Malformed("a device without an index"))?,
        };
        let up = |b: &mut Buffer, index: &u32, seq: u32, flags: u16| {
            let start = b.open_header(RTM_NEWLINK, flags, seq, &ifinfomsg(*index, IFF_UP, IFF_UP));
            b.close_message(start);
        };
        requests
            .send_all(&[index], up, |_| format!("set the device {name} up"))
            .map_err(|failed| failed.error)?;
        Ok(Some(Self { requests, name: name.to_owned(), index }))
    }

    /// Removes the device with its addresses.
    pub fn delete(mut self) -> Result<(), Error> {
        let delete = |b: &mut Buffer, index: &u32, seq: u32, flags: u16| {
            write_link(b, RTM_DELLINK, seq, flags, *index, |_| ());
        };
        let describe = |_: &u32| format!("remove the device {}", self.name);
        self.requests.send_all(&[self.index], delete, describe).map_err(|failed| failed.error)?;
        Ok(())
    }

    /// Its addresses, those left out that the kernel gives each device by itself.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, Error> {
        let index = self.index;
        self.requests.dump(
            "list the addresses of a device",
            |b, seq, flags| {
                let start = b.open_header(RTM_GETADDR, flags, seq, &[0; IFADDRMSG_LEN]);
                b.close_message(start);
            },
            Vec::new,
            |all, message| all.extend(read_address(message, index)),
        )
    }

    /// Adds and removes addresses one after the other. When one is refused, those behind it may have been carried out.
    pub fn apply(&mut self, operations: &[AddressOperation]) -> Result<Sent, Failed> {
        let (index, name) = (self.index, &self.name);
        self.requests.send_all(
            operations,
            |b, operation, seq, flags| write_address(b, index, *operation, seq, flags),
            |operation| match operation {
                AddressOperation::Add(addr) => format!("add the address {addr} to {name}"),
                AddressOperation::Remove(addr) => format!("remove the address {addr} from {name}"),
            },
        )
    }
}

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_LEN] {
    let mut header = [0; IFINFOMSG_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn write_link(b: &mut Buffer, kind: u16, seq: u32, flags: u16, index: u32, write: impl FnOnce(&mut Buffer)) {
    let start = b.open_header(kind, flags, seq, &ifinfomsg(index, 0, 0));
    write(b);
    b.close_message(start);
}

fn write_new(b: &mut Buffer, name: &&str, seq: u32, flags: u16) {
    write_link(b, RTM_NEWLINK, seq, flags | NLM_F_CREATE | NLM_F_EXCL, 0, |b| {
        b.text(IFLA_IFNAME, name);
        b.nest(IFLA_LINKINFO, |b| b.text(IFLA_INFO_KIND, "dummy"));
    });
}

fn write_address(b: &mut Buffer, index: u32, operation: AddressOperation, seq: u32, flags: u16) {
    let (kind, flags, addr) = match operation {
        AddressOperation::Add(addr) => (RTM_NEWADDR, flags | NLM_F_CREATE | NLM_F_EXCL, addr),
        AddressOperation::Remove(addr) => (RTM_DELADDR, flags, addr),
    };
    let (family, len) = if addr.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
    let mut header = [family, len, IFA_F_NODAD, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let start = b.open_header(kind, flags, seq, &header);
    match addr {
        IpAddr::V4(addr) => b.raw(IFA_LOCAL, &addr.octets()),
        IpAddr::V6(addr) => b.raw(IFA_LOCAL, &addr.octets()),
    }
    b.close_message(start);
}

/// The address in an answer, if it is this device's and not one of the link's own (`fe80::/64`).
fn read_address(message: &Message<'_>, index: u32) -> Option<IpAddr> {
    if message.kind != RTM_NEWADDR || host_u32(message.body, 4)? != index {
        return None;
    }
    let attributes: Attributes<'_> = message.attributes_after(IFADDRMSG_LEN);
    let raw = attributes.raw(IFA_LOCAL).or_else(|| attributes.raw(IFA_ADDRESS))?;
    let addr = match message.family() {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(raw).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(raw).ok()?),
        _ => return None,
    };
    let link = matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
    (!link).then_some(addr)
}
