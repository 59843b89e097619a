//! Writing the pools' status: on change, and rarely.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rulecast_api::RulePoolStatus;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Done;
use super::pool::PoolState;
use crate::objects::{Kind, ObjectId};
use crate::status::{Report, StatusWriter, is_urgent, notices};
use crate::world::World;

/// Between two that somebody waits for.
const SOON: Duration = Duration::from_secs(2);
/// Between two in which only numbers differ.
const LATER: Duration = Duration::from_secs(10);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Reports<W> {
    writer: Arc<W>,
    pools: BTreeMap<String, Reported>,
    deadline: Instant,
}

struct Reported {
    status: Option<RulePoolStatus>,
    at: Instant,
    busy: bool,
}

impl<W: StatusWriter> Reports<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer: Arc::new(writer), pools: BTreeMap::new(), deadline: Instant::now() + LATER }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Starts writing what has changed and is due.
    pub(super) fn write_due<'a>(
        &mut self,
        world: &World,
        state: impl Fn(&str) -> Option<&'a PoolState>,
        jobs: &mut JoinSet<Done>,
    ) {
        let now = Instant::now();
        self.deadline = now + LATER;
        let rejected = world.quarantined().keys().filter(|id| id.kind == Kind::RulePool).map(|id| &id.name);
        let mut names: Vec<&String> = world.pools().keys().chain(rejected).collect();
        names.sort();
        names.dedup();
        self.pools.retain(|name, _| names.contains(&name));
        for name in names {
            let reported = self.pools.entry(name.clone());
            let reported = reported.or_insert(Reported { status: None, at: now - LATER, busy: false });
            if reported.busy {
                continue;
            }
            let status = report(world, name, state(name), reported.status.as_ref());
            let wait = match &reported.status {
                Some(before) if *before == status => continue,
                Some(before) if is_urgent(before, &status) => SOON,
                Some(_) => LATER,
                None => Duration::ZERO,
            };
            if reported.at + wait > now {
                self.deadline = self.deadline.min(reported.at + wait);
                continue;
            }
            reported.busy = true;
            reported.at = now;
            let notices = notices(reported.status.as_ref(), &status);
            reported.status = Some(status.clone());
            let (writer, name) = (Arc::clone(&self.writer), name.clone());
            jobs.spawn(async move {
                let written = tokio::time::timeout(PATIENCE, writer.write(&name, &status, &notices)).await;
                Done::Reported(name, written.unwrap_or_else(|_| Err("no answer".to_owned())))
            });
        }
    }

    pub(super) fn written(&mut self, pool: &str, result: Result<(), String>) {
        let Some(reported) = self.pools.get_mut(pool) else { return };
        reported.busy = false;
        if let Err(error) = result {
            tracing::warn!(pool, error, "the RulePool's status could not be written; it is tried again");
            reported.status = None;
            reported.at = Instant::now() + RETRY;
        }
    }
}

fn report(
    world: &World,
    name: &str,
    state: Option<&PoolState>,
    before: Option<&RulePoolStatus>,
) -> RulePoolStatus {
    let config = world.pools().get(name);
    let read = config.map(|config| config.conditions.as_slice()).unwrap_or_default();
    let report = Report {
        synced: world.is_synced(),
        generation: config.and_then(|config| config.generation),
        before: before.map_or(read, |status| &status.conditions),
        rejected: world.quarantined().get(&ObjectId::new(Kind::RulePool, name)).map(String::as_str),
        bundle: world.compiler().pools().find(|(n, _)| *n == name).map(|(_, bundle)| bundle),
        published: state.and_then(|state| state.publisher.published()),
        released: state.zip(config).map(|(state, config)| state.release.told(&config.asked)),
        error: state.and_then(|state| state.error.as_deref()),
        quarantined: world.quarantined(),
    };
    report.status()
}
