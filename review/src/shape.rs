//! A whole shape, described; and the records of some of its Services.

use std::collections::{BTreeMap, BTreeSet};

use rulecast_bundle::{Key, Shape, Value};
use serde::Serialize;

use crate::{PoolDescription, ServiceDescription};

/// A whole shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeDescription {
    /// The shape's digest.
    pub digest: String,
    /// The pool's own part.
    pub pool: PoolDescription,
    /// By namespace/name.
    pub services: BTreeMap<String, ServiceDescription>,
}

/// Describes a shape.
#[must_use]
pub fn describe(shape: &Shape) -> ShapeDescription {
    let mut pool = Vec::new();
    let mut services = Records::new();
    for (key, value) in shape.records().iter() {
        match value.owner().map(ToOwned::to_owned) {
            Some(owner) => services.entry(owner).or_default().push((key, value)),
            None => pool.push((key, value)),
        }
    }
    ShapeDescription {
        digest: shape.digest().to_string(),
        pool: PoolDescription::of(shape.mode(), &pool),
        services: services
            .into_iter()
            .map(|(owner, records)| (owner, ServiceDescription::of(&records)))
            .collect(),
    }
}

/// Some Services' records, by Service.
pub(crate) type Records = BTreeMap<String, Vec<(Key, Value)>>;

/// All records of these Services, in one pass over the shape.
pub(crate) fn of_services(shape: &Shape, wanted: &BTreeSet<String>) -> Records {
    let mut records = Records::new();
    for (key, value) in shape.records().iter() {
        if let Some(owner) = value.owner().filter(|owner| wanted.contains(*owner)) {
            records.entry(owner.to_owned()).or_default().push((key, value));
        }
    }
    records
}
