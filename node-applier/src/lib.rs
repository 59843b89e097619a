//! The node applier as a library: everything but the command line.
//!
//! The watch ([`source`]) brings heads; [`applier::Applier`] verifies them, resolves them for this node ([`view`]),
//! writes the kernel ([`backend`], [`nftables`]) and then the disk ([`store`]). [`run`] ties it together and tells the
//! world ([`status`], [`http`], [`report`]).

pub mod addresses;
pub mod applier;
pub mod backend;
pub mod control;
pub mod flows;
pub mod health_checks;
pub mod hold;
pub mod http;
pub mod iptables;
pub mod ipvs;
pub mod memory;
pub mod metrics;
pub mod modes;
pub mod nftables;
pub mod only;
pub mod render;
pub mod report;
pub mod run;
pub mod source;
pub mod status;
pub mod store;
pub mod sysctl;
pub mod view;
