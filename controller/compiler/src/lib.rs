//! The compiler: Services, EndpointSlices and Nodes in, bundle records out.
//!
//! It is pure: no clock, no I/O, no randomness, no Kubernetes client. The same inputs give the same records, whatever
//! the order in which they came, and a change to one Service recompiles that Service only.

pub mod model;
