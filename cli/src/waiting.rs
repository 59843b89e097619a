//! `--wait` and `--timeout`.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep, sleep_until};

use crate::exit::Outcome;
use crate::output::note;

/// Between two looks: a list of all nodes is no small thing to ask for.
const LOOK: Duration = Duration::from_secs(1);

/// Whether to wait, and for how long.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Waiting")]
pub(crate) struct WaitArgs {
    /// Wait until it is so, and say on standard error how far it is.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait before giving up with exit code 3, such as 90s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "wait")]
    pub(crate) timeout: rulecast_api::Duration,
}

/// Looks until what was seen is settled, or once without `--wait`. `look` returns what it saw, whether that is settled, and
/// how far it is in words.
pub(crate) async fn wait<T>(
    args: &WaitArgs,
    look: impl AsyncFn() -> anyhow::Result<(T, bool, String)>,
) -> anyhow::Result<(T, Outcome)> {
    let end = Instant::now() + args.timeout.get();
    let mut said = String::new();
    loop {
        let (seen, settled, progress) = look().await?;
        if settled || !args.wait {
            return Ok((seen, Outcome::Fine));
        }
        if progress != said {
            note(&progress);
            said = progress;
        }
        if Instant::now() >= end {
            note(&format!("gave up after {}", args.timeout));
            return Ok((seen, Outcome::TimedOut));
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = sleep_until(end) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn args(wait: bool) -> WaitArgs {
        WaitArgs { wait, timeout: rulecast_api::Duration::from_millis(2500) }
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_until_it_is_so_or_the_time_is_up() {
        let looks = Cell::new(0);
        let settled_at = |wanted| {
            looks.set(0);
            let looks = &looks;
            async move || {
                looks.set(looks.get() + 1);
                Ok((looks.get(), looks.get() >= wanted, String::new()))
            }
        };
        assert_eq!(wait(&args(false), settled_at(9)).await.unwrap(), (1, Outcome::Fine));
        assert_eq!(wait(&args(true), settled_at(3)).await.unwrap(), (3, Outcome::Fine));
        assert_eq!(wait(&args(true), settled_at(9)).await.unwrap(), (4, Outcome::TimedOut));
    }
}
