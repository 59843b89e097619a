//! The node applier as a library: everything but the command line.
//!
//! The watch ([`source`]) brings heads; [`applier::Applier`] verifies them, resolves them for this node ([`view`]),
//! writes the kernel ([`backend`], [`nftables`]) and then the disk ([`store`]).

pub mod applier;
pub mod backend;
pub mod nftables;
pub mod store;
pub mod view;
