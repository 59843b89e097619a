//! The controller: reads Services, EndpointSlices and Nodes, compiles them and publishes a bundle for every pool.
//!
//! ```text
//! source (cluster | directory) -> World (objects, quarantine, Compiler) -> Publisher, one a pool -> sink (cluster | directory)
//! ```
//!
//! - [`objects`]: the fields that are read of Kubernetes objects, and how they become the compiler's input.
//! - [`source`]: where objects come from.
//! - [`world`]: what is known, and what could not be used.
//! - [`publisher`]: what is published, what comes next, and what to do when that fails.
//! - [`sink`]: where bundles go.
//! - [`garbage`]: deleting chunks that nothing leads to.
//! - [`run`]: the loop around all of it.
//! - [`leadership`]: which of several controllers publishes.
//! - [`status`], [`metrics`], [`http`]: what people see of it.
//! - [`cli`], [`app`]: the program.
//!
//! In-process use, without a cluster and without a running loop:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rulecast_controller::publisher::Publisher;
//! use rulecast_controller::sink::DirectorySink;
//! use rulecast_controller::source::load_directory;
//!
//! let mut world = load_directory("manifests".as_ref())?;
//! let sink = DirectorySink::new("bundles")?;
//! let mut publisher = Publisher::new("default");
//! if let Some(pool) = world.compiler_mut().pool_mut("default") {
//!     publisher.publish(&sink, pool).await?;
//! }
//! # Ok(())
//! # }
//! ```

pub mod app;
pub mod cli;
pub mod garbage;
pub mod http;
pub mod leadership;
pub mod metrics;
pub mod objects;
pub mod publisher;
pub mod release;
pub mod run;
pub mod sink;
pub mod source;
pub mod status;
pub mod world;
