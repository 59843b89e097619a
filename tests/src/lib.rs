//! End-to-end tests of rulecast, and what they are made of: network namespaces that stand for nodes, pods and clients,
//! a real API server, and the real programs.
//!
//! Nothing here touches the network of the machine: the namespaces are joined among themselves only. What cannot be
//! done (no root, a tool that is missing) fails and says so; no test is skipped.

pub mod cluster;
pub mod control_plane;
pub mod http;
pub mod kube_proxy;
pub mod kubectl;
pub mod namespace;
pub mod network;
pub mod nft;
pub mod objects;
pub mod probe;
pub mod process;
pub mod programs;
pub mod runner;
pub mod serve;
pub mod uml;
pub mod wait;
