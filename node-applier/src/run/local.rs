//! The part of the applier's life that needs no source: the kernel, the disk, and what the world is told.

mod asked;

use std::net::IpAddr;
use std::time::SystemTime;

use rulecast_bundle::{Head, Refusal, Way, is_next};
use tokio::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

use super::edges::{self, Edges};
use crate::addresses;
use crate::applier::{Applier, ApplyError, Report};
use crate::backend::Backend;
use crate::source::SourceError;
use crate::status::{Problem, Shared};

/// A repair that failed is tried again after twice the time it was before, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// There is nothing more to do about a head.
pub(super) struct AlreadySaid {
    /// It was refused.
    pub(super) refused: bool,
}

/// An applier with what it reports to.
pub struct Local<B> {
    applier: Applier<B>,
    shared: Shared,
    /// Repairs that failed one after the other, and when to try the next.
    failures: u32,
    next_repair: Instant,
    edges: Edges,
    /// Why the node is not on the next shape although it is in a wave. It stays when a version of the pool's own bundle comes
    /// into force, until the wave ends or the next shape is in force.
    stays_behind: Option<Problem>,
    /// The version that is waited for because it is older than what is in force from the pool's other bundle was told of.
    told_behind: bool,
    /// When the log says again that a shape is kept.
    next_reminder: Option<Instant>,
    /// Tells the node's addresses; none when that cannot be known right now.
    addresses: Box<dyn Fn() -> Option<Vec<IpAddr>>>,
}

impl<B: Backend> Local<B> {
    /// Puts the parts together.
    pub fn new(applier: Applier<B>, shared: Shared) -> Self {
        Self {
            applier,
            shared,
            failures: 0,
            next_repair: Instant::now(),
            edges: Edges::default(),
            stays_behind: None,
            told_behind: false,
            next_reminder: None,
            addresses: Box::new(addresses::of_this_node),
        }
    }

    /// With other addresses than this machine's.
    #[must_use]
    pub fn with_addresses(self, addresses: impl Fn() -> Option<Vec<IpAddr>> + 'static) -> Self {
        Self { addresses: Box::new(addresses), ..self }
    }

    /// With what it does beside rules.
    #[must_use]
    pub fn with_edges(self, edges: Edges) -> Self {
        Self { edges, ..self }
    }

