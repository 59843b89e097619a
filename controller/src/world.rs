//! What is known of the cluster: it takes a source's events and keeps the compiler's inputs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use rulecast_bundle::{Mode, next_of};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{Prefix, Slice};

use crate::objects::{Content, DEFAULT_POOL, Kind, Object, ObjectId, PoolConfig};
use crate::release::NodeReport;
use crate::source::Event;

/// The compiler with its inputs, and what could not become one.
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
#[derive(Default)]
pub struct World {
    compiler: Compiler,
    pools: BTreeMap<String, PoolConfig>,
    /// Those of which the compiler does not know yet what they are now.
    stale_pools: BTreeSet<String>,
    cidrs: BTreeMap<String, Vec<Prefix>>,
    /// Pools of which a second bundle is compiled, with their next shape.
    waves: BTreeSet<String>,
    /// Only these pools are compiled; empty: all.
    only: BTreeSet<String>,
    /// Without any RulePool a pool with default options is used.
    default_pool: bool,
    /// `pools` holds that one.
    implicit: bool,
    synced: bool,
    dirty: bool,
    quarantined: BTreeMap<ObjectId, String>,
    warnings: BTreeMap<ObjectId, Vec<String>>,
    /// What nodes say of themselves, by name.
    reports: BTreeMap<String, NodeReport>,
    /// Node and zone names, which stand in every endpoint, are kept once each.
    names: HashSet<Arc<str>>,
}

impl World {
    /// Uses a pool `default` with default options as long as there is no RulePool.
    #[must_use]
    pub fn with_default_pool(mut self) -> Self {
        self.default_pool = true;
        self
    }

    /// Compiles these pools only; none given: all.
    #[must_use]
    pub fn with_pools(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.only = names.into_iter().collect();
        self
    }

    /// Takes an event. Nothing is compiled yet.
    pub fn apply(&mut self, event: Event) {
        // What nodes say of themselves is nothing to compile.
        let report =
            matches!(&event, Event::Set(Object { id, .. }) | Event::Gone(id) if id.kind == Kind::RuleNode);
        self.dirty |= !report;
        match event {
            Event::Set(object) => self.set(object),
            Event::Gone(id) => {
                self.quarantined.remove(&id);
                self.set(Object { id, content: Content::Ignored, warnings: Vec::new() });
            }
            Event::Bad(id, problem) => {
                if self.quarantined.get(&id) != Some(&problem) {
                    tracing::error!(object = %id, problem, "an object cannot be used; what was known of it stays");
                    self.quarantined.insert(id, problem);
                }
            }
            // The status is about the spec that was looked at, not the one before that is still in force.
            Event::Unusable(name, generation) => {
                if let Some(pool) = self.pools.get_mut(&name) {
                    pool.generation = Some(generation);
                }
            }
            Event::Together(events) => events.into_iter().for_each(|event| self.apply(event)),
            Event::Synced => self.synced = true,
        }
        if self.synced {
            self.choose_default_pool();
        }
    }

    fn set(&mut self, object: Object) {
        let Object { id, content, warnings } = object;
        if self.quarantined.remove(&id).is_some() {
            tracing::info!(object = %id, "the object can be used again");
        }
        self.note(&id, warnings);
        let name = id.name.as_str();
        match (id.kind, content) {
            (Kind::Service, Content::Service(service)) => self.compiler.set_service(name, Some(service)),
            (Kind::Service, _) => self.compiler.set_service(name, None),
            (Kind::EndpointSlice, Content::Slice(slice)) => {
                let slice = self.share_names(slice);
                self.compiler.set_slice(name, Some(slice));
            }
            (Kind::EndpointSlice, _) => self.compiler.set_slice(name, None),
            (Kind::Node, Content::Node(node)) => self.compiler.set_node(name, Some(node)),
            (Kind::Node, _) => self.compiler.set_node(name, None),
            (Kind::ServiceCidr, Content::ServiceCidr(prefixes)) => {
                self.cidrs.insert(id.name, prefixes);
                self.set_all_pools();
            }
            (Kind::ServiceCidr, _) => {
                self.cidrs.remove(name);
                self.set_all_pools();
            }
            (Kind::RuleNode, Content::Report(report)) => drop(self.reports.insert(id.name, report)),
            (Kind::RuleNode, _) => drop(self.reports.remove(name)),
            (Kind::RulePool, Content::Pool(pool)) => {
                self.drop_implicit_pool();
                if self.is_wanted(name) {
                    self.set_pool(name, Some(*pool));
                }
            }
            (Kind::RulePool, _) => self.set_pool(name, None),
            (Kind::File, _) => {}
        }
    }

