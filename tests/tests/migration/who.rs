//! Who translates a new connection, while the rules of two proxies are in a kernel: the first DNAT that its trace shows.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rulecast_tests::nft::{load, nft};
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::process::Process;
use rulecast_tests::wait::{PATIENCE, wait_for};

use crate::site::Site;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// rulecast, mode nftables.
    Rulecast,
    /// kube-proxy, mode nftables.
    Upstream,
    /// Rules of iptables, whose DNAT a trace does not name as such.
    Iptables,
}

/// Connects from a pod of the node and looks who translates it.
pub(crate) fn serves(site: &Site) -> anyhow::Result<Proxy> {
    let to = site.services.moving.cluster[0];
    let node = site.namespace();
    load(
        node,
        &format!(
            "table ip who {{ chain prerouting {{ type filter hook prerouting priority -350; \
             ip daddr {} tcp flags syn meta nftrace set 1; }}; \
             chain last {{ type filter hook postrouting priority 350; }}; }}",
            to.ip()
        ),
    )?;
    let traced = trace(site, to);
    nft(node, &["delete", "table", "ip", "who"])?;
    traced
}

fn trace(site: &Site, to: SocketAddr) -> anyhow::Result<Proxy> {
    let program = std::env::split_paths(&std::env::var_os("PATH").context("no PATH")?)
        .map(|folder| folder.join("nft"))
        .find(|path| path.is_file());
    let log = site.cluster.dir().join("trace.log");
    let mut monitor = Process::new("nft monitor", &program.context("nft")?, &["monitor", "trace"], &log);
    let mark = monitor.log_mark();
    monitor.start(site.namespace())?;
    let trace = wait_for("a trace of a connection", PATIENCE, || {
        probe::connect(&site.network().pod("a3").namespace, Proto::Tcp, to)?.pod()?;
        // The monitor may need a moment before it hears, and one before it writes.
        sleep(Duration::from_millis(100));
        let trace = monitor.log_since(mark);
        // Only then has it written all that came before.
        ensure!(trace.contains(" ip who last "), "{trace:?}");
        Ok(trace)
    });
    monitor.kill()?;
    let trace = trace?;
    // Each ends its part with a verdict; only who translates ends it with "accept", in a chain of its own.
    let translates = |table: &str| {
        let in_chain = |line: &&str| line.contains(table) && line.contains(" rule ");
        trace.lines().filter(in_chain).any(|line| line.ends_with("(verdict accept)"))
    };
    match (translates(" ip rulecast "), translates(" ip kube-proxy ")) {
        (true, false) => Ok(Proxy::Rulecast),
        (false, true) => Ok(Proxy::Upstream),
        (false, false) => Ok(Proxy::Iptables),
        (true, true) => anyhow::bail!("both: {trace}"),
    }
}