    /// What is told.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        self.applier.pool()
    }

    /// Whether the version in force is of the next shape's bundle.
    pub(super) fn is_on_next(&self) -> bool {
        self.applier.bundle().is_some_and(is_next)
    }

    /// Whether the version in force says that the node is in a wave.
    pub(super) fn is_in_wave(&self) -> bool {
        self.applier.view().fact().next
    }

    /// Heads that are offered from now on are of the bundle `name`.
    pub(super) fn follow(&mut self, name: &str) {
        self.applier.follow(name);
        self.told_behind = false;
        if is_next(name) || !self.is_in_wave() {
            self.stays_behind = None;
        } else {
            self.stays_behind = self.shared.lock().0.problem.clone().filter(|p| p.sequence.is_some());
        }
    }

    /// Applies the last good version from disk, before anybody is asked for anything.
    pub fn restore(&mut self) {
        self.watch_addresses();
        match self.applier.restore() {
            Ok(None) => info!("no last good bundle on disk; waiting for the source"),
            Ok(Some(report)) => {
                self.shared.lock().0.restored = true;
                self.applied(&report, "restored the last good bundle from disk");
            }
            Err(error) => self.failed(&error, None),
        }
    }

    pub(super) fn source_failed(&self, error: &SourceError) {
        warn!(%error, "the source is away; the rules in force stay");
        self.shared.lock().1.source_failed(error.to_string());
        // A broken watch is nothing lasting; what cannot be read is.
        if !matches!(error, SourceError::Watch(_)) {
            self.shared.fail(error.reason(), error.to_string(), None);
        }
    }

    /// Whether a head is worth following; if so, from which sequence (none: from a checkpoint). If not, everything is said
    /// already.
    pub(super) fn admit(&mut self, head: &Head) -> Result<Option<u64>, AlreadySaid> {
        match self.applier.admit(head) {
            Ok(None) => {
                debug!(sequence = head.sequence, "already in force");
                self.confirmed();
                Err(AlreadySaid { refused: false })
            }
            Ok(Some(have)) => Ok(have),
            Err(refusal @ Refusal::Behind { .. }) => {
                if !std::mem::replace(&mut self.told_behind, true) {
                    info!("{refusal}");
                }
                self.confirmed();
                Err(AlreadySaid { refused: false })
            }
            Err(refusal) => {
                self.failed(&refusal.into(), Some(head));
                Err(AlreadySaid { refused: true })
            }
        }
    }

    pub(super) fn offer(&mut self, head: &Head, way: Way) -> Result<(), ApplyError> {
        if let Way::Deltas(deltas) = &way {
            let (endpoints, services) =
                deltas.iter().map(|d| edges::count(&d.changes)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            self.shared.lock().1.queued(head.sequence, endpoints, services);
        }
        let report = self.applier.offer(head.clone(), way)?;
        self.in_force(&report, "applied");
        Ok(())
    }

    /// Takes a version over that has the content in force already; false: it has another one, or was refused.
    pub(super) fn adopt(&mut self, head: &Head) -> bool {
        let Ok(Some(report)) = self.applier.adopt(head) else { return false };
        self.in_force(&report, "in force already under another number");
        true
    }

    fn in_force(&mut self, report: &Report, what: &str) {
        if !self.is_in_wave() {
            self.stays_behind = None;
        }
        self.confirmed();
        self.applied(report, what);
    }

    /// The source was heard, and nothing is wrong with what it said.
    fn confirmed(&self) {
        let (state, _) = &mut *self.shared.lock();
        state.restored = false;
        state.problem.clone_from(&self.stays_behind);
    }

    pub(super) fn unreadable(&self, error: &SourceError, head: &Head) {
        warn!(sequence = head.sequence, %error, "this version cannot be read; the rules in force stay");
        let (reason, message) = (error.reason(), error.to_string());
        self.shared.lock().1.refused(reason);
        self.shared.fail(reason, message, Some(head.sequence));
    }

    /// What is done every half second.
    pub(super) fn tick(&mut self) {
        self.watch_rules();
        if self.next_reminder.is_some_and(|at| at <= Instant::now()) {
            self.tell_hold();
        }
        if self.edges.tick(&mut self.applier, &self.shared) {
            self.watch_addresses();
        }
    }

    fn watch_rules(&mut self) {
        if self.next_repair > Instant::now() {
            return;
        }
        match self.applier.repair() {
            Ok(None) => self.failures = 0,
            Ok(Some((why, report))) => {
                self.failures = 0;
                self.shared.lock().1.repaired();
                self.applied(&report, &format!("repaired: {why}"));
            }
            Err(error) => {
                let pause = Duration::from_millis(500).saturating_mul(1 << self.failures.min(10));
                self.next_repair = Instant::now() + pause.min(LONGEST_PAUSE);
                self.failures += 1;
                self.failed(&error, None);
            }
        }
    }

    pub(super) fn watch_addresses(&mut self) {
        let Some(addrs) = (self.addresses)() else { return };
        if addrs == self.applier.node_addrs() {
            return;
        }
        if let Err(error) = self.applier.set_node_addrs(addrs) {
            self.failed(&error, None);
        }
        self.edges.serve_health_checks(&self.applier);
    }

    fn applied(&mut self, report: &Report, what: &str) {
        let sequence = self.applier.head().map(|h| h.sequence);
        info!(
            sequence,
            changes = report.changes,
            took_us = report.took.as_micros(),
            kernel_us = report.applied.kernel.as_micros(),
            bytes = report.applied.bytes,
            "{what}"
        );
        {
            let (state, metrics) = &mut *self.shared.lock();
            state.applied_at = Some(SystemTime::now());
            // A version that was refused is still refused when the one in force was repaired.
            state.problem = state.problem.take().filter(|p| p.sequence.is_some());
            metrics.synced(report);
        }
        self.tell();
    }

    /// Tells what is in force, and does beside rules what follows from it.
    fn tell(&mut self) {
        let view = self.applier.view();
        let sizes = (view.counts().targets, view.counts().members);
        {
            let (state, metrics) = &mut *self.shared.lock();
            state.head = self.applier.head().map(|h| Head { delta: String::new(), ..h.clone() });
            state.mode = view.mode();
            state.set_in_step(self.applier.in_step());
            state.draining = view.fact().draining;
            state.bundle = self.applier.bundle().map(str::to_owned);
            state.nodes = view.nodes();
            metrics.sequence = state.head.as_ref().map_or(0, |head| head.sequence);
            metrics.sizes = sizes;
        }
        self.tell_hold();
        self.edges.follow(&mut self.applier, &self.shared);
    }

    pub(super) fn failed(&self, problem: &ApplyError, head: Option<&Head>) {
        let sequence = head.map(|h| h.sequence);
        let reason = problem.reason();
        let known = |p: &crate::status::Problem| p.reason == reason && p.sequence == sequence;
        if !self.shared.lock().0.problem.as_ref().is_some_and(known) {
            error!(sequence, reason, "{problem}; the rules in force stay");
        }
        {
            let (state, metrics) = &mut *self.shared.lock();
            state.set_in_step(self.applier.in_step());
            match problem {
                ApplyError::Refused(_) => metrics.refused(reason),
                ApplyError::Kernel(_) => metrics.sync_failed(self.applier.view().mode()),
            }
        }
        self.shared.fail(reason, problem.to_string(), sequence);
    }
}
