//! IPVS over generic netlink: virtual servers, their destinations, and the timeouts of connections.
//!
//! From `include/uapi/linux/ip_vs.h` and `net/netfilter/ipvs/ip_vs_ctl.c`. Every message is an operation of its own; there
//! are no transactions, so whoever changes more than one thing puts the messages into an order that is right after each of
//! them.

use std::net::{IpAddr, Ipv6Addr};

use crate::attr::{Attributes, Buffer, host_u16};
use crate::error::Error;
use crate::genl;
use crate::requests::{Failed, Requests, Sent, is_unknown};

#[cfg(test)]
mod tests;
mod uapi;

use uapi::*;

/// A frontend: what packets are addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServer {
    /// Its address.
    pub addr: IpAddr,
    /// Its protocol, as IANA numbers it: TCP, UDP or SCTP.
    pub proto: u8,
    /// Its port.
    pub port: u16,
}

/// How a frontend's connections are spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduling {
    /// The scheduler's name; its module is called `ip_vs_NAME`.
    pub scheduler: String,
    /// Session affinity by client address, for so many seconds: IPVS calls it persistence. None: no affinity.
    pub persistence: Option<u32>,
    /// Of `sh` and `mh`, which are the only ones that know it: a client whose destination takes no connections gets another
    /// one instead of being refused.
    pub fallback: bool,
}

/// A real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Its address, of the frontend's family.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
}

/// A real server as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationState {
    /// Where it is.
    pub destination: Destination,
    /// 0: no new connection goes to it.
    pub weight: u32,
    /// Its packets are translated, as all are that this crate makes; others tunnel or route.
    pub translates: bool,
    /// Established connections.
    pub active: u32,
    /// Connections that are being opened or closed, or know no such states.
    pub inactive: u32,
    /// Templates of session affinity.
    pub persistent: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes a virtual server; `EEXIST` if there is one, `ENOENT` if there is no such scheduler.
    NewService(VirtualServer, Scheduling),
    /// Changes one; `ESRCH` if there is none. Between two schedulers the kernel has a moment without one, in which new
    /// connections are refused (`ip_vs_edit_service`).
    SetService(VirtualServer, Scheduling),
    /// Removes one with its destinations. Packets of their connections are dropped from then on.
    DeleteService(VirtualServer),
    /// Adds a destination of this weight; `EEXIST` if it is there.
    NewDestination(VirtualServer, Destination, u32),
    /// Changes its weight; `ENOENT` if it is not there.
    SetDestination(VirtualServer, Destination, u32),
    /// Removes it. Packets of its connections are dropped from then on, and with `expire_nodest_conn` the connections are
    /// forgotten, so that UDP flows go elsewhere.
    DeleteDestination(VirtualServer, Destination),
}

/// How long IPVS remembers idle connections, in seconds. In a request, 0 leaves a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP connections after a FIN.
    pub tcp_fin: u32,
    /// UDP flows.
    pub udp: u32,
}

/// A socket to the IPVS of the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Ipvs {
    requests: Requests,
    family: u16,
}

