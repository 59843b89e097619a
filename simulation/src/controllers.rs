//! The controller's replicas: killed and started again, and told to lead.

use std::sync::Arc;
use std::time::Duration;

use rulecast_connect::between;
use rulecast_controller::http::Readiness;
use rulecast_controller::leadership::Leadership;
use rulecast_controller::metrics::Metrics;
use rulecast_controller::publisher::Limits;
use rulecast_controller::run::{Controller, RunOptions};
use rulecast_controller::status::NoStatus;
use rulecast_controller::world::World;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::faults::Client;
use crate::sink::ApiSink;
use crate::trace::Invariant;
use crate::{KEEP_CHUNKS, Universe, feed};

/// Two lead at the same time for this long at most: well below what chunks are kept, as a Lease sees to.
const OVERLAP: Duration = Duration::from_secs(8);
/// A process that is asked to end may take this long.
const FAREWELL: Duration = Duration::from_secs(25);

/// Runs a replica, for good.
pub(crate) async fn run(universe: Arc<Universe>, number: usize, leads: watch::Receiver<bool>) {
    let client = Client::Controller(number);
    let limits = Limits { deltas: fastrand::usize(2..12), ..Limits::default() };
    loop {
        universe.trace.note(format_args!("{client}: starts"));
        let options = RunOptions { limits, keep_chunks: KEEP_CHUNKS, ..RunOptions::default() };
        let sink = ApiSink { universe: Arc::clone(&universe), client };
        let (metrics, readiness) = (Arc::new(Metrics::new()), Readiness::default());
        let controller = Controller::new(World::default(), sink, NoStatus, metrics, readiness, options)
            .with_leadership(Leadership::follow(leads.clone()));
        let (events, fed) = mpsc::channel(64);
        let (stop, stopped) = oneshot::channel::<()>();
        let feed = tokio::spawn(feed::run(Arc::clone(&universe), client, events));
        let mut process = tokio::spawn(controller.run(fed, async { drop(stopped.await) }));
        tokio::select! {
            biased;
            ended = &mut process => {
                let why = ended.map_or_else(|e| e.to_string(), |ended| format!("{:?}", ended.err()));
                universe.trace.violate(Invariant::Runs, format!("{client}: the program ended: {why}"));
            }
            () = universe.faults.killed() => {
                if fastrand::bool() {
                    universe.trace.note(format_args!("{client}: asked to end"));
                    drop(stop);
                    let _killed = timeout(between(Duration::ZERO, FAREWELL), &mut process).await;
                }
                process.abort();
            }
        }
        feed.abort();
        universe.trace.note(format_args!("{client}: ended"));
        sleep(between(Duration::from_millis(1), Duration::from_secs(5))).await;
    }
}

/// The election: one leads, and sometimes two or none for a while.
pub(crate) struct Election(Vec<watch::Sender<bool>>);

impl Election {
    /// Of that many replicas the first one leads.
    pub(crate) fn new(replicas: usize) -> (Self, Vec<watch::Receiver<bool>>) {
        let (senders, receivers) = (0..replicas).map(|n| watch::channel(n == 0)).unzip();
        (Self(senders), receivers)
    }

    fn set(&self, universe: &Universe, number: usize, leads: bool) {
        if self.0[number].send_replace(leads) != leads {
            let what = if leads { "leads" } else { "leads no more" };
            universe.trace.note(format_args!("election: controller {number} {what}"));
        }
    }

    /// Changes the leader from time to time, until it is dropped.
    pub(crate) async fn run(&self, universe: &Universe) {
        let longest = between(Duration::from_secs(2), Duration::from_mins(1));
        let mut leader = 0;
        loop {
            sleep(between(Duration::from_millis(200), longest)).await;
            let next = fastrand::usize(..self.0.len());
            let pause = between(Duration::ZERO, OVERLAP);
            if fastrand::bool() || next == leader {
                self.set(universe, leader, false);
                sleep(pause).await;
                self.set(universe, next, true);
            } else {
                self.set(universe, next, true);
                sleep(pause).await;
                self.set(universe, leader, false);
            }
            leader = next;
        }
    }

    /// One of them leads from here on.
    pub(crate) fn end(&self, universe: &Universe) {
        let leader = fastrand::usize(..self.0.len());
        for number in (0..self.0.len()).filter(|number| *number != leader) {
            self.set(universe, number, false);
        }
        self.set(universe, leader, true);
    }
}
