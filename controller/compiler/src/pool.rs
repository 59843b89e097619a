//! One pool's bundle as it is compiled, and what changed since the last publication.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Bundle, Change, DecodeError, Key, NodeFact, Tag, Value};

use crate::compiler::Inputs;
use crate::endpoints::Tags;
use crate::model::{Node, Options, Pool};
use crate::ruleset::ruleset;
use crate::service::{self, ClaimKey, Class};

/// A pool's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Services with a cluster IP.
    pub services: usize,
    /// Load-balancing targets.
    pub groups: usize,
    /// Members of all targets and scopes.
    pub endpoints: usize,
}

/// What one Service contributes to the pool.
#[derive(Default)]
struct Contribution {
    records: Vec<(Key, Value)>,
    claims: Vec<(ClaimKey, Class)>,
}

/// A pool's bundle, kept up to date by [`crate::Compiler::compile`].
pub struct PoolBundle {
    pool: Pool,
    bundle: Bundle,
    contributions: HashMap<Arc<str>, Contribution>,
    /// Who wants each kernel key; the first has it.
    claims: HashMap<ClaimKey, BTreeSet<(Class, Arc<str>)>>,
    problems: BTreeMap<String, String>,
    ignored_external_ips: BTreeSet<Arc<str>>,
    /// Records that changed since the last publication, with their value then.
    pending: BTreeMap<Key, Option<Value>>,
    /// `pending` as it was when it was last taken.
    taken: BTreeMap<Key, Option<Value>>,
    stats: Stats,
    /// The next compile covers everything.
    stale: bool,
}

