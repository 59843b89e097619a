//! The cluster's objects, and how they reach a compiler.

use std::collections::BTreeMap;

use rulecast_compiler::Compiler;
use rulecast_compiler::model::{Node, Options, Pool, Service, Slice};

use crate::rng::Rng;

/// The one pool.
pub(crate) const POOL: &str = "default";

/// All inputs of the compiler.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) slices: BTreeMap<String, Slice>,
    pub(crate) nodes: BTreeMap<String, Node>,
}

/// One object, as it is now; none when it is gone.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Pool(Pool),
    Service(String, Option<Service>),
    Slice(String, Option<Slice>),
    Node(String, Option<Node>),
}

impl World {
    pub(crate) fn options(&self) -> &Options {
        &self.pool.options
    }

    /// Whether the pool has a node.
    pub(crate) fn selects(&self, node: &str) -> bool {
        let Some(node) = self.nodes.get(node) else { return false };
        self.pool.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::Pool(pool) => self.pool = pool,
            Event::Service(name, object) => put(&mut self.services, name, object),
            Event::Slice(name, object) => put(&mut self.slices, name, object),
            Event::Node(name, object) => put(&mut self.nodes, name, object),
        }
    }

    /// Everything compiled at once, objects in an order of chance.
    pub(crate) fn compile(&self, rng: &mut Rng) -> Compiler {
        let services = self.services.iter().map(|(n, o)| Event::Service(n.clone(), Some(o.clone())));
        let slices = self.slices.iter().map(|(n, o)| Event::Slice(n.clone(), Some(o.clone())));
        let nodes = self.nodes.iter().map(|(n, o)| Event::Node(n.clone(), Some(o.clone())));
        let mut events: Vec<Event> = services.chain(slices).chain(nodes).collect();
        events.push(Event::Pool(self.pool.clone()));
        rng.shuffle(&mut events);
        let mut compiler = Compiler::default();
        for event in events {
            event.send(&mut compiler);
        }
        compiler.compile();
        compiler
    }
}

impl Event {
    /// Tells a compiler.
    pub(crate) fn send(self, compiler: &mut Compiler) {
        match self {
            Self::Pool(pool) => compiler.set_pool(POOL, Some(pool)),
            Self::Service(name, object) => compiler.set_service(&name, object),
            Self::Slice(name, object) => compiler.set_slice(&name, object),
            Self::Node(name, object) => compiler.set_node(&name, object),
        }
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, name: String, object: Option<T>) {
    match object {
        Some(object) => drop(map.insert(name, object)),
        None => drop(map.remove(&name)),
    }
}
