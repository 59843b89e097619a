//! One pool's bundle as it is compiled, and what changed since the last publication.

mod ledger;
mod live;
mod populate;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rulecast_bundle::{Bundle, Change, Key, Mode, Shape, Tag, Value};

use crate::compiler::Inputs;
use crate::endpoints::Tags;
use crate::model::{Node, Options, Pool};
use crate::service::{ClaimKey, Class};

use ledger::Ledger;
use live::ByOwner;

pub use ledger::Stats;
pub use live::Live;

/// What one Service contributes to the pool.
#[derive(Default)]
struct Contribution {
    claims: Vec<(ClaimKey, Class)>,
    /// The shape that it asks for.
    wanted: Vec<(Key, Value)>,
    /// What of it could not be used.
    problems: Vec<String>,
    /// What the bundle has of it: the live shape, with members.
    live: Vec<(Key, Value)>,
}

/// A pool's bundle, kept up to date by [`crate::Compiler::compile`].
pub struct PoolBundle {
    pool: Pool,
    contributions: HashMap<Arc<str>, Contribution>,
    /// Who wants each kernel key; the first has it.
    claims: HashMap<ClaimKey, BTreeSet<(Class, Arc<str>)>>,
    problems: BTreeMap<String, String>,
    ignored_external_ips: BTreeSet<Arc<str>>,
    /// The shape that the inputs ask for.
    wanted: Shape,
    wanted_services: usize,
    live: Live,
    /// Of a [`Live::Fixed`].
    fixed: Option<ByOwner>,
    ledger: Ledger,
    /// Names of the nodes that follow the pool's next shape.
    wave: BTreeSet<String>,
    /// The next compile covers everything.
    stale: bool,
    /// Another shape became live: the next compile gives it its members.
    relive: bool,
    /// What the nodes are told of themselves is to be said anew.
    stale_facts: bool,
    /// During a [`Live::Exact`]: the bundle before, which is what the contributions add up to.
    aside: Option<Bundle>,
}

impl PoolBundle {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            wanted: Shape::new(pool.options.mode),
            pool,
            contributions: HashMap::new(),
            claims: HashMap::new(),
            problems: BTreeMap::new(),
            ignored_external_ips: BTreeSet::new(),
            wanted_services: 0,
            live: Live::Wanted,
            fixed: None,
            ledger: Ledger::default(),
            wave: BTreeSet::new(),
            stale: true,
            relive: false,
            stale_facts: false,
            aside: None,
        }
    }

    pub(crate) fn reconfigure(&mut self, pool: Pool) {
        self.stale |= self.pool != pool;
        self.pool = pool;
    }

    /// Makes a shape live. The next [`crate::Compiler::compile`] gives it the endpoints that are usable then.
    pub fn set_live(&mut self, live: Live) {
        if self.live == live {
            return;
        }
        self.fixed = if let Live::Fixed(shape) = &live { Some(ByOwner::of(shape)) } else { None };
        self.live = live;
        self.relive = true;
    }

    /// Tells which nodes follow the pool's next shape, by name.
    pub fn set_wave(&mut self, nodes: BTreeSet<String>) {
        self.stale_facts |= self.wave != nodes;
        self.wave = nodes;
    }

    /// What the bundle is made of.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Whether the next compile changes something even if no input does.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale || self.relive || self.stale_facts
    }

    /// The compiled bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.ledger.bundle
    }

    /// The mode of the compiled bundle.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.live {
            Live::Wanted => self.wanted.mode(),
            Live::Fixed(shape) => shape.mode(),
            Live::Exact(mode, _) => *mode,
        }
    }

    /// The shape that the Services and the pool's options ask for.
    #[must_use]
    pub fn wanted(&self) -> &Shape {
        &self.wanted
    }

    /// How many Services there are in it.
    #[must_use]
    pub fn wanted_services(&self) -> usize {
        self.wanted_services
    }

    /// The pool's options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.pool.options
    }

    /// The pool's counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.ledger.stats
    }

    /// Services with externalIPs that are not served, because the pool does not allow them.
    #[must_use]
    pub fn ignored_external_ips(&self) -> &BTreeSet<Arc<str>> {
        &self.ignored_external_ips
    }

    /// Services of which something was left out, and what.
    #[must_use]
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// Whether anything changed since the last [`PoolBundle::take_changes`].
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.ledger.has_changes()
    }

    /// What changed since the last call (the first time: since nothing), sorted by key. Records that changed back are not
    /// among them.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.ledger.take_changes()
    }

    /// The last [`PoolBundle::take_changes`] was published: what undoing it would need is forgotten.
    pub fn confirm(&mut self) {
        self.ledger.confirm();
    }

    /// Undoes the last [`PoolBundle::take_changes`], whose publication failed: its changes come again with the next one,
    /// netted with what happened since.
    pub fn put_back(&mut self) {
        self.ledger.put_back();
    }

    /// Whether a node is one of the pool's.
    #[must_use]
    pub fn selects(&self, node: &Node) -> bool {
        self.pool.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }

    pub(crate) fn compile(&mut self, inputs: &Inputs, dirty: &BTreeSet<Arc<str>>, tags: &mut Tags) {
        let everything: BTreeSet<Arc<str>>;
        let mut dirty = dirty;
        let stale = std::mem::take(&mut self.stale);
        if stale {
            self.compile_options();
            everything = inputs.services.keys().chain(self.contributions.keys()).cloned().collect();
            dirty = &everything;
        }
        let compiled = self.compile_shape(dirty, inputs);
        let facts = std::mem::take(&mut self.stale_facts) || stale;
        if let Live::Exact(_, exact) = &self.live {
            let exact = Arc::clone(exact);
            self.aside.get_or_insert_with(|| self.ledger.bundle.clone());
            self.move_to(&exact);
        } else if std::mem::take(&mut self.relive) {
            self.leave_exact(inputs);
            self.populate_everything(inputs, tags);
        } else {
            if facts {
                self.put_pool_records(inputs);
            }
            self.populate(&compiled, inputs, tags);
        }
    }

    fn move_to(&mut self, bundle: &Bundle) {
        let changes = self.ledger.bundle.diff(bundle);
        self.ledger.put_all(&changes);
    }

    /// Goes back to what the contributions add up to, which then are brought up to date.
    fn leave_exact(&mut self, inputs: &Inputs) {
        let Some(mut before) = self.aside.take() else { return };
        let known: BTreeSet<Tag> = inputs.nodes.keys().map(|name| Tag::of(name)).collect();
        let gone = |key: &Key| matches!(key, Key::Node(tag) if !known.contains(tag));
        let gone: Vec<_> = before.iter().filter(|(key, _)| gone(key)).collect();
        let removals: Vec<_> = gone.into_iter().map(|(key, _)| Change { key, value: None }).collect();
        let _final = before.apply(&removals).expect("they were found there");
        self.move_to(&before);
    }
}
