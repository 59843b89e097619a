//! Hearing of changed addresses.

use std::io::Write;
use std::process::{Command, Stdio};

use rulecast_netlink::AddressMonitor;

use crate::namespace::{in_namespace, ip};

#[test]
fn changed_addresses_are_noticed_once() {
    in_namespace(|| {
        let mut monitor = AddressMonitor::open().unwrap();
        assert!(!monitor.changed().unwrap());
        ip("link set lo up");
        assert!(monitor.changed().unwrap());
        assert!(!monitor.changed().unwrap());
        for change in ["add", "del"] {
            for option in ["-4 addr CHANGE 192.0.2.1/32 dev lo", "-6 addr CHANGE 2001:db8::1/128 dev lo"] {
                ip(&option.replace("CHANGE", change));
                assert!(monitor.changed().unwrap(), "{change} {option}");
                assert!(!monitor.changed().unwrap());
            }
        }
        ip("route add 192.0.2.0/24 dev lo");
        assert!(!monitor.changed().unwrap(), "routes are not addresses");
    });
}

#[test]
fn more_changes_than_fit_count_as_one() {
    in_namespace(|| {
        ip("link set lo up");
        let mut monitor = AddressMonitor::open().unwrap();
        let mut ip = Command::new("ip").args(["-b", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut batch = ip.stdin.take().unwrap();
        for i in 0..2_000 {
            writeln!(batch, "addr add 127.9.{}.{}/32 dev lo", i / 250, i % 250).unwrap();
        }
        drop(batch);
        assert!(ip.wait().unwrap().success());
        assert!(monitor.changed().unwrap());
        assert!(!monitor.changed().unwrap());
    });
}
