//! Which shape a pool's bundle has.

use std::collections::HashMap;
use std::sync::Arc;

use rulecast_bundle::{Bundle, Key, Mode, Shape, Value};

/// What a pool's bundle is made of.
#[derive(Clone, Default)]
pub enum Live {
    /// The shape that the Services and the pool's options ask for, as it changes.
    #[default]
    Wanted,
    /// This shape, whatever they ask for, with the endpoints that are usable now.
    Fixed(Arc<Shape>),
    /// This bundle as it is, endpoints included, which may be dead by now.
    Exact(Mode, Arc<Bundle>),
}

impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wanted, Self::Wanted) => true,
            (Self::Fixed(a), Self::Fixed(b)) => Arc::ptr_eq(a, b) || a.digest() == b.digest(),
            (Self::Exact(m, a), Self::Exact(n, b)) => m == n && (Arc::ptr_eq(a, b) || a.root() == b.root()),
            _ => false,
        }
    }
}

/// The records of a fixed shape by the Service that they come from, each list sorted.
#[derive(Default)]
pub(super) struct ByOwner {
    pub(super) services: HashMap<Arc<str>, Vec<(Key, Value)>>,
    /// Those that come from no Service.
    pub(super) pool: Vec<(Key, Value)>,
}

impl ByOwner {
    pub(super) fn of(shape: &Shape) -> Self {
        let mut this = Self::default();
        for (key, value) in shape.records().iter() {
            match value.owner() {
                None => this.pool.push((key, value)),
                Some(owner) => match this.services.get_mut(owner) {
                    Some(records) => records.push((key, value)),
                    None => drop(this.services.insert(Arc::from(owner), vec![(key, value)])),
                },
            }
        }
        this
    }
}
