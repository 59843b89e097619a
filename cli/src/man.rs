//! `kubectl rulecast man`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

use crate::exit::Outcome;
use crate::output;

pub(crate) const HELP: &str = "\
Examples:
  kubectl-rulecast man | man -l -
  kubectl-rulecast man --dir /usr/local/share/man/man1";

/// The options of `man`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write a page for each command into this folder, which is made if need be; none: print the main one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command, for a whole command line.
pub(crate) fn run(options: &Options, command: Command) -> anyhow::Result<Outcome> {
    let Some(dir) = &options.dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        output::write(&String::from_utf8(page)?)?;
        return Ok(Outcome::Fine);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .with_context(|| dir.display().to_string())?;
    Ok(Outcome::Fine)
}
