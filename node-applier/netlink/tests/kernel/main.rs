//! Against the running kernel, in network namespaces. Needs root and the nft tool.

mod addresses;
mod commit;
mod conntrack;
mod layout;
mod listing;
mod monitor;
mod namespace;
mod traffic;
