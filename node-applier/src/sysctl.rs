//! Conntrack's settings, with the meaning they have in KubeProxyConfiguration (`pkg/proxy/conntrack/sysctls.go` of
//! kube-proxy v1.36).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

/// kube-proxy's bound for what it computes from the number of processors.
const LARGEST_SCALED_MAX: u64 = 1 << 20;

/// What is wanted. None, zero and false leave the kernel's own value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Entries for each processor: `maxPerCore`.
    pub max_per_core: Option<u32>,
    /// At least so many entries, if `max_per_core` is given: `min`.
    pub min: Option<u32>,
    /// How long an idle TCP connection is remembered; whole seconds count.
    pub tcp_established_timeout: Option<Duration>,
    /// How long one half closed is remembered.
    pub tcp_close_wait_timeout: Option<Duration>,
    /// How long a UDP flow without an answer is remembered.
    pub udp_timeout: Option<Duration>,
    /// How long an answered UDP flow is remembered.
    pub udp_stream_timeout: Option<Duration>,
    /// TCP packets outside the window are not taken for invalid.
    pub tcp_be_liberal: Option<bool>,
}

impl ConntrackSettings {
    /// The value for nf_conntrack_max; none to leave it.
    fn max(&self, cpus: u32) -> Option<u64> {
        let per_core = self.max_per_core.filter(|per_core| *per_core > 0)?;
        let scaled = u64::from(per_core) * u64::from(cpus);
        // As kube-proxy has it: past the bound, `min` does not count either.
        if scaled > LARGEST_SCALED_MAX {
            return Some(LARGEST_SCALED_MAX);
        }
        Some(scaled.max(self.min.unwrap_or(0).into()))
    }

    /// What is wanted beside nf_conntrack_max.
    fn others(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let seconds = |timeout: Option<Duration>| timeout.map_or(0, |timeout| timeout.as_secs());
        [
            ("nf_conntrack_tcp_timeout_established", seconds(self.tcp_established_timeout)),
            ("nf_conntrack_tcp_timeout_close_wait", seconds(self.tcp_close_wait_timeout)),
            ("nf_conntrack_tcp_be_liberal", self.tcp_be_liberal.unwrap_or(false).into()),
            ("nf_conntrack_udp_timeout", seconds(self.udp_timeout)),
            ("nf_conntrack_udp_timeout_stream", seconds(self.udp_stream_timeout)),
        ]
        .into_iter()
        .filter(|(_, value)| *value > 0)
    }
}

/// Where the kernel's settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctls {
    proc_sys: PathBuf,
    sys: PathBuf,
}

impl Default for Sysctls {
    /// `/proc/sys` and `/sys`.
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Sysctls {
    /// `proc/sys` and `sys` below another root.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { proc_sys: root.join("proc/sys"), sys: root.join("sys") }
    }

    /// Writes what differs from what is wanted. Returns what could not be done, in words: the setting, the cause and the
    /// next step. Nothing of it keeps rules from working.
    #[must_use]
    pub fn apply(&self, wanted: &ConntrackSettings) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(max) = wanted.max(self.cpus()) {
            problems.extend(self.set("nf_conntrack_max", max).err());
            problems.extend(self.enlarge_table(max / 4).err());
        }
        problems.extend(wanted.others().filter_map(|(name, value)| self.set(name, value).err()));
        problems
    }

    fn set(&self, name: &str, value: u64) -> Result<(), String> {
        let path = self.proc_sys.join("net/netfilter").join(name);
        change(&path, |now| now != value, value).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "load the module nf_conntrack first".to_owned(),
                _ => format!("run 'sysctl -w net.netfilter.{name}={value}' on the node, or set it to 0"),
            };
            format!("cannot set net.netfilter.{name} to {value} ({error}): {advice}")
        })
    }

    /// The hash table has to grow with the number of entries: its chains would become long.
    fn enlarge_table(&self, buckets: u64) -> Result<(), String> {
        let path = self.sys.join("module/nf_conntrack/parameters/hashsize");
        change(&path, |now| now < buckets, buckets).map_err(|error| {
            format!(
                "cannot set nf_conntrack's hashsize to {buckets} ({error}): conntrack works, with longer chains; write \
                 it to /sys/module/nf_conntrack/parameters/hashsize on the node"
            )
        })
    }

    /// The machine's processors that are online, whatever share of them this process may use.
    fn cpus(&self) -> u32 {
        let online = std::fs::read_to_string(self.sys.join("devices/system/cpu/online"));
        let available =
            || std::thread::available_parallelism().map_or(1, |n| n.get().try_into().unwrap_or(1));
        online.ok().and_then(|list| count_cpus(&list)).unwrap_or_else(available)
    }
}

/// Writes a number if the one that is there asks for it.
fn change(path: &Path, differs: impl Fn(u64) -> bool, value: u64) -> io::Result<()> {
    let now = std::fs::read_to_string(path)?;
    // What cannot be read as a number, such as -1, is not what is wanted.
    if now.trim().parse().is_ok_and(|now| !differs(now)) {
        return Ok(());
    }
    info!(path = %path.display(), value, "setting conntrack");
    // Not created when it is not there, and written at once, as settings want it.
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path)?;
    io::Write::write_all(&mut file, value.to_string().as_bytes())
}

/// How many numbers a list such as `0-3,8` has.
fn count_cpus(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests;
