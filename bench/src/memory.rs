//! A process's memory, as the kernel counts it.

use anyhow::{Context as _, Result};

/// Resident memory in MB (10^6 bytes).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

/// The memory of a process; `self` is one, too.
pub(crate) fn of(process: &str) -> Result<Memory> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse(&status).with_context(|| format!("{path} has no VmRSS and VmHWM: has the process ended?"))
}

fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u32 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(f64::from(kib) * 1024.0 / 1e6)
    };
    Some(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let memory = of("self").unwrap();
        assert!(memory.now > 0.1 && memory.peak >= memory.now, "{memory:?}");
    }

    #[test]
    fn a_process_that_ended_has_none() {
        assert!(parse("Name:\tgone\nState:\tZ (zombie)\n").is_none());
    }
}
