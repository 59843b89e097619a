//! Looking into the node's kernel.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rulecast_bundle::nft::Family;
use rulecast_netlink::{Connection, Key};

/// The kernel of the demonstration's node.
pub(crate) struct Kernel(Connection);

impl Kernel {
    pub(crate) fn open() -> anyhow::Result<Self> {
        Connection::open().map(Self).context("nf_tables")
    }

    /// Waits until the demonstration's cluster IP has so many members in the kernel, and tells how long that took.
    pub(crate) fn wait_for_members(
        &mut self,
        members: usize,
        limit: Duration,
        mut check: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let chain = format!("lb-{members}");
        while self.verdict()?.as_deref() != Some(&chain) {
            check()?;
            if start.elapsed() > limit {
                bail!("the kernel has no {members} members after {limit:?}");
            }
            sleep(Duration::from_micros(500));
        }
        Ok(start.elapsed())
    }

    fn verdict(&mut self) -> anyhow::Result<Option<String>> {
        let key = Key::new().addr(IpAddr::from([10, 96, 0, 10])).proto(6).port(80);
        let find = |found: &mut Option<String>, element: rulecast_netlink::Element<'_>| {
            if element.key == key.as_bytes() {
                *found = element.verdict.map(str::to_owned);
            }
        };
        match self.0.elements(Family::V4, "service-ips", || None, find) {
            Err(error) if error.is_not_found() => Ok(None),
            result => Ok(result?),
        }
    }
}
