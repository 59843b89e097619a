//! The controller's program; everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use rulecast_controller::{app, cli};

// The C library's allocator keeps the peak of every full compile for good.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // TLS has no provider of its own. A second installation is the only way to fail, and as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    app::run(cli::Cli::parse()).unwrap_or_else(|error| {
        // Not anyhow's own form: it adds a backtrace, and repeats what errors say of their causes themselves.
        let mut text = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}\n  because: {cause}");
            }
        }
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("rulecast-controller: {text}\n").as_bytes(),
        );
        ExitCode::FAILURE
    })
}