impl Ipvs {
    /// Opens it and makes sure that IPVS is there; the kernel loads the module if it can. Whether it may be used shows at
    /// the first request.
    pub fn open() -> Result<Self, Error> {
        match genl::open(IPVS_GENL_NAME) {
            Ok((requests, family)) => Ok(Self { requests, family }),
            Err(Error::Refused { errno, .. }) if is_unknown(errno) => {
                Err(Error::NoIpvs(std::io::Error::from_raw_os_error(errno)))
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out operations one after the other. When one is refused, those behind it may have been carried out.
    pub fn apply(&mut self, operations: &[Operation]) -> Result<Sent, Failed> {
        let family = self.family;
        self.requests.send_all(
            operations,
            |b, operation, seq, flags| operation.write(b, family, seq, flags),
            Operation::describe,
        )
    }

    /// Whether the kernel has a scheduler of this name. It is tried with a virtual server that no packet can meet: for a
    /// firewall mark, under which the kernel keeps servers apart from those with addresses.
    pub fn has_scheduler(&mut self, name: &str, mark: u32) -> Result<bool, Error> {
        let family = self.family;
        let write = |b: &mut Buffer, command: &u8, seq: u32, flags: u16| {
            genl::message(b, family, flags, seq, (*command, IPVS_GENL_VERSION), |b| {
                write_marked(b, mark, name);
            });
        };
        let describe = |_: &u8| format!("try the scheduler {name}");
        match self.requests.send_all(&[IPVS_CMD_NEW_SERVICE], write, describe) {
            Err(failed) if failed.error.is_not_found() => return Ok(false),
            other => other.map_err(|failed| failed.error)?,
        };
        self.requests.send_all(&[IPVS_CMD_DEL_SERVICE], write, describe).map_err(|failed| failed.error)?;
        Ok(true)
    }

    /// All virtual servers that have an address; those for firewall marks are left out.
    pub fn services(&mut self) -> Result<Vec<(VirtualServer, Scheduling)>, Error> {
        let family = self.family;
        self.requests.dump(
            "list the virtual servers",
            |b, seq, flags| {
                genl::message(b, family, flags, seq, (IPVS_CMD_GET_SERVICE, IPVS_GENL_VERSION), |_| ());
            },
            Vec::new,
            |all, message| all.extend(read_service(message.attributes().nest(IPVS_CMD_ATTR_SERVICE))),
        )
    }

    /// The destinations of a virtual server.
    pub fn destinations(&mut self, server: &VirtualServer) -> Result<Vec<DestinationState>, Error> {
        let family = self.family;
        self.requests.dump(
            "list the destinations of a virtual server",
            |b, seq, flags| {
                genl::message(b, family, flags, seq, (IPVS_CMD_GET_DEST, IPVS_GENL_VERSION), |b| {
                    b.nest(IPVS_CMD_ATTR_SERVICE, |b| write_server(b, server));
                });
            },
            Vec::new,
            |all, message| {
                let read = read_destination(message.attributes().nest(IPVS_CMD_ATTR_DEST), server.addr);
                all.extend(read);
            },
        )
    }

    /// Sets the timeouts that are not 0.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<Sent, Error> {
        let family = self.family;
        self.requests
            .send_all(
                &[timeouts],
                |b, timeouts, seq, flags| {
                    genl::message(b, family, flags, seq, (IPVS_CMD_SET_CONFIG, IPVS_GENL_VERSION), |b| {
                        write_timeouts(b, *timeouts);
                    });
                },
                |_| "set the timeouts of IPVS".to_owned(),
            )
            .map_err(|failed| failed.error)
    }

    /// The timeouts in force.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let family = self.family;
        self.requests.get(
            "read the timeouts of IPVS",
            |b, seq, flags| {
                genl::message(b, family, flags, seq, (IPVS_CMD_GET_CONFIG, IPVS_GENL_VERSION), |_| ());
            },
            |answer| {
                let seconds = |kind| answer.attributes().host(kind).unwrap_or(0);
                Timeouts {
                    tcp: seconds(IPVS_CMD_ATTR_TIMEOUT_TCP),
                    tcp_fin: seconds(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN),
                    udp: seconds(IPVS_CMD_ATTR_TIMEOUT_UDP),
                }
            },
        )
    }
}

impl Operation {
    fn write(&self, b: &mut Buffer, family: u16, seq: u32, flags: u16) {
        let command = match self {
            Self::NewService(..) => IPVS_CMD_NEW_SERVICE,
            Self::SetService(..) => IPVS_CMD_SET_SERVICE,
            Self::DeleteService(_) => IPVS_CMD_DEL_SERVICE,
            Self::NewDestination(..) => IPVS_CMD_NEW_DEST,
            Self::SetDestination(..) => IPVS_CMD_SET_DEST,
            Self::DeleteDestination(..) => IPVS_CMD_DEL_DEST,
        };
        genl::message(b, family, flags, seq, (command, IPVS_GENL_VERSION), |b| self.write_body(b));
    }

