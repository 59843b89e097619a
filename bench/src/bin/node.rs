//! The node's part of `rulecast-bench apply`, which starts it: `rulecast-bench-node FOLDER NODE < heads`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rulecast-bench-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, node] = arguments.as_slice() else {
        bail!("this is started by `rulecast-bench apply`; run that");
    };
    let sample = rulecast_bench::apply::measure(Path::new(folder), node, std::io::stdin().lock())?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
