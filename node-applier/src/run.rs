//! The applier's life: restore, then follow the source, repair, report.

use std::time::{Duration, SystemTime};

use rulecast_bundle::Head;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::addresses;
use crate::applier::{Applier, ApplyError, Report};
use crate::backend::Backend;
use crate::source::{Source, SourceError, catch_up};
use crate::status::Shared;

/// How often to look whether somebody changed our rules: well below the 2 s within which they must be back.
const WATCH_RULES: Duration = Duration::from_millis(500);
/// How often to look for new node addresses.
const WATCH_ADDRESSES: Duration = Duration::from_secs(2);
/// The same refused version is tried again after this long: the cause may be gone (a kernel module, a chunk).
const RETRY: Duration = Duration::from_secs(10);

/// An applier with what it reports to.
pub struct Runner<B, S> {
    applier: Applier<B>,
    source: S,
    shared: Shared,
    /// A version that could not be applied, and when to try again.
    retry: Option<(Head, Instant)>,
}

impl<B: Backend, S: Source> Runner<B, S> {
    /// Puts the parts together.
    pub fn new(applier: Applier<B>, source: S, shared: Shared) -> Self {
        Self { applier, source, shared, retry: None }
    }

    /// Applies the last good version from disk, before anybody is asked for anything.
    pub fn restore(&mut self) -> Result<(), ApplyError> {
        if let Err(error) = self.applier.set_node_addrs(addresses::of_this_node()) {
            warn!(%error, "the node's addresses could not be applied");
        }
        match self.applier.restore() {
            Ok(None) => info!("no last good bundle on disk; waiting for the source"),
            Ok(Some(report)) => {
                self.shared.lock().0.restored = true;
                self.applied(&report, "restored the last good bundle from disk");
            }
            Err(error) => {
                self.failed(&error, None);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs until `stop` resolves. The rules stay in the kernel.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut rules = interval(WATCH_RULES);
        let mut addresses = interval(WATCH_ADDRESSES);
        rules.set_missed_tick_behavior(MissedTickBehavior::Delay);
        addresses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => return,
                head = self.source.next() => self.take(head).await,
                _ = rules.tick() => {
                    self.watch_rules();
                    self.try_again().await;
                }
                _ = addresses.tick() => self.watch_addresses(),
            }
        }
    }

    /// Follows the source until one version is in force, for scripts.
    pub async fn run_once(&mut self) -> anyhow::Result<()> {
        let head = self.source.next().await?;
        self.take(Ok(head)).await;
        let problem = self.shared.lock().0.problem.clone();
        problem.map_or(Ok(()), |p| Err(anyhow::anyhow!("{}: {}", p.reason, p.message)))
    }

    async fn take(&mut self, head: Result<Head, SourceError>) {
        match head {
            Ok(head) => {
                self.shared.lock().1.heard = Some(SystemTime::now());
                self.follow(head).await;
            }
            Err(error) => {
                warn!(%error, "the source is away; the rules in force stay");
                self.shared.lock().1.source_failed();
                if !matches!(error, SourceError::Watch(_)) {
                    self.shared.fail(error.reason(), error.to_string(), None);
                }
            }
        }
    }

    async fn follow(&mut self, head: Head) {
        let have = match self.applier.admit(&head) {
            Ok(Some(have)) => have,
            Ok(None) => {
                debug!(sequence = head.sequence, "already in force");
                let (state, _) = &mut *self.shared.lock();
                state.restored = false;
                state.problem = None;
                return;
            }
            Err(refusal) => return self.failed(&refusal.into(), Some(&head)),
        };
        let way = match self.catch_up(&head, have).await {
            Ok(way) => way,
            Err(error) => {
                warn!(sequence = head.sequence, %error, "this version cannot be read; the rules in force stay");
                let (reason, message) = (error.reason(), error.to_string());
                self.shared.lock().1.refused(reason);
                self.shared.fail(reason, message, Some(head.sequence));
                self.retry = Some((head, Instant::now() + RETRY));
                return;
            }
        };
        match self.applier.offer(head.clone(), way) {
            Ok(report) => {
                self.retry = None;
                self.shared.lock().0.restored = false;
                self.applied(&report, "applied");
            }
            Err(error) => {
                self.failed(&error, Some(&head));
                self.retry = Some((head, Instant::now() + RETRY));
            }
        }
    }

    /// A chain of deltas that does not lead here is no reason to give up: the checkpoint may.
    async fn catch_up(&self, head: &Head, have: Option<u64>) -> Result<rulecast_bundle::Way, SourceError> {
        match catch_up(&self.source, head, have).await {
            Err(error) if have.is_some() => {
                info!(%error, "the deltas cannot be followed; reading the checkpoint");
                catch_up(&self.source, head, None).await
            }
            result => result,
        }
    }

    async fn try_again(&mut self) {
        if let Some((head, _)) = self.retry.take_if(|(_, at)| *at <= Instant::now()) {
            self.follow(head).await;
        }
    }

    fn watch_rules(&mut self) {
        match self.applier.repair() {
            Ok(None) => {}
            Ok(Some((why, report))) => {
                self.shared.lock().1.repaired();
                self.applied(&report, &why);
            }
            Err(error) => self.failed(&error, None),
        }
    }

    fn watch_addresses(&mut self) {
        if let Err(error) = self.applier.set_node_addrs(addresses::of_this_node()) {
            self.failed(&error, None);
        }
    }

    fn applied(&self, report: &Report, what: &str) {
        let sequence = self.applier.head().map(|h| h.sequence);
        info!(
            sequence,
            changes = report.changes,
            took_us = report.took.as_micros(),
            kernel_us = report.applied.kernel.as_micros(),
            bytes = report.applied.bytes,
            "{what}"
        );
        let view = self.applier.view();
        let sizes = view
            .targets()
            .fold((0, 0), |(targets, members), (_, t)| (targets + 1, members + t.members().len()));
        let (state, metrics) = &mut *self.shared.lock();
        state.head = self.applier.head().map(|h| Head { delta: String::new(), ..h.clone() });
        state.applied_at = Some(SystemTime::now());
        state.in_step = self.applier.in_step();
        state.draining = view.fact().draining;
        state.problem = None;
        metrics.synced(report);
        metrics.sequence = sequence.unwrap_or_default();
        metrics.sizes = sizes;
    }

    fn failed(&self, problem: &ApplyError, head: Option<&Head>) {
        let sequence = head.map(|h| h.sequence);
        let reason = problem.reason();
        let known = self
            .shared
            .lock()
            .0
            .problem
            .as_ref()
            .is_some_and(|p| p.reason == reason && p.sequence == sequence);
        if !known {
            error!(sequence, reason, "{problem}; the rules in force stay");
        }
        {
            let (state, metrics) = &mut *self.shared.lock();
            state.in_step = self.applier.in_step();
            match problem {
                ApplyError::Refused(_) => metrics.refused(reason),
                ApplyError::Kernel(_) => metrics.sync_failed(),
            }
        }
        self.shared.fail(reason, problem.to_string(), sequence);
    }
}
