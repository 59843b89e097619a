//! The kernel's settings that IPVS mode needs.

use std::fs;
use std::path::Path;

/// Before this version of Linux, reusing a client's port for a new connection made it wait for a second or go to a
/// destination that is gone, unless reuse was turned off (f719e3754ee2, "ipvs: drop first packet to redirect conntrack").
const REUSE_WORKS_SINCE: (u32, u32) = (5, 9);

/// What to write where, below `/proc/sys`.
pub(super) fn settings(strict_arp: bool, release: &str) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Connections are tracked, so that they can be masqueraded.
        ("net/ipv4/vs/conntrack", "1"),
        // What was going to a destination that was removed is forgotten: UDP flows go elsewhere.
        ("net/ipv4/vs/expire_nodest_conn", "1"),
        // Clients with affinity to a destination of weight 0 go elsewhere.
        ("net/ipv4/vs/expire_quiescent_template", "1"),
        ("net/ipv4/ip_forward", "1"),
    ];
    if version(release).is_some_and(|version| version < REUSE_WORKS_SINCE) {
        settings.push(("net/ipv4/vs/conn_reuse_mode", "0"));
    }
    if strict_arp {
        // The addresses on the device are nobody else's business.
        settings.extend([("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")]);
    }
    settings
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Writes what differs; returns what could not be set, in words.
pub(super) fn apply(strict_arp: bool) -> Vec<String> {
    let sys = Path::new("/proc/sys");
    let release = fs::read_to_string(sys.join("kernel/osrelease")).unwrap_or_default();
    let mut problems = Vec::new();
    for (name, value) in settings(strict_arp, &release) {
        let path = sys.join(name);
        if fs::read_to_string(&path).is_ok_and(|found| found.trim() == value) {
            continue;
        }
        if let Err(error) = fs::write(&path, value) {
            problems.push(format!("{name} cannot be set to {value}: {error}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_kernel_and_the_options() {
        let has = |strict, release, name: &str| settings(strict, release).iter().any(|(n, _)| *n == name);
        for (release, off) in
            [("5.8.18-generic", true), ("4.19.0", true), ("5.9.0", false), ("6.1.176", false), ("x", false)]
        {
            assert_eq!(has(false, release, "net/ipv4/vs/conn_reuse_mode"), off, "{release}");
        }
        for strict in [false, true] {
            assert_eq!(has(strict, "6.1.0", "net/ipv4/conf/all/arp_ignore"), strict);
            assert!(has(strict, "6.1.0", "net/ipv4/vs/conntrack"));
        }
    }
}
