//! Benchmarks on synthetic clusters: what a full load and one endpoint change cost the compiler ([`compile`]), the wire
//! ([`wire`]) and the node ([`apply`]).
//!
//! Memory is measured in a process of its own for each repetition, and the kernel in a fresh network namespace.

pub mod apply;
pub mod cluster;
pub mod compile;
pub mod connect;
pub mod control;
pub mod fanout;
pub mod live;
mod memory;
mod objects;
pub mod progress;
pub mod propagation;
pub mod report;
pub mod review;
pub mod stats;
pub mod wire;
