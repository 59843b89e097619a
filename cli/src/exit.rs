//! How a command ends.

use std::process::ExitCode;

/// The exit codes, for every command's `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  fine
  1  something differs, or a check failed
  2  an error: nothing was found out, or nothing was done
  3  --wait gave up after --timeout";

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to complain of.
    Fine,
    /// Something differs, or a check failed.
    Different,
    /// What was waited for did not come.
    TimedOut,
}

/// The exit code of a command that failed.
pub(crate) const ERROR: u8 = 2;

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Fine => Self::SUCCESS,
            Outcome::Different => Self::from(1),
            Outcome::TimedOut => Self::from(3),
        }
    }
}
