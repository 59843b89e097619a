//! Many histories, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::history;
use crate::trace::Violation;

/// A history in which a promise was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Which promise.
    pub violation: Violation,
}

/// Runs the histories of that many seeds from `first` on, on `jobs` threads, and calls `tell` now and then with how many
/// are done. Ends at the first failure, or after all: then with how much happened.
pub fn run_all(first: u64, histories: u64, jobs: usize, tell: impl Fn(u64) + Sync) -> Result<u64, Failure> {
    let (next, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let found = || failure.lock().expect("no thread panics with it");
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= histories || found().is_some() {
                        return;
                    }
                    let seed = first.wrapping_add(number);
                    let story = history::run(seed, false);
                    events.fetch_add(story.events, Ordering::Relaxed);
                    if let Some(violation) = story.violation {
                        found().get_or_insert(Failure { seed, violation });
                        return;
                    }
                    tell(number + 1);
                }
            });
        }
    });
    let failed = found().take();
    failed.map_or_else(|| Ok(events.into_inner()), Err)
}
