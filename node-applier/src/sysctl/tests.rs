//! Against a folder that looks like the kernel's, and against the kernel.

use std::fs::{create_dir_all, metadata, read_to_string, write};
use std::time::SystemTime;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::*;

const NETFILTER: &str = "proc/sys/net/netfilter";
const HASHSIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";

/// A root as the kernel has it after a start, with four processors.
fn root() -> TempDir {
    let root = TempDir::new().unwrap();
    let files = [
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "60"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "0"),
        ("proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30"),
        ("proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "120"),
        (HASHSIZE, "16384"),
        ("sys/devices/system/cpu/online", "0-2,5"),
    ];
    for (path, value) in files {
        let path = root.path().join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, format!("{value}\n")).unwrap();
    }
    root
}

fn get(root: &TempDir, name: &str) -> u64 {
    let path = root.path().join(NETFILTER).join(format!("nf_conntrack_{name}"));
    read_to_string(path).unwrap().trim().parse().unwrap()
}

fn hashsize(root: &TempDir) -> u64 {
    read_to_string(root.path().join(HASHSIZE)).unwrap().trim().parse().unwrap()
}

/// kube-proxy's defaults.
fn defaults() -> ConntrackSettings {
    ConntrackSettings {
        max_per_core: Some(32_768),
        min: Some(131_072),
        tcp_established_timeout: Some(Duration::from_hours(24)),
        tcp_close_wait_timeout: Some(Duration::from_hours(1)),
        ..ConntrackSettings::default()
    }
}

#[test]
fn the_maximum_is_kube_proxys() {
    // maxPerCore, min, processors; as upstream's TestGetConntrackMax.
    let cases = [
        (None, None, 1, None),
        (Some(0), Some(400_000), 1, None),
        (Some(32_768), Some(131_072), 1, Some(131_072)),
        (Some(32_768), Some(131_072), 4, Some(131_072)),
        (Some(32_768), Some(131_072), 8, Some(262_144)),
        (Some(32_768), Some(0), 3, Some(98_304)),
        (Some(32_768), None, 64, Some(1 << 20)),
        (Some(u32::MAX), Some(u32::MAX), u32::MAX, Some(1 << 20)),
    ];
    for (max_per_core, min, cpus, expected) in cases {
        let settings = ConntrackSettings { max_per_core, min, ..ConntrackSettings::default() };
        assert_eq!(settings.max(cpus), expected, "{settings:?} {cpus}");
    }
}

#[test]
fn what_is_wanted_is_written_and_the_rest_stays() {
    let root = root();
    let sysctls = Sysctls::at(root.path());
    assert_eq!(sysctls.apply(&ConntrackSettings::default()), [""; 0]);
    assert_eq!((get(&root, "max"), hashsize(&root)), (65_536, 16_384));

    assert_eq!(sysctls.apply(&defaults()), [""; 0]);
    assert_eq!((get(&root, "max"), hashsize(&root)), (131_072, 32_768));
    assert_eq!(get(&root, "tcp_timeout_established"), 86_400);
    assert_eq!(get(&root, "tcp_timeout_close_wait"), 3_600);
    let untouched = ["tcp_be_liberal", "udp_timeout", "udp_timeout_stream"].map(|name| get(&root, name));
    assert_eq!(untouched, [0, 30, 120]);

    let all = ConntrackSettings {
        udp_timeout: Some(Duration::from_secs(10)),
        udp_stream_timeout: Some(Duration::from_millis(180_900)),
        tcp_be_liberal: Some(true),
        tcp_close_wait_timeout: Some(Duration::ZERO),
        ..ConntrackSettings::default()
    };
    assert_eq!(sysctls.apply(&all), [""; 0]);
    let values = ["tcp_be_liberal", "udp_timeout", "udp_timeout_stream", "tcp_timeout_close_wait", "max"]
        .map(|name| get(&root, name));
    assert_eq!(values, [1, 10, 180, 3_600, 131_072]);
}

#[test]
fn what_is_there_already_is_not_written_and_a_larger_table_stays() {
    let root = root();
    let sysctls = Sysctls::at(root.path());
    write(root.path().join(HASHSIZE), "1000000\n").unwrap();
    assert_eq!(sysctls.apply(&defaults()), [""; 0]);
    assert_eq!(hashsize(&root), 1_000_000);

    let path = root.path().join(NETFILTER).join("nf_conntrack_max");
    std::fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(sysctls.apply(&defaults()), [""; 0]);
    assert_eq!(metadata(&path).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
    write(&path, "7\n").unwrap();
    assert_eq!(sysctls.apply(&defaults()), [""; 0]);
    assert_eq!(get(&root, "max"), 131_072, "drift is mended");
}

/// A root user may write files without the permission to, so the folder is missing instead.
#[test]
fn what_cannot_be_written_is_named_and_the_rest_is_done() {
    let root = root();
    let sysctls = Sysctls::at(root.path());
    std::fs::remove_file(root.path().join(NETFILTER).join("nf_conntrack_max")).unwrap();
    std::fs::remove_file(root.path().join(HASHSIZE)).unwrap();
    let problems = sysctls.apply(&defaults());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("cannot set net.netfilter.nf_conntrack_max to 131072 ("), "{problems:?}");
    assert!(problems[0].ends_with("load the module nf_conntrack first"), "{problems:?}");
    assert!(problems[1].contains("hashsize to 32768"), "{problems:?}");
    assert_eq!(get(&root, "tcp_timeout_established"), 86_400);
}

#[test]
fn processors_are_counted() {
    for (list, count) in [("0", Some(1)), ("0-3\n", Some(4)), ("0-1,4,8-11\n", Some(7)), ("", None)] {
        assert_eq!(count_cpus(list), count, "{list:?}");
    }
    assert_eq!(count_cpus("3-1"), None);
    assert_eq!(count_cpus("0-4294967295"), None);
    assert_eq!(Sysctls::at(root().path()).cpus(), 4);
    assert!(Sysctls::default().cpus() >= 1);
}

/// In a network namespace of its own, timeouts are its own, and the table's size is the machine's and cannot be changed.
#[test]
fn the_kernel_takes_what_belongs_to_the_namespace() {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root, for a network namespace");
        let sysctls = Sysctls::default();
        let read = |name| read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).unwrap();
        let before = read("max");
        let wanted = ConntrackSettings {
            tcp_established_timeout: Some(Duration::from_secs(4_321)),
            tcp_be_liberal: Some(true),
            udp_timeout: Some(Duration::from_secs(33)),
            ..ConntrackSettings::default()
        };
        assert_eq!(sysctls.apply(&wanted), [""; 0]);
        assert_eq!(read("tcp_timeout_established").trim(), "4321");
        assert_eq!((read("tcp_be_liberal").trim(), read("udp_timeout").trim()), ("1", "33"));

        // Small, so that the hash table is large enough whatever machine this is.
        let unlike = 1_000;
        assert_ne!(before.trim(), unlike.to_string());
        let wanted = ConntrackSettings { max_per_core: Some(1), min: Some(unlike), ..wanted };
        let problems = sysctls.apply(&wanted);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains(&format!("net.netfilter.nf_conntrack_max to {unlike} (")),
            "{problems:?}"
        );
        assert!(problems[0].contains("sysctl -w"), "{problems:?}");
        assert_eq!(read("max"), before);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
