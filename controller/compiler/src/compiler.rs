//! The incremental compiler: inputs by name, pools, and what is dirty.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rulecast_bundle::Tag;

use crate::endpoints::Tags;
use crate::model::{Node, Pool, Service, Slice};
use crate::pool::PoolBundle;

/// The inputs that pools are compiled from.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) services: HashMap<Arc<str>, Service>,
    /// By Service, then by slice.
    pub(crate) slices: HashMap<Arc<str>, BTreeMap<Arc<str>, Slice>>,
    pub(crate) nodes: BTreeMap<String, Node>,
}

/// Compiles every Service for every pool; see the crate's documentation.
#[derive(Default)]
pub struct Compiler {
    inputs: Inputs,
    /// Which Service each slice belongs to.
    slice_owner: HashMap<Arc<str>, Arc<str>>,
    /// Node names by tag: two names with one tag would be taken for each other.
    node_tags: HashMap<Tag, BTreeSet<String>>,
    pools: BTreeMap<String, PoolBundle>,
    tags: Tags,
    /// Services whose inputs changed since the last compile.
    dirty: BTreeSet<Arc<str>>,
}

impl Compiler {
    /// Adds, changes or removes a pool.
    pub fn set_pool(&mut self, name: &str, pool: Option<Pool>) {
        match pool {
            None => drop(self.pools.remove(name)),
            Some(pool) => match self.pools.get_mut(name) {
                Some(known) => known.reconfigure(pool),
                None => drop(self.pools.insert(name.to_owned(), PoolBundle::new(pool))),
            },
        }
    }

    /// Adds, changes or removes the Service `name` (namespace/name).
    pub fn set_service(&mut self, name: &str, service: Option<Service>) {
        let before = self.inputs.services.get(name);
        if before == service.as_ref() {
            return;
        }
        let name: Arc<str> = name.into();
        match service {
            Some(service) => drop(self.inputs.services.insert(Arc::clone(&name), service)),
            None => drop(self.inputs.services.remove(&name)),
        }
        self.dirty.insert(name);
    }

    /// Adds, changes or removes the EndpointSlice `name` (namespace/name).
    pub fn set_slice(&mut self, name: &str, slice: Option<Slice>) {
        let owner = slice.as_ref().map(|s| Arc::<str>::from(s.service.as_str()));
        if let Some(before) = self.slice_owner.get(name).cloned() {
            let slices = self.inputs.slices.get_mut(&before).expect("an owner has slices");
            if owner.as_ref() == Some(&before) && slices.get(name) == slice.as_ref() {
                return;
            }
            slices.remove(name);
            if slices.is_empty() {
                self.inputs.slices.remove(&before);
            }
            self.slice_owner.remove(name);
            self.dirty.insert(before);
        }
        if let (Some(slice), Some(owner)) = (slice, owner) {
            let name: Arc<str> = name.into();
            self.inputs.slices.entry(Arc::clone(&owner)).or_default().insert(Arc::clone(&name), slice);
            self.slice_owner.insert(name, Arc::clone(&owner));
            self.dirty.insert(owner);
        }
    }

    /// Adds, changes or removes a Node.
    pub fn set_node(&mut self, name: &str, node: Option<Node>) {
        if self.inputs.nodes.get(name) == node.as_ref() {
            return;
        }
        let tag = Tag::of(name);
        let names = self.node_tags.entry(tag).or_default();
        if let Some(node) = node {
            names.insert(name.to_owned());
            self.inputs.nodes.insert(name.to_owned(), node);
        } else {
            names.remove(name);
            self.inputs.nodes.remove(name);
        }
        // The first name keeps the tag; the other node runs without facts of its own rather than with another's.
        let first = names.first().cloned();
        for pool in self.pools.values_mut() {
            pool.set_node(tag, first.as_ref().map(|n| (n, &self.inputs.nodes[n])));
        }
    }

    /// Recompiles what changed since the last call. The cost is that of the changed Services; a new or reconfigured pool
    /// is compiled whole.
    pub fn compile(&mut self) {
        for pool in self.pools.values_mut() {
            pool.compile(&self.inputs, &self.dirty, &mut self.tags);
        }
        self.dirty.clear();
    }

    /// The pools by name.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &PoolBundle)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool))
    }

    /// The names of a pool's nodes, sorted.
    pub fn nodes_of(&self, pool: &str) -> impl Iterator<Item = &str> {
        let pool = self.pools.get(pool);
        let nodes = self.inputs.nodes.iter().filter(move |(_, node)| pool.is_some_and(|p| p.selects(node)));
        nodes.map(|(name, _)| name.as_str())
    }

    /// A pool.
    pub fn pool_mut(&mut self, name: &str) -> Option<&mut PoolBundle> {
        self.pools.get_mut(name)
    }
}
