//! A process's processor time, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// The processor time that a process has used so far, in user and in kernel mode, with all its threads.
pub fn of(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} has no times: {text}"))?;
    // Linux says 100 everywhere, whatever the kernel's own timer does.
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(Duration::from_secs(ticks) / per_second)
}

/// The fields `utime` and `stime` of proc_pid_stat(5). The name before them may hold anything, but it ends with the last
/// parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_after_any_name() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1 2";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn work_takes_time() {
        let start = of(std::process::id()).unwrap();
        let mut n = 0_u64;
        while of(std::process::id()).unwrap() < start + Duration::from_millis(20) {
            n = std::hint::black_box(n + 1);
        }
    }
}
