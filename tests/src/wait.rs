//! Waiting for something to become true.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use crate::uml;

/// How long anything may take that happens at once on a quiet machine. Generous: it bounds failures only.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How much longer anything may take in user-mode Linux.
const SLOWER: u32 = 6;

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Tries until `look` succeeds; on timeout the last error says what was seen.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let limit = if uml::is_inside() { limit * SLOWER } else { limit };
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => {
                return Err(last).with_context(|| format!("waited {limit:?} for {what}; the last look"));
            }
            Err(_) => sleep(POLL),
        }
    }
}

/// Tries until `look` gives what is wanted.
pub fn wait_for_eq<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: &T,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    wait_for(what, PATIENCE, || match look()? {
        seen if seen == *wanted => Ok(()),
        seen => Err(anyhow!("wanted {wanted:?}, saw {seen:?}")),
    })
}

/// Fails as soon as `look` fails within this time.
pub fn holds_for(
    what: &str,
    time: Duration,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look().with_context(|| format!("{what} should hold for {time:?}"))?;
        sleep(POLL);
    }
    Ok(())
}
