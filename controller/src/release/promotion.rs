//! Whether a shape has proved itself on nodes.

use std::sync::Arc;
use std::time::Duration;

use rulecast_api::Origin;
use rulecast_bundle::{Digest, Shape};
use tokio::time::Instant;

/// What a node last said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeReport {
    /// The pool it follows.
    pub pool: String,
    /// Epoch and sequence of what it runs.
    pub position: (u64, u64),
    /// What is wrong, if anything.
    pub error: Option<String>,
    /// It is in a wave: the position is one of the pool's next bundle.
    pub next: bool,
    /// It does not run what its pool says, because somebody said so on the node.
    pub held: bool,
}

/// What the pool that goes first has shown.
pub(crate) enum Proof {
    /// This shape has been live there for long enough, on every node, without an error.
    Proved { shape: Arc<Shape>, services: usize, origin: Origin },
    /// Not yet: which shape is being tried, and what is missing.
    Unproved(Option<Digest>, String),
}

impl Proof {
    pub(crate) fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Proved { origin, .. } => Some(origin),
            Self::Unproved(..) => None,
        }
    }
}

/// How a shape does on some nodes.
pub(crate) struct Trial<'a> {
    /// The nodes that must run it, with their reports.
    pub(crate) nodes: Vec<(&'a str, Option<&'a NodeReport>)>,
    /// From this position on a node has it.
    pub(crate) position: (u64, u64),
    /// In a wave.
    pub(crate) next: bool,
}

impl Trial<'_> {
    /// Whether a node says that something is wrong.
    pub(crate) fn failure(&self) -> bool {
        self.nodes.iter().any(|(_, report)| report.is_some_and(|report| report.error.is_some()))
    }

    /// What is missing, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.nodes.is_empty() {
            return Some("there is no node to try it on".to_owned());
        }
        let failed = self.nodes.iter().find_map(|(name, report)| {
            let error = report.as_ref()?.error.as_ref()?;
            Some(format!("stopped: node {name} says {error}"))
        });
        failed.or_else(|| {
            let has = |report: &NodeReport| {
                report.position >= self.position && report.next == self.next && !report.held
            };
            let missing: Vec<&str> = self
                .nodes
                .iter()
                .filter(|(_, report)| !report.is_some_and(has))
                .map(|(name, _)| *name)
                .collect();
            let first = missing.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            let more = if missing.len() > 3 { ", …" } else { "" };
            (!missing.is_empty()).then(|| {
                format!(
                    "{} of {} nodes have not reported it yet: {first}{more}",
                    missing.len(),
                    self.nodes.len()
                )
            })
        })
    }
}

/// How long a shape has been without trouble.
#[derive(Debug, Default)]
pub(crate) struct Soak {
    since: Option<(Digest, Instant)>,
}

impl Soak {
    /// Whether a shape has been without trouble for `soak`; if not, what is missing. Trouble and another shape begin it anew.
    pub(crate) fn look(
        &mut self,
        digest: Digest,
        trouble: Option<String>,
        soak: Duration,
        now: Instant,
    ) -> Result<(), String> {
        if let Some(trouble) = trouble {
            self.since = None;
            return Err(trouble);
        }
        let since = match self.since {
            Some((known, since)) if known == digest => since,
            _ => now,
        };
        self.since = Some((digest, since));
        let left = soak.saturating_sub(now - since);
        if left.is_zero() {
            return Ok(());
        }
        Err(format!("without an error for {} s, {} s to go", (now - since).as_secs(), left.as_secs().max(1)))
    }

    /// When to look again, if nothing is reported before.
    pub(crate) fn deadline(&self, soak: Duration) -> Option<Instant> {
        self.since.map(|(_, since)| since + soak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOAK: Duration = Duration::from_mins(1);

    fn report(sequence: u64, error: Option<&str>) -> NodeReport {
        NodeReport {
            pool: "canary".into(),
            position: (0, sequence),
            error: error.map(Into::into),
            ..NodeReport::default()
        }
    }

    fn trouble(reports: &[Option<NodeReport>]) -> Option<String> {
        let names = ["a", "b", "c", "d", "e"];
        let nodes = names.into_iter().zip(reports).map(|(name, report)| (name, report.as_ref())).collect();
        Trial { nodes, position: (0, 7), next: false }.trouble()
    }

    #[test]
    fn every_node_must_have_it_and_none_may_fail() {
        assert_eq!(trouble(&[Some(report(7, None)), Some(report(9, None))]), None);
        let missing = |reports: &[Option<NodeReport>]| trouble(reports).unwrap();
        assert!(missing(&[]).contains("no node"));
        assert_eq!(missing(&[Some(report(7, None)), None]), "1 of 2 nodes have not reported it yet: b");
        assert!(missing(&[Some(report(6, None))]).contains('a'));
        assert!(
            missing(&[None, Some(report(6, Some("KernelRefused")))]).contains("node b says KernelRefused")
        );
        let in_a_wave = NodeReport { next: true, ..report(8, None) };
        let held = NodeReport { held: true, ..report(8, None) };
        assert!(missing(&[Some(in_a_wave), Some(held)]).starts_with("2 of 2"));
        assert!(missing(&[None, None, None, None]).ends_with("a, b, c, …"));
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_and_another_shape_begin_it_anew() {
        let (one, other) = (Digest::of(&[b"1"]), Digest::of(&[b"2"]));
        let mut soak = Soak::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(soak.look(one, None, SOAK, at(0)).unwrap_err().contains("60 s to go"));
        assert!(soak.look(one, None, SOAK, at(59)).is_err());
        assert_eq!(soak.deadline(SOAK), Some(at(60)));
        assert_eq!(soak.look(one, None, SOAK, at(60)), Ok(()));
        assert!(soak.look(other, None, SOAK, at(61)).is_err());
        assert_eq!(soak.look(other, Some("no".into()), SOAK, at(62)), Err("no".to_owned()));
        assert!(soak.look(other, None, SOAK, at(121)).is_err());
        assert_eq!(soak.look(other, None, SOAK, at(181)), Ok(()));
    }
}
