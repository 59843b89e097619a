//! Waves: a new shape runs on one node first, then on a tenth of them, then on the rest.
//!
//! The nodes of a wave follow a second bundle of the pool, with the new shape and the same endpoints. So every node runs a whole
//! version at any time, and no endpoint waits for a wave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rulecast_bundle::{Digest, Shape};
use tokio::time::Instant;

use super::promotion::{NodeReport, Soak, Trial};

/// A pool's nodes by name, with what they last said.
pub(crate) type Fleet<'a> = [(&'a str, Option<&'a NodeReport>)];

/// A shape on its way over the nodes of a pool.
pub(crate) struct Wave {
    shape: Arc<Shape>,
    digest: Digest,
    /// Those that have it, or shall.
    nodes: BTreeSet<String>,
    /// Which wave this is, from 0.
    number: usize,
    soak: Soak,
    /// From which position on a node of the wave has it; none: it is not published for them yet.
    position: Option<(u64, u64)>,
}

/// What a look at a wave came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on; how far it is.
    Runs(String),
    /// It stopped, and why. Another shape may take its place.
    Stopped(String),
    /// The rest of the nodes may have it.
    Finished,
}

/// How many nodes have the shape in each wave but the last.
fn sizes(nodes: usize) -> [usize; 2] {
    [1, nodes.div_ceil(10)]
}

impl Wave {
    /// Begins with one node that is well.
    pub(crate) fn new(shape: Arc<Shape>, fleet: &Fleet<'_>) -> Self {
        let digest = shape.digest();
        let mut wave =
            Self { shape, digest, nodes: BTreeSet::new(), number: 0, soak: Soak::default(), position: None };
        wave.choose(fleet);
        wave
    }

    /// Goes on where another process was, which told the nodes to follow.
    pub(crate) fn resume(&mut self, nodes: BTreeSet<String>, all: usize) {
        self.number = usize::from(nodes.len() > sizes(all)[0]);
        self.nodes = nodes;
    }

    pub(crate) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn nodes(&self) -> &BTreeSet<String> {
        &self.nodes
    }

    /// Its bundle was published.
    pub(crate) fn published(&mut self, position: (u64, u64)) {
        self.position.get_or_insert(position);
    }

    pub(crate) fn is_published(&self) -> bool {
        self.position.is_some()
    }

    /// When to look again, if nothing is reported before.
    pub(crate) fn deadline(&self, pause: Duration) -> Option<Instant> {
        self.soak.deadline(pause)
    }

    /// Adds nodes until the wave is full: in an order that depends on the shape, so that it is not always the same node that goes
    /// first, and those that said they are well before the others.
    fn choose(&mut self, fleet: &Fleet<'_>) {
        self.nodes.retain(|node| fleet.iter().any(|(name, _)| name == node));
        let size = sizes(fleet.len())[self.number];
        let well = |report: Option<&NodeReport>| report.is_some_and(|r| r.error.is_none() && !r.held);
        let mut left: Vec<_> = fleet.iter().filter(|(name, _)| !self.nodes.contains(*name)).collect();
        left.sort_by_key(|(name, report)| (!well(*report), Digest::of(&[&self.digest.0, name.as_bytes()])));
        let missing = size.saturating_sub(self.nodes.len());
        self.nodes.extend(left.iter().take(missing).map(|(name, _)| (*name).to_owned()));
    }

