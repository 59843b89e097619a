//! A client of a Service with session affinity, and how often it is sent elsewhere.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::ensure;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::probe::{self, Proto};

use crate::traffic::{Clock, PATIENCE};

/// Between two connections.
const PAUSE: Duration = Duration::from_millis(40);

/// The client. It connects until the clock stops.
pub(crate) struct Sticky(JoinHandle<anyhow::Result<Vec<(String, String)>>>);

impl Sticky {
    pub(crate) fn start(from: &Namespace, to: SocketAddr, clock: &Clock) -> anyhow::Result<Self> {
        let clock = clock.clone();
        Ok(Self(from.run(|| thread::spawn(move || run(to, &clock)))?))
    }

    /// Waits for its end. Each proxy remembers clients by itself, so there may be one move for each hand-over.
    pub(crate) fn end(self, hand_overs: usize) -> anyhow::Result<()> {
        let seen = self.0.join().map_err(|_| anyhow::anyhow!("the client with affinity panicked"))??;
        let text: Vec<_> = seen.iter().map(|(pod, when)| format!("{pod} since {when}")).collect();
        println!("  affinity: {}", text.join("; "));
        let moves = seen.len().saturating_sub(1);
        ensure!(
            moves <= hand_overs,
            "the client was moved {moves} times in {hand_overs} hand-overs: {text:?}"
        );
        Ok(())
    }
}

/// Whom it met, and since when.
fn run(to: SocketAddr, clock: &Clock) -> anyhow::Result<Vec<(String, String)>> {
    let mut seen: Vec<(String, String)> = Vec::new();
    while !clock.is_over() {
        let connect =
            || Ok::<_, anyhow::Error>(probe::connect_here(Proto::Tcp, to, PATIENCE)?.pod()?.to_owned());
        // See `callers`: a port may be conntrack's still. Failures are theirs to count.
        let pod = connect().or_else(|_| connect()).or_else(|_| connect())?;
        if seen.last().is_none_or(|(last, _)| *last != pod) {
            seen.push((pod, clock.now()));
        }
        thread::sleep(PAUSE);
    }
    Ok(seen)
}
