//! nf_tables over netlink: encoding, transactions, dumps, notifications. And the little else that a Service proxy asks of
//! netlink: the UDP entries of conntrack, and whether addresses changed; for IPVS its virtual servers ([`ipvs`]), sets of
//! addresses and ports ([`ipset`]) and a device that holds addresses ([`Device`]).
//!
//! A [`Batch`] encodes a transaction as it is put together, with no allocation per element; a [`Connection`] commits it
//! in one `send` and reads the kernel's state; a [`Monitor`] hears of changes that others make. All of them know the
//! tables `ip rulecast` and `ip6 rulecast` only. The statements, sets and chains are those of [`rulecast_bundle::nft`],
//! encoded one to one. [`Conntrack`] reads and deletes UDP flows; an [`AddressMonitor`] hears of addresses that come and
//! go.
//!
//! ```no_run
//! use rulecast_bundle::nft::Family;
//! use rulecast_netlink::{Batch, Connection, Key, Value};
//!
//! let mut connection = Connection::open()?;
//! let mut batch = Batch::new();
//! let key = Key::new().addr("10.96.0.1".parse().unwrap()).proto(6).port(80).index(0);
//! batch.delete_element(Family::V4, "endpoints", &key);
//! let endpoint = Key::new().addr("10.1.2.3".parse().unwrap()).port(8080);
//! batch.add_element(Family::V4, "endpoints", &key, Value::Bytes(&endpoint));
//! let committed = connection.commit(batch)?;
//! println!("generation {} after {:?}", committed.generation, committed.kernel);
//! # Ok::<(), rulecast_netlink::Error>(())
//! ```
//!
//! Facts of the protocol that the code relies on stand where they are used, with the names they have in the kernel's
//! sources (`net/netfilter/nfnetlink.c`, `net/netfilter/nf_tables_api.c`, `include/uapi/linux/netfilter/nf_tables.h`; for
//! conntrack `net/netfilter/nf_conntrack_netlink.c` and `nfnetlink_conntrack.h`).

#![allow(
    clippy::wildcard_imports,
    reason = "the kernel's numbers: one module of constants with unmistakable names"
)]

mod address_monitor;
mod attr;
mod batch;
mod compare;
mod connection;
mod conntrack;
mod describe;
mod device;
mod dump;
mod error;
mod expr;
mod genl;
pub mod ipset;
pub mod ipvs;
mod key;
mod link;
mod monitor;
mod requests;
mod set;
mod uapi;
mod userdata;
mod xtables;

pub use address_monitor::AddressMonitor;
pub use batch::{Batch, Params, Value, Verdict};
pub use compare::{Content, Expected};
pub use connection::{Committed, Connection};
pub use conntrack::{Conntrack, Destinations, Flow, Read};
pub use device::{AddressOperation, Device};
pub use dump::Element;
pub use error::Error;
pub use key::Key;
pub use monitor::{Event, Monitor};
pub use requests::{Failed, Sent};
pub use set::SetInfo;
pub use xtables::{TableInfo, table_info};

/// The name of the tables, one in each family.
pub const TABLE: &str = "rulecast";