    /// Looks how it does, and goes on when the time has come.
    pub(crate) fn look(&mut self, fleet: &Fleet<'_>, pause: Duration, now: Instant) -> Progress {
        self.choose(fleet);
        let sizes = sizes(fleet.len());
        let place = format!("wave {} of 3, {} of {} nodes", self.number + 1, self.nodes.len(), fleet.len());
        let Some(position) = self.position else {
            return Progress::Runs(format!("{place}: being published"));
        };
        let nodes = fleet.iter().filter(|(name, _)| self.nodes.contains(*name)).copied().collect();
        let trial = Trial { nodes, position, next: true };
        let failed = trial.failure();
        match self.soak.look(self.digest, trial.trouble(), pause, now) {
            Err(why) if failed => Progress::Stopped(format!("{place}: {why}")),
            Err(why) => Progress::Runs(format!("{place}: {why}")),
            // In a small pool a tenth is that one node.
            Ok(()) if self.number == 0 && sizes[1] > sizes[0] => {
                self.number = 1;
                self.soak = Soak::default();
                self.choose(fleet);
                Progress::Runs(format!("wave 2 of 3, {} of {} nodes", self.nodes.len(), fleet.len()))
            }
            Ok(()) => Progress::Finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rulecast_bundle::Mode;

    const PAUSE: Duration = Duration::from_mins(1);

    fn report(sequence: u64, next: bool, error: Option<&str>) -> NodeReport {
        let error = error.map(Into::into);
        NodeReport { position: (0, sequence), next, error, ..NodeReport::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_then_a_tenth_then_the_rest() {
        let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
        let old = report(7, false, None);
        let fleet: Vec<_> = names.iter().map(|name| (name.as_str(), Some(&old))).collect();
        let mut wave = Wave::new(Arc::new(Shape::new(Mode::Nftables)), &fleet);
        assert_eq!(wave.nodes().len(), 1);
        let begin = Instant::now();
        let at = |minutes| begin + Duration::from_mins(minutes);
        assert!(
            matches!(wave.look(&fleet, PAUSE, at(0)), Progress::Runs(text) if text.contains("being published"))
        );
        wave.published((0, 1000));
        assert!(
            matches!(wave.look(&fleet, PAUSE, at(9)), Progress::Runs(text) if text.contains("1 of 1 nodes have not"))
        );
        let first = wave.nodes().first().unwrap().clone();
        let new = report(1000, true, None);
        let broken = report(7, false, Some("KernelRefused"));
        let with = |wave: &Wave, report| -> Vec<(&str, Option<&NodeReport>)> {
            let of = |name: &String| if wave.nodes().contains(name) { report } else { &old };
            names.iter().map(|name| (name.as_str(), Some(of(name)))).collect()
        };
        let stopped = wave.look(&with(&wave, &broken), PAUSE, at(10));
        assert!(matches!(&stopped, Progress::Stopped(text) if text.contains(&first)), "{stopped:?}");
        assert!(matches!(wave.look(&with(&wave, &new), PAUSE, at(11)), Progress::Runs(_)));
        assert!(
            matches!(wave.look(&with(&wave, &new), PAUSE, at(12)), Progress::Runs(text) if text.contains("5 of 50"))
        );
        assert!(wave.nodes().contains(&first) && wave.nodes().len() == 5);
        assert!(matches!(wave.look(&with(&wave, &new), PAUSE, at(13)), Progress::Runs(_)));
        assert_eq!(wave.look(&with(&wave, &new), PAUSE, at(14)), Progress::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_not_well_does_not_go_first_and_one_that_went_away_is_replaced() {
        let (well, broken) = (report(7, false, None), report(7, false, Some("KernelRefused")));
        let names: Vec<String> = (0..9).map(|n| format!("n{n}")).collect();
        let fleet = |good: usize| -> Vec<(&str, Option<&NodeReport>)> {
            let of = |n: usize| if n == good { &well } else { &broken };
            names.iter().enumerate().map(|(n, name)| (name.as_str(), Some(of(n)))).collect()
        };
        let shape = Arc::new(Shape::new(Mode::Nftables));
        let mut wave = Wave::new(Arc::clone(&shape), &fleet(3));
        assert_eq!(wave.nodes().first().map(String::as_str), Some("n3"));
        let rest: Vec<_> = fleet(4).into_iter().filter(|(name, _)| *name != "n3").collect();
        wave.look(&rest, PAUSE, Instant::now());
        assert_eq!(wave.nodes().first().map(String::as_str), Some("n4"));
    }
}