impl PoolBundle {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            bundle: Bundle::default(),
            contributions: HashMap::new(),
            claims: HashMap::new(),
            problems: BTreeMap::new(),
            ignored_external_ips: BTreeSet::new(),
            pending: BTreeMap::new(),
            taken: BTreeMap::new(),
            stats: Stats::default(),
            stale: true,
        }
    }

    pub(crate) fn reconfigure(&mut self, pool: Pool) {
        self.stale |= self.pool != pool;
        self.pool = pool;
    }

    /// The compiled bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The pool's options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.pool.options
    }

    /// The pool's counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
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
        !self.pending.is_empty()
    }

    /// What changed since the last call (the first time: since nothing), sorted by key. Records that changed back are not
    /// among them.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.taken = std::mem::take(&mut self.pending);
        let changed = self.taken.keys().map(|key| Change { value: self.bundle.get(key), key: key.clone() });
        changed.collect()
    }

    /// The last [`PoolBundle::take_changes`] was published: what undoing it would need is forgotten.
    pub fn confirm(&mut self) {
        self.taken.clear();
    }

    /// Undoes the last [`PoolBundle::take_changes`], whose publication failed: its changes come again with the next one,
    /// netted with what happened since.
    pub fn put_back(&mut self) {
        for (key, published) in std::mem::take(&mut self.taken) {
            if self.bundle.get(&key) == published {
                self.pending.remove(&key);
            } else {
                self.pending.insert(key, published);
            }
        }
    }

    pub(crate) fn set_node(&mut self, tag: Tag, node: Option<(&String, &Node)>) {
        let node = node.filter(|(_, node)| self.selects(node));
        let fact = node.map(|(name, node)| Value::Node(fact(name, node)));
        self.put(Key::Node(tag), fact);
    }

    fn selects(&self, node: &Node) -> bool {
        self.pool.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }

    pub(crate) fn compile(&mut self, inputs: &Inputs, dirty: &BTreeSet<Arc<str>>, tags: &mut Tags) {
        let everything: BTreeSet<Arc<str>>;
        let mut dirty = dirty;
        if std::mem::take(&mut self.stale) {
            self.compile_pool_records(inputs);
            everything = inputs.services.keys().chain(self.contributions.keys()).cloned().collect();
            dirty = &everything;
        }
        // A claim that moves makes its other claimants dirty, once: their claims stay as they are.
        let mut affected = BTreeSet::new();
        for name in dirty {
            self.update_claims(name, inputs, &mut affected);
        }
        let compiled: Vec<_> =
            dirty.union(&affected).map(|name| (name, self.compile_service(name, inputs, tags))).collect();
        // All removals come before all additions: a key may go from one Service to another.
        let mut changes = Vec::new();
        for (name, records) in &compiled {
            let before = self.contributions.get(*name).map(|c| c.records.as_slice()).unwrap_or_default();
            removals(before, records, &mut changes);
        }
        for (name, records) in &compiled {
            let before = self.contributions.get(*name).map(|c| c.records.as_slice()).unwrap_or_default();
            additions(before, records, &mut changes);
        }
        // All at once: every bucket of the bundle is hashed once, however many Services changed in it.
        self.put_all(&changes);
        for (name, records) in compiled {
            if inputs.services.contains_key(name) {
                self.contributions.entry(Arc::clone(name)).or_default().records = records;
            } else {
                self.contributions.remove(name);
            }
        }
        self.stats.services = self.contributions.len();
    }

    fn compile_pool_records(&mut self, inputs: &Inputs) {
        self.problems.remove("the pool's options");
        let rules = [Family::V4, Family::V6]
            .map(|family| (Key::Rules(family), Value::Rules(Box::new(ruleset(&self.pool.options, family)))));
        // Both families or none: they are one configuration.
        if let Some(error) = rules.iter().find_map(|(key, value)| unreadable(key, value)) {
            let problem = format!("the rules do not fit the bundle format ({error}): the previous ones stay");
            self.problems.insert("the pool's options".to_owned(), problem);
        } else {
            for (key, value) in rules {
                self.put(key, Some(value));
            }
        }
        self.put(Key::Settings, Some(Value::Settings(self.pool.options.settings)));
        // Of two nodes with one tag the first keeps it.
        for (name, node) in inputs.nodes.iter().rev() {
            self.set_node(Tag::of(name), Some((name, node)));
        }
    }

    fn update_claims(&mut self, name: &Arc<str>, inputs: &Inputs, affected: &mut BTreeSet<Arc<str>>) {
        let service = inputs.services.get(name);
        let wanted = service.map(|s| service::claims(s, &self.pool.options)).unwrap_or_default();
        let known = self.contributions.get(name).map(|c| c.claims.as_slice()).unwrap_or_default();
        if wanted == known {
            return;
        }
        for (key, class) in known {
            let claimants = self.claims.get_mut(key).expect("a known claim");
            claimants.remove(&(*class, Arc::clone(name)));
            affected.extend(claimants.iter().map(|(_, owner)| Arc::clone(owner)));
            if claimants.is_empty() {
                self.claims.remove(key);
            }
        }
        for (key, class) in &wanted {
            let claimants = self.claims.entry(*key).or_default();
            affected.extend(claimants.iter().map(|(_, owner)| Arc::clone(owner)));
            claimants.insert((*class, Arc::clone(name)));
        }
        self.contributions.entry(Arc::clone(name)).or_default().claims = wanted;
    }

    fn compile_service(&mut self, name: &Arc<str>, inputs: &Inputs, tags: &mut Tags) -> Vec<(Key, Value)> {
        self.problems.remove(&**name);
        self.ignored_external_ips.remove(name);
        let Some(service) = inputs.services.get(name) else { return Vec::new() };
        let slices: Vec<_> = inputs.slices.get(name).into_iter().flat_map(BTreeMap::values).collect();
        let claims = &self.claims;
        let wins = |key: &ClaimKey| {
            claims.get(key).and_then(BTreeSet::first).is_some_and(|(_, owner)| owner == name)
        };
        let mut compiled = service::compile(name, service, &slices, &self.pool.options, tags, wins);
        // What no node would read must not get into the bundle: one Service would take all the others with it.
        if let Some(error) = compiled.records.iter().find_map(|(key, value)| unreadable(key, value)) {
            compiled.records.clear();
            compiled.problems =
                vec![format!("it does not fit the bundle format ({error}): all of it is left out")];
        }
        if compiled.ignores_external_ips {
            self.ignored_external_ips.insert(Arc::clone(name));
        }
        if !compiled.problems.is_empty() {
            self.problems.insert(name.to_string(), compiled.problems.join("; "));
        }
        compiled.records
    }

    fn put(&mut self, key: Key, value: Option<Value>) {
        if self.bundle.get(&key) != value {
            self.put_all(&[Change { key, value }]);
        }
    }

    fn put_all(&mut self, changes: &[Change]) {
        // A change that does not fit would be a record that two Services own, which claims rule out.
        let done = self.bundle.apply(changes).expect("compiled changes fit the compiled bundle");
        for (change, (_, before)) in changes.iter().zip(done.before()) {
            self.count(&change.key, before.is_some(), change.value.is_some());
            match self.pending.entry(change.key.clone()) {
                Entry::Occupied(known) if *known.get() == change.value => drop(known.remove()),
                Entry::Occupied(_) => {}
                Entry::Vacant(new) => {
                    let decode =
                        |v| Value::decode(&change.key, v).expect("what the bundle holds is canonical");
                    new.insert(before.map(decode));
                }
            }
        }
    }

    fn count(&mut self, key: &Key, before: bool, after: bool) {
        let counter = match key {
            Key::Group(_) => &mut self.stats.groups,
            Key::Member { .. } => &mut self.stats.endpoints,
            _ => return,
        };
        *counter += usize::from(after);
        *counter -= usize::from(before);
    }
}

/// Why a node could not read a record, if so. Members are of fixed shape and need no look.
fn unreadable(key: &Key, value: &Value) -> Option<DecodeError> {
    if matches!(key, Key::Member { .. }) {
        return None;
    }
    Value::decode(key, &value.encode(key)).err().or_else(|| Key::decode(&key.encode()).err())
}

/// Records of `before` whose key is not in `after`; both sorted.
fn removals(before: &[(Key, Value)], after: &[(Key, Value)], changes: &mut Vec<Change>) {
    let mut after = after.iter().peekable();
    for (key, _) in before {
        while after.next_if(|(k, _)| k < key).is_some() {}
        if after.peek().is_none_or(|(k, _)| k != key) {
            changes.push(Change { key: key.clone(), value: None });
        }
    }
}

/// Records of `after` that are not in `before`, or differ; both sorted.
fn additions(before: &[(Key, Value)], after: &[(Key, Value)], changes: &mut Vec<Change>) {
    let mut before = before.iter().peekable();
    for (key, value) in after {
        while before.next_if(|(k, _)| k < key).is_some() {}
        if before.peek().is_none_or(|(k, v)| (k, v) != (key, value)) {
            changes.push(Change { key: key.clone(), value: Some(value.clone()) });
        }
    }
}

fn fact(name: &str, node: &Node) -> NodeFact {
    NodeFact {
        name: name.to_owned(),
        zone: node.zone.as_deref().map(Tag::of),
        addrs: node.addrs.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        draining: node.draining,
        next: false,
    }
}
