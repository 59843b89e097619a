//! Waiting until a change is in force.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rulecast_tests::probe::{self, Answer, Proto};
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

use crate::fixture::{Fixture, slice_ports};
use crate::world::World;
use crate::worlds::Worlds;

/// A Service that is changed after everything else: who serves it as it is now has seen all that was changed before.
const LAST: &str = "last-of-all";
const LAST_IPS: [&str; 2] = ["10.96.0.99", "fd00:96::99"];

impl Worlds {
    /// Waits until both nodes of kube-proxy's world have all changes in their kernels, and rulecast's after them.
    /// Returns how much later the second were.
    pub(crate) fn settle(&mut self) -> anyhow::Result<Duration> {
        let wanted = self.write_last()?;
        wait(&self.peer, wanted)?;
        let start = Instant::now();
        wait(&self.ours, wanted)?;
        Ok(start.elapsed())
    }

    /// Changes the last Service; returns its port and the pod's.
    pub(crate) fn write_last(&mut self) -> anyhow::Result<(u16, u16)> {
        self.settled += 1;
        let (port, target) = (1000 + self.settled, [8080, 9090][usize::from(self.settled % 2)]);
        let more = json!({
            "clusterIPs": LAST_IPS, "clusterIP": LAST_IPS[0],
            "ports": [{ "name": "udp", "protocol": "UDP", "port": port, "targetPort": target }],
        });
        let fixture = Fixture::new(LAST, "ClusterIP", 0, &more);
        let fixture = fixture.slices_with(&self.peer.network, "", &slice_ports(target), &["a3"]);
        let objects: Vec<Value> = [fixture.service].into_iter().chain(fixture.slices).collect();
        self.apply(&objects)?;
        Ok((port, target))
    }
}

/// Waits until both nodes of a world serve the last Service like this.
pub(crate) fn wait(world: &World, (port, target): (u16, u16)) -> anyhow::Result<()> {
    for node in &world.network.nodes {
        for ip in LAST_IPS {
            let to = SocketAddr::new(ip.parse::<IpAddr>()?, port);
            let look = || {
                let answer = probe::connect(&node.namespace, Proto::Udp, to)?;
                ensure!(matches!(answer, Answer::Pod { port, .. } if port == target), "{answer:?}");
                Ok(())
            };
            wait_for("everything to be in force", PATIENCE, look)
                .with_context(|| format!("{} on {}", world.proxy, node.name))?;
        }
    }
    Ok(())
}
