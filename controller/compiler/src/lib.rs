//! The compiler: Services, EndpointSlices and Nodes in, bundle records out.
//!
//! In two steps: Services and options make the shape, a shape and EndpointSlices make the bundle. So endpoints are today's
//! whichever shape is live.
//!
//! It is pure: no clock, no I/O, no randomness, no Kubernetes client. The same inputs give the same records, whatever
//! the order in which they came, and a change to one Service recompiles that Service only.

mod compiler;
mod endpoints;
mod keys;
mod lanes;
mod members;
pub mod model;
mod options;
mod pool;
mod ruleset;
mod service;

pub use compiler::Compiler;
pub use pool::{Live, PoolBundle, Stats};
