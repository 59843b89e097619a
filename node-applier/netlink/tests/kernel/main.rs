//! Against the running kernel, in network namespaces. Needs root and the nft tool.

mod commit;
mod layout;
mod listing;
mod monitor;
mod namespace;
mod traffic;