    fn note(&mut self, id: &ObjectId, warnings: Vec<String>) {
        if self.warnings.get(id).map_or(&[][..], Vec::as_slice) == warnings {
            return;
        }
        for warning in &warnings {
            tracing::warn!(object = %id, warning, "something of an object is left out");
        }
        if warnings.is_empty() {
            self.warnings.remove(id);
        } else {
            self.warnings.insert(id.clone(), warnings);
        }
    }

    fn share_names(&mut self, mut slice: Slice) -> Slice {
        for endpoint in &mut slice.endpoints {
            for name in endpoint.node.iter_mut().chain(&mut endpoint.zones).chain(&mut endpoint.nodes) {
                if let Some(known) = self.names.get(name) {
                    *name = Arc::clone(known);
                } else {
                    self.names.insert(Arc::clone(name));
                }
            }
        }
        slice
    }

    /// The compiler learns of it with the next compile: a pool that goes and comes back in between is the same pool.
    fn set_pool(&mut self, name: &str, pool: Option<PoolConfig>) {
        match pool {
            Some(pool) => drop(self.pools.insert(name.to_owned(), pool)),
            None => drop(self.pools.remove(name)),
        }
        self.stale_pools.insert(name.to_owned());
    }

    fn set_all_pools(&mut self) {
        self.stale_pools.extend(self.pools.keys().cloned());
    }

    fn with_cidrs(&self, config: &PoolConfig) -> rulecast_compiler::model::Pool {
        let mut pool = config.pool.clone();
        pool.options.service_cidrs.extend(self.cidrs.values().flatten());
        pool
    }

    fn is_wanted(&self, pool: &str) -> bool {
        self.only.is_empty() || self.only.contains(pool)
    }

    fn choose_default_pool(&mut self) {
        // A RulePool that cannot be used is still one that is wanted.
        let none = self.pools.is_empty() && !self.quarantined.keys().any(|id| id.kind == Kind::RulePool);
        if self.default_pool && none && self.is_wanted(DEFAULT_POOL) {
            tracing::info!(
                pool = DEFAULT_POOL,
                "no RulePool among the manifests: using one with default options"
            );
            self.set_pool(DEFAULT_POOL, Some(PoolConfig::default()));
            self.implicit = true;
        }
    }

    fn drop_implicit_pool(&mut self) {
        if std::mem::take(&mut self.implicit) {
            self.set_pool(DEFAULT_POOL, None);
        }
    }

    /// Compiles what changed.
    pub fn compile(&mut self) {
        self.dirty = false;
        for name in std::mem::take(&mut self.stale_pools) {
            let pool = self.pools.get(&name).map(|config| self.with_cidrs(config));
            let next = pool.clone().filter(|_| self.waves.contains(&name));
            self.compiler.set_pool(&next_of(&name), next);
            self.compiler.set_pool(&name, pool);
        }
        self.compiler.compile();
    }

    /// Compiles every pool that is known for another mode than its own.
    pub fn set_mode(&mut self, mode: Mode) {
        for (name, config) in &mut self.pools {
            config.pool.options.mode = mode;
            self.stale_pools.insert(name.clone());
        }
        self.compile();
    }

    /// Compiles a second bundle of a pool, or no longer.
    pub fn set_wave(&mut self, pool: &str, wave: bool) {
        let changed = if wave { self.waves.insert(pool.to_owned()) } else { self.waves.remove(pool) };
        if changed {
            self.stale_pools.insert(pool.to_owned());
        }
    }

    /// The pool whose second bundle has this name.
    #[must_use]
    pub fn pool_of_wave(&self, name: &str) -> Option<&str> {
        self.waves.iter().find(|pool| next_of(pool) == name).map(String::as_str)
    }

    /// Whether the source has said everything once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether there were events since the last compile.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The compiler.
    #[must_use]
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The compiler, for taking changes from its pools.
    pub fn compiler_mut(&mut self) -> &mut Compiler {
        &mut self.compiler
    }

    /// What nodes say of themselves, by name.
    #[must_use]
    pub fn reports(&self) -> &BTreeMap<String, NodeReport> {
        &self.reports
    }

    /// The pools' configurations.
    #[must_use]
    pub fn pools(&self) -> &BTreeMap<String, PoolConfig> {
        &self.pools
    }

    /// Objects and files that cannot be used, and why. What was known of them before is in force.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeMap<ObjectId, String> {
        &self.quarantined
    }

    /// What was left out of objects that are used otherwise.
    #[must_use]
    pub fn warnings(&self) -> &BTreeMap<ObjectId, Vec<String>> {
        &self.warnings
    }
}
