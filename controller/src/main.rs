//! The controller's program; everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use rulecast_controller::{app, cli};

// The C library's allocator keeps the peak of every full compile for good.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<ExitCode> {
    // TLS has no provider of its own. A second installation is the only way to fail, and as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    app::run(cli::Cli::parse())
}
