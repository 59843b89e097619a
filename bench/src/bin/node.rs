//! The node's part of `rulecast-bench apply`, which starts it: `rulecast-bench-node FOLDER NODE [--uml]`, with heads in
//! `FOLDER/heads`.
//!
//! With `--uml` it boots user-mode Linux and does its part there: for IPVS, on machines whose own kernel has none.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use rulecast_bench::apply;
use rulecast_tests::uml::{self, Machine};

/// What is loaded before; the rest when it is asked for.
const MODULES: &[&str] = &["ip_vs", "ip_set", "dummy", "iptable_nat", "iptable_filter"];
/// In MiB.
const MEMORY: u32 = 512;

fn main() -> ExitCode {
    let uml = std::env::args().any(|arg| arg == "--uml");
    match (uml, uml::is_inside()) {
        (true, false) => uml::boot(Machine { modules: MODULES, memory: MEMORY }),
        (true, true) => uml::inside(outcome),
        (false, _) => outcome(),
    }
}

fn outcome() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rulecast-bench-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [folder, node] = arguments.as_slice() else {
        bail!("this is started by `rulecast-bench apply`; run that");
    };
    let folder = Path::new(folder);
    let heads = File::open(folder.join("heads")).context("heads")?;
    // The machine's files are read-only inside.
    let own = if uml::is_inside() { Some(copy(folder)?) } else { None };
    let dir = own.as_ref().map_or(folder, |own| own.path());
    let sample = apply::measure(dir, node, BufReader::new(heads))?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

fn copy(from: &Path) -> Result<tempfile::TempDir> {
    let to = tempfile::tempdir()?;
    let pool = rulecast_bench::cluster::POOL;
    fs::create_dir(to.path().join(pool))?;
    for entry in fs::read_dir(from.join(pool))? {
        let entry = entry?;
        fs::copy(entry.path(), to.path().join(pool).join(entry.file_name()))?;
    }
    Ok(to)
}