    fn write_body(&self, b: &mut Buffer) {
        match self {
            Self::NewService(server, scheduling) | Self::SetService(server, scheduling) => {
                b.nest(IPVS_CMD_ATTR_SERVICE, |b| {
                    write_server(b, server);
                    write_scheduling(b, server.addr.is_ipv4(), scheduling);
                });
            }
            Self::DeleteService(server) => b.nest(IPVS_CMD_ATTR_SERVICE, |b| write_server(b, server)),
            Self::NewDestination(server, to, weight) | Self::SetDestination(server, to, weight) => {
                b.nest(IPVS_CMD_ATTR_SERVICE, |b| write_server(b, server));
                b.nest(IPVS_CMD_ATTR_DEST, |b| {
                    write_destination(b, to);
                    for (kind, number) in [
                        (IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ),
                        (IPVS_DEST_ATTR_WEIGHT, *weight),
                        (IPVS_DEST_ATTR_U_THRESH, 0),
                        (IPVS_DEST_ATTR_L_THRESH, 0),
                    ] {
                        b.raw(kind, &number.to_ne_bytes());
                    }
                });
            }
            Self::DeleteDestination(server, to) => {
                b.nest(IPVS_CMD_ATTR_SERVICE, |b| write_server(b, server));
                b.nest(IPVS_CMD_ATTR_DEST, |b| write_destination(b, to));
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::NewService(server, how) => {
                format!("make the virtual server {server} with the scheduler {}", how.scheduler)
            }
            Self::SetService(server, how) => {
                format!("give the virtual server {server} the scheduler {}", how.scheduler)
            }
            Self::DeleteService(server) => format!("remove the virtual server {server}"),
            Self::NewDestination(server, to, _) => format!("add {to} to the virtual server {server}"),
            Self::SetDestination(server, to, weight) => {
                format!("give {to} of the virtual server {server} the weight {weight}")
            }
            Self::DeleteDestination(server, to) => format!("remove {to} from the virtual server {server}"),
        }
    }
}

impl std::fmt::Display for VirtualServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let proto = match self.proto {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "?",
        };
        write!(f, "{}/{proto}", std::net::SocketAddr::new(self.addr, self.port))
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.addr, self.port).fmt(f)
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 takes the first four.
fn union(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&addr.octets());
            bytes
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn read_union(raw: &[u8], v4: bool) -> Option<IpAddr> {
    if v4 {
        return raw.get(..4)?.try_into().ok().map(|raw: [u8; 4]| raw.into());
    }
    raw.get(..16)?.try_into().ok().map(|raw: [u8; 16]| Ipv6Addr::from(raw).into())
}

fn af(v4: bool) -> u16 {
    if v4 { AF_INET } else { AF_INET6 }
}

fn write_server(b: &mut Buffer, server: &VirtualServer) {
    b.raw(IPVS_SVC_ATTR_AF, &af(server.addr.is_ipv4()).to_ne_bytes());
    b.raw(IPVS_SVC_ATTR_PROTOCOL, &u16::from(server.proto).to_ne_bytes());
    b.raw(IPVS_SVC_ATTR_ADDR, &union(server.addr));
    b.raw(IPVS_SVC_ATTR_PORT, &server.port.to_be_bytes());
}

fn write_scheduling(b: &mut Buffer, v4: bool, how: &Scheduling) {
    b.text(IPVS_SVC_ATTR_SCHED_NAME, &how.scheduler);
    let persistent = if how.persistence.is_some() { IP_VS_SVC_F_PERSISTENT } else { 0 };
    let flags = persistent | if how.fallback { IP_VS_SVC_F_SCHED1 } else { 0 };
    // All flags are meant, so that one that was set goes.
    b.raw(IPVS_SVC_ATTR_FLAGS, &[flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
    b.raw(IPVS_SVC_ATTR_TIMEOUT, &how.persistence.unwrap_or(0).to_ne_bytes());
    // Each client address for itself.
    let single: u32 = if v4 { u32::MAX } else { 128 };
    b.raw(IPVS_SVC_ATTR_NETMASK, &single.to_ne_bytes());
}

fn write_marked(b: &mut Buffer, mark: u32, scheduler: &str) {
    b.nest(IPVS_CMD_ATTR_SERVICE, |b| {
        b.raw(IPVS_SVC_ATTR_AF, &AF_INET.to_ne_bytes());
        b.raw(IPVS_SVC_ATTR_FWMARK, &mark.to_ne_bytes());
        write_scheduling(
            b,
            true,
            &Scheduling { scheduler: scheduler.to_owned(), persistence: None, fallback: false },
        );
    });
}

fn write_destination(b: &mut Buffer, to: &Destination) {
    b.raw(IPVS_DEST_ATTR_ADDR, &union(to.addr));
    b.raw(IPVS_DEST_ATTR_PORT, &to.port.to_be_bytes());
    b.raw(IPVS_DEST_ATTR_ADDR_FAMILY, &af(to.addr.is_ipv4()).to_ne_bytes());
}

fn write_timeouts(b: &mut Buffer, timeouts: Timeouts) {
    for (kind, seconds) in [
        (IPVS_CMD_ATTR_TIMEOUT_TCP, timeouts.tcp),
        (IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (IPVS_CMD_ATTR_TIMEOUT_UDP, timeouts.udp),
    ] {
        b.raw(kind, &seconds.to_ne_bytes());
    }
}

fn read_service(service: Attributes<'_>) -> Option<(VirtualServer, Scheduling)> {
    let short = |kind| service.raw(kind).and_then(|raw| host_u16(raw, 0));
    let server = VirtualServer {
        addr: read_union(service.raw(IPVS_SVC_ATTR_ADDR)?, short(IPVS_SVC_ATTR_AF)? == AF_INET)?,
        proto: short(IPVS_SVC_ATTR_PROTOCOL)?.try_into().ok()?,
        port: u16::from_be_bytes(service.raw(IPVS_SVC_ATTR_PORT)?.try_into().ok()?),
    };
    let flags = service.host(IPVS_SVC_ATTR_FLAGS)?;
    let persistent = flags & IP_VS_SVC_F_PERSISTENT != 0;
    let persistence = service.host(IPVS_SVC_ATTR_TIMEOUT).filter(|_| persistent);
    let scheduler = service.text(IPVS_SVC_ATTR_SCHED_NAME).unwrap_or_default().to_owned();
    Some((server, Scheduling { scheduler, persistence, fallback: flags & IP_VS_SVC_F_SCHED1 != 0 }))
}

fn read_destination(to: Attributes<'_>, of: IpAddr) -> Option<DestinationState> {
    // A destination may be of another family than its server; kernels before 3.18 do not tell.
    let family = to.raw(IPVS_DEST_ATTR_ADDR_FAMILY).and_then(|raw| host_u16(raw, 0));
    let v4 = family.map_or(of.is_ipv4(), |family| family == AF_INET);
    let number = |kind| to.host(kind).unwrap_or(0);
    Some(DestinationState {
        destination: Destination {
            addr: read_union(to.raw(IPVS_DEST_ATTR_ADDR)?, v4)?,
            port: u16::from_be_bytes(to.raw(IPVS_DEST_ATTR_PORT)?.try_into().ok()?),
        },
        weight: to.host(IPVS_DEST_ATTR_WEIGHT)?,
        translates: number(IPVS_DEST_ATTR_FWD_METHOD) & IP_VS_CONN_F_FWD_MASK == IP_VS_CONN_F_MASQ,
        active: number(IPVS_DEST_ATTR_ACTIVE_CONNS),
        inactive: number(IPVS_DEST_ATTR_INACT_CONNS),
        persistent: number(IPVS_DEST_ATTR_PERSIST_CONNS),
    })
}
