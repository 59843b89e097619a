//! Clients that connect without end, each time from a new port.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rulecast_tests::namespace::Namespace;
use rulecast_tests::probe::{self, Answer, Proto};

use crate::traffic::{Clock, PATIENCE};

/// Between two connections of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// A SYN that is not answered is sent again after this long.
const SYN_AGAIN: Duration = Duration::from_secs(1);
/// So many failures are told one by one.
const TOLD: usize = 10;

/// Whom a client calls.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What reports call it.
    pub(crate) name: String,
    /// The protocol.
    pub(crate) proto: Proto,
    /// The address.
    pub(crate) to: SocketAddr,
    /// Who has to answer: one of these.
    pub(crate) pods: &'static [&'static str],
    /// The client's address as the pod has to see it; none: any, as it may be masqueraded.
    pub(crate) peer: Option<IpAddr>,
}

/// A client that calls until the clock stops.
pub(crate) struct Caller {
    name: String,
    thread: JoinHandle<Tally>,
}

#[derive(Default)]
struct Tally {
    made: usize,
    failed: usize,
    told: Vec<String>,
    by: BTreeMap<String, usize>,
    slowest: Duration,
}

impl Caller {
    pub(crate) fn start(from: &Namespace, call: Call, clock: &Clock) -> anyhow::Result<Self> {
        let (name, clock) = (call.name.clone(), clock.clone());
        // A thread begins in the namespace of the one that makes it.
        let thread = from.run(|| thread::spawn(move || run(&call, &clock)))?;
        Ok(Self { name, thread })
    }

    /// Waits for its end, and returns how many connections it made; that any failed is an error.
    pub(crate) fn end(self) -> anyhow::Result<usize> {
        let tally = self.thread.join().map_err(|_| anyhow::anyhow!("{} panicked", self.name))?;
        let Tally { made, failed, told, by, slowest } = tally;
        println!("  {}: {made} made, slowest {} ms, by {by:?}", self.name, slowest.as_millis());
        ensure!(failed == 0, "{}: {failed} of {made} failed:\n  {}", self.name, told.join("\n  "));
        Ok(made)
    }
}

fn run(call: &Call, clock: &Clock) -> Tally {
    let mut tally = Tally::default();
    while !clock.is_over() {
        let (start, before) = (Instant::now(), repeated_syns());
        let answer =
            probe::connect_here(call.proto, call.to, PATIENCE).and_then(|answer| judge(call, &answer));
        let took = start.elapsed();
        // Slow alone is a busy machine.
        let repeated = before.is_none() || repeated_syns() != before;
        let lost = took >= SYN_AGAIN && call.proto == Proto::Tcp && repeated;
        let answer = answer.and_then(|pod| {
            ensure!(!lost, "{pod} answered after {} ms, to the second SYN", took.as_millis());
            Ok(pod)
        });
        tally.made += 1;
        tally.slowest = tally.slowest.max(took);
        match answer {
            Ok(pod) => *tally.by.entry(pod).or_default() += 1,
            Err(error) => {
                tally.failed += 1;
                if tally.told.len() < TOLD {
                    tally.told.push(format!("{}: {error:#}", clock.now()));
                }
            }
        }
        thread::sleep(PAUSE);
    }
    tally
}

/// How many SYNs the kernel sent again, in the namespace of the caller.
fn repeated_syns() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let pair = lines.next().zip(lines.next());
    let mut pairs = pair.into_iter().flat_map(|(names, values)| names.split(' ').zip(values.split(' ')));
    pairs.find(|(name, _)| *name == "TCPSynRetrans").and_then(|(_, value)| value.parse().ok())
}

fn judge(call: &Call, answer: &Answer) -> anyhow::Result<String> {
    let pod = answer.pod()?;
    ensure!(call.pods.contains(&pod), "{pod} answered, and is no endpoint");
    let peer = answer.peer()?;
    ensure!(call.peer.is_none_or(|wanted| wanted == peer), "{pod} saw the client as {peer}");
    Ok(pod.to_owned())
}
