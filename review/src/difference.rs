//! The difference between two shapes.

use std::collections::BTreeSet;

use rulecast_bundle::{Key, Shape};
use serde::Serialize;

use crate::compare::{self, FieldChange};
use crate::plain::{cut, plain};
use crate::service::ServiceDescription;
use crate::shape::of_services;
use crate::{PoolDescription, shape};

/// The longest line of a summary, in bytes: as much as a RuleRevision takes.
pub const MAX_LINE: usize = 512;

/// What is different between two shapes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Difference {
    /// What is different in the pool's own part: its rules and settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<FieldChange>,
    /// What is different in Services, sorted by name.
    pub services: Vec<ServiceChange>,
}

/// A Service that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceChange {
    /// The Service, as namespace/name.
    pub service: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// Its fields that are different; all of them for one that came or went.
    pub fields: Vec<FieldChange>,
}

/// What became of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It is there on both sides.
    Changed,
}

/// Compares two shapes. Beside a look at all records the cost is that of what changed.
#[must_use]
pub fn diff(from: &Shape, to: &Shape) -> Difference {
    let changes = from.diff(to);
    let mut touched = BTreeSet::new();
    let mut pool = from.mode() != to.mode();
    for change in &changes {
        pool |= Key::OF_POOL.contains(&change.key);
        let before = from.records().get(&change.key);
        let owners = before.iter().chain(&change.value).filter_map(|value| value.owner());
        touched.extend(owners.map(ToOwned::to_owned));
    }
    let services = if touched.is_empty() { Vec::new() } else { compare_services(from, to, &touched) };
    let pool = if pool { described_pool(from).compare(&described_pool(to)) } else { Vec::new() };
    Difference { pool, services }
}

fn compare_services(from: &Shape, to: &Shape, touched: &BTreeSet<String>) -> Vec<ServiceChange> {
    let (old, new) = (of_services(from, touched), of_services(to, touched));
    let describe =
        |records: &shape::Records, service: &String| records.get(service).map(ServiceDescription::of);
    let change = |service: &String| {
        let (before, after) = (describe(&old, service), describe(&new, service));
        let kind = match (&before, &after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        let fields = compare::services(before.as_ref(), after.as_ref());
        ServiceChange { service: service.clone(), kind, fields }
    };
    touched.iter().map(change).collect()
}

fn described_pool(shape: &Shape) -> PoolDescription {
    let record = |key: Key| shape.records().get(&key).map(|value| (key, value));
    let records: Vec<_> = Key::OF_POOL.into_iter().filter_map(record).collect();
    PoolDescription::of(shape.mode(), &records)
}

impl Difference {
    /// Whether the shapes are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty() && self.services.is_empty()
    }

    /// One line for the pool's own part and one for each Service, at most [`MAX_LINE`] bytes each.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let pool = (!self.pool.is_empty())
            .then(|| cut(format!("RulePool options: {}", self.pool_brief()), MAX_LINE));
        pool.into_iter().chain(self.services.iter().map(ServiceChange::summary)).collect()
    }

    /// The objects that are different, such as `Service prod/web` or `RulePool options`, at most [`MAX_LINE`] bytes each.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let pool = (!self.pool.is_empty()).then(|| "RulePool options".to_owned());
        let services =
            self.services.iter().map(|change| cut(format!("Service {}", plain(&change.service)), MAX_LINE));
        pool.into_iter().chain(services).collect()
    }

    /// How many Services changed, came and went.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [ChangeKind::Changed, ChangeKind::Added, ChangeKind::Removed]
            .map(|kind| self.services.iter().filter(|change| change.kind == kind).count())
    }

    /// What happened, in one line.
    pub(crate) fn heading(&self) -> String {
        if self.is_empty() {
            return "no difference".to_owned();
        }
        let [changed, added, removed] = self.counts();
        let plural = if changed == 1 { "" } else { "s" };
        let options = if self.pool.is_empty() { "" } else { "; options of the pool changed" };
        format!("{changed} Service{plural} changed, {added} added, {removed} removed{options}")
    }

    /// Options with their values; of rules, which are long, only the places.
    fn pool_brief(&self) -> String {
        let mut seen = BTreeSet::new();
        let rules = |change: &&FieldChange| change.path.starts_with("rules.");
        let options = self.pool.iter().filter(|c| !rules(c)).map(FieldChange::brief);
        let places =
            self.pool.iter().filter(rules).map(FieldChange::place).filter(|p| seen.insert(p.clone()));
        options.chain(places).collect::<Vec<_>>().join("; ")
    }
}

impl ServiceChange {
    fn summary(&self) -> String {
        let ports = || {
            let port = |field: &&FieldChange| field.path.starts_with("ports[") && field.path.ends_with(']');
            let count = self.fields.iter().filter(port).count();
            format!("{count} port{}", if count == 1 { "" } else { "s" })
        };
        let what = match self.kind {
            ChangeKind::Added => format!("added ({})", ports()),
            ChangeKind::Removed => "removed".to_owned(),
            ChangeKind::Changed => self.fields.iter().map(FieldChange::brief).collect::<Vec<_>>().join("; "),
        };
        cut(format!("{}: {what}", plain(&self.service)), MAX_LINE)
    }
}

impl FieldChange {
    /// The change in a few words: `port http 80/TCP -> 8080/TCP`, `clusterIPs +10.96.0.7`.
    fn brief(&self) -> String {
        let place = self.place();
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("{place} {} -> {}", plain(before), plain(after)),
            (Some(before), None) => format!("{place} -{}", plain(before)),
            (None, Some(after)) => format!("{place} +{}", plain(after)),
            (None, None) => place,
        }
    }
}
