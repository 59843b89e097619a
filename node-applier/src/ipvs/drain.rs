//! When to look whether destinations that get no new connections still have old ones. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rulecast_netlink::ipvs::VirtualServer;

/// A destination that has no connection to wait for goes this soon.
const FIRST: Duration = Duration::from_secs(1);
/// Then they are looked at once in this time, as with kube-proxy.
pub(super) const AGAIN: Duration = Duration::from_mins(1);

/// Virtual servers with destinations that wait for their connections to end.
#[derive(Debug, Default)]
pub(super) struct Drain {
    due: BTreeMap<VirtualServer, Instant>,
}

impl Drain {
    /// Something of a virtual server was taken out of use just now.
    pub(super) fn begin(&mut self, server: VirtualServer, now: Instant) {
        self.due.insert(server, now + FIRST);
    }

    /// It was looked at, and there are connections still.
    pub(super) fn again(&mut self, server: VirtualServer, now: Instant) {
        self.due.insert(server, now + AGAIN);
    }

    /// Those that are to be looked at now. They are forgotten here.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<VirtualServer> {
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= now).map(|(server, _)| *server).collect();
        for server in &due {
            self.due.remove(server);
        }
        due
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_looked_at_soon_and_then_once_a_minute() {
        let server = |port| VirtualServer { addr: [10, 96, 0, 1].into(), proto: 6, port };
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut drain = Drain::default();
        drain.begin(server(80), start);
        assert_eq!(drain.take_due(start), []);
        assert_eq!(drain.take_due(start + second), [server(80)]);
        assert_eq!(drain.take_due(start + 100 * second), [], "it is told once");
        drain.again(server(80), start + second);
        drain.begin(server(81), start + second);
        assert_eq!(drain.take_due(start + 2 * second), [server(81)]);
        assert_eq!(drain.take_due(start + 60 * second), []);
        // A second destination that leaves meanwhile is not made to wait for the first one.
        drain.begin(server(80), start + 60 * second);
        assert_eq!(drain.take_due(start + 61 * second), [server(80)]);
        drain.again(server(80), start);
        drain.clear();
        assert_eq!(drain.take_due(start + 1000 * second), []);
    }
}
