//! Runs scenarios one after the other, as libtest would, but with a beginning and an end that they share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A scenario by name.
pub type Scenario<S> = (&'static str, fn(&mut S) -> anyhow::Result<()>);

/// What the command line asks for: words that a scenario's name has to contain one of, and `--list`.
struct Choice {
    words: Vec<String>,
    list: bool,
    exact: bool,
}

impl Choice {
    /// Reads the arguments that `cargo test` passes on; those of libtest that mean nothing here are passed over.
    fn read() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        let words = args.iter().filter(|arg| !arg.starts_with('-')).cloned().collect();
        Self { words, list: has("--list"), exact: has("--exact") }
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |word: &String| if self.exact { name == word } else { name.contains(word.as_str()) };
        self.words.is_empty() || self.words.iter().any(fits)
    }
}

/// Whether the command line asks for any of these scenarios.
#[must_use]
pub fn wants_any<S>(scenarios: &[Scenario<S>]) -> bool {
    let choice = Choice::read();
    scenarios.iter().any(|(name, _)| choice.wants(name))
}

/// Whether the command line asks for names only.
#[must_use]
pub fn lists() -> bool {
    Choice::read().list
}

/// Sets up, runs the scenarios that are asked for, calls `failed` after each that fails, and tears down.
pub fn run<S>(
    scenarios: &[Scenario<S>],
    set_up: impl FnOnce() -> anyhow::Result<S>,
    failed: impl Fn(&S),
) -> ExitCode {
    let choice = Choice::read();
    let wanted: Vec<_> = scenarios.iter().filter(|(name, _)| choice.wants(name)).collect();
    if choice.list {
        for (name, _) in wanted {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} scenarios, in order", wanted.len());
    if wanted.is_empty() {
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let mut state = match set_up() {
        Ok(state) => state,
        Err(error) => {
            println!("the scenarios cannot be run: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("set up in {:.1} s", start.elapsed().as_secs_f64());
    let mut failures = Vec::new();
    for (name, scenario) in &wanted {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| scenario(&mut state)));
        let problem = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            // The panic has been printed already.
            Err(_) => Some("it panicked (see above)".to_owned()),
        };
        let word = if problem.is_some() { "FAILED" } else { "ok" };
        println!("test {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
        if let Some(problem) = problem {
            println!("{problem}");
            failed(&state);
            failures.push((*name, problem));
        }
    }
    drop(state);
    let (passed, took) = (wanted.len() - failures.len(), start.elapsed().as_secs_f64());
    println!("\n{passed} passed, {} failed in {took:.1} s", failures.len());
    // Again, as pages of logs lie in between.
    for (name, problem) in &failures {
        println!("failed: {name}: {problem}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
