//! What an operator wants to see, in Prometheus' text format.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rulecast_compiler::PoolBundle;

use crate::objects::Kind;
use crate::publisher::{Outcome, Published};
use crate::release::Released;
use crate::status::Use;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    pool: String,
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HoldLabel {
    pool: String,
    reason: &'static str,
}

/// The conditions by which somebody keeps new shapes from going live.
const HOLDS: [&str; 3] = ["Held", "HeldByRollback", "ExactReplay"];

type PoolGauge = Family<PoolLabel, Gauge>;
type PoolCounter = Family<PoolLabel, Counter>;

/// All metrics of the controller.
pub struct Metrics {
    registry: Registry,
    synced: Gauge,
    leader: Gauge,
    events: Counter,
    quarantined: Family<KindLabel, Gauge>,
    watch_restarts: Family<KindLabel, Counter>,
    compile: Histogram,
    publication: Histogram,
    lag: Histogram,
    publications: PoolCounter,
    checkpoints: PoolCounter,
    failures: PoolCounter,
    conflicts: PoolCounter,
    delta_bytes: PoolCounter,
    changes: PoolCounter,
    refused: PoolGauge,
    revision: PoolGauge,
    pending: PoolGauge,
    held: Family<HoldLabel, Gauge>,
    problems: PoolGauge,
    services: PoolGauge,
    groups: PoolGauge,
    endpoints: PoolGauge,
    records: PoolGauge,
    sequence: PoolGauge,
    checkpoint_bytes: PoolGauge,
    limits: Family<LimitLabel, Gauge<f64, AtomicU64>>,
    deleted_chunks: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("rulecast_controller");
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let this = Self {
            synced: Gauge::default(),
            leader: Gauge::default(),
            events: Counter::default(),
            quarantined: Family::default(),
            watch_restarts: Family::default(),
            compile: seconds(),
            publication: seconds(),
            lag: seconds(),
            publications: Family::default(),
            checkpoints: Family::default(),
            failures: Family::default(),
            conflicts: Family::default(),
            delta_bytes: Family::default(),
            changes: Family::default(),
            refused: Family::default(),
            revision: Family::default(),
            pending: Family::default(),
            held: Family::default(),
            problems: Family::default(),
            services: Family::default(),
            groups: Family::default(),
            endpoints: Family::default(),
            records: Family::default(),
            sequence: Family::default(),
            checkpoint_bytes: Family::default(),
            limits: Family::default(),
            deleted_chunks: Counter::default(),
            registry: Registry::default(),
        };
        this.register_inputs(&mut registry);
        this.register_publications(&mut registry);
        this.register_bundles(&mut registry);
        Self { registry, ..this }
    }

    fn register_inputs(&self, r: &mut Registry) {
        r.register("synced", "1 once every input has been read", self.synced.clone());
        r.register("leader", "1 while this process is the one that publishes", self.leader.clone());
        r.register("events", "Changes of objects that were read", self.events.clone());
        let help = "Objects and files that cannot be used; what was known of them before is in force";
        r.register("quarantined", help, self.quarantined.clone());
        let help = "Watches that broke or were listed anew";
        r.register("watch_restarts", help, self.watch_restarts.clone());
        r.register_with_unit(
            "compile_duration",
            "Compiling what changed",
            Unit::Seconds,
            self.compile.clone(),
        );
    }

    fn register_publications(&self, r: &mut Registry) {
        let help = "Writing a publication, chunks and head";
        r.register_with_unit("publication_duration", help, Unit::Seconds, self.publication.clone());
        let help = "From the first event of a publication to its head being written";
        r.register_with_unit("publication_lag", help, Unit::Seconds, self.lag.clone());
        r.register("publications", "Heads written", self.publications.clone());
        r.register("checkpoints", "Checkpoints written", self.checkpoints.clone());
        r.register("publish_failures", "Publications that failed and are tried again", self.failures.clone());
        let help = "Publications that found a head which somebody else wrote";
        r.register("publish_conflicts", help, self.conflicts.clone());
        r.register_with_unit("delta", "Deltas written, encoded", Unit::Bytes, self.delta_bytes.clone());
        r.register("changes", "Records changed by publications", self.changes.clone());
        let help = "1 while nothing is published because too many Services would be lost";
        r.register("shrink_refused", help, self.refused.clone());
        let help = "The RuleRevision that is live; 0: not known";
        r.register("revision", help, self.revision.clone());
        let help = "Since when a shape has waited to go live, in seconds since 1970; 0: none waits";
        r.register("pending_since_timestamp_seconds", help, self.pending.clone());
        let help =
            "Whether new shapes are kept from going live (1), by the condition of the RulePool that says so";
        r.register("held", help, self.held.clone());
        r.register("deleted_chunks", "Chunks deleted that no head led to", self.deleted_chunks.clone());
    }

    fn register_bundles(&self, r: &mut Registry) {
        let help = "Services of which something was left out by the compiler";
        r.register("problem_services", help, self.problems.clone());
        r.register("services", "Services compiled", self.services.clone());
        r.register("groups", "Load-balancing targets compiled", self.groups.clone());
        r.register("endpoints", "Members of load-balancing targets compiled", self.endpoints.clone());
        r.register("records", "Records of the compiled bundle", self.records.clone());
        r.register("bundle_sequence", "The published sequence", self.sequence.clone());
        let help = "The checkpoint that a joining node reads";
        r.register_with_unit("checkpoint", help, Unit::Bytes, self.checkpoint_bytes.clone());
        let help = "How much of a limit of the format is used; beyond 1 nothing is published";
        r.register_with_unit("limit_used", help, Unit::Ratios, self.limits.clone());
    }

    /// All metrics as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn synced(&self) {
        self.synced.set(1);
    }

    pub(crate) fn leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    pub(crate) fn events(&self, number: usize) {
        self.events.inc_by(number as u64);
    }

    pub(crate) fn watch_restarted(&self, kind: Kind) {
        self.watch_restarts.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn quarantined(&self, kinds: impl Iterator<Item = Kind>) {
        let mut counts = [
            (Kind::RulePool, 0),
            (Kind::ServiceCidr, 0),
            (Kind::Node, 0),
            (Kind::Service, 0),
            (Kind::EndpointSlice, 0),
            (Kind::RuleNode, 0),
            (Kind::File, 0),
        ];
        for kind in kinds {
            for (_, count) in counts.iter_mut().filter(|(k, _)| *k == kind) {
                *count += 1;
            }
        }
        for (kind, count) in counts {
            self.quarantined.get_or_create(&KindLabel { kind }).set(count);
        }
    }

    pub(crate) fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    pub(crate) fn bundle(&self, pool: &str, bundle: &PoolBundle) {
        let stats = bundle.stats();
        for (gauge, value) in [
            (&self.services, stats.services),
            (&self.groups, stats.groups),
            (&self.endpoints, stats.endpoints),
            (&self.records, bundle.bundle().len()),
            (&self.problems, bundle.problems().len()),
        ] {
            set(gauge, pool, value as u64);
        }
    }

    pub(crate) fn released(&self, pool: &str, released: &Released) {
        set(&self.refused, pool, released.shrink.is_some().into());
        set(&self.revision, pool, released.revision.unwrap_or_default());
        let since = released.pending.as_ref().map_or(0, |pending| pending.since.0.as_second());
        set(&self.pending, pool, since.try_into().unwrap_or_default());
        for kind in HOLDS {
            let holds = released.conditions.iter().any(|(condition, ..)| *condition == kind);
            let label = HoldLabel { pool: pool.to_owned(), reason: kind };
            self.held.get_or_create(&label).set(holds.into());
        }
    }

    pub(crate) fn in_force(&self, pool: &str, published: &Published) {
        set(&self.sequence, pool, published.head.sequence);
        set(&self.checkpoint_bytes, pool, published.checkpoint_bytes() as u64);
    }

    pub(crate) fn used(&self, pool: &str, uses: &[Use]) {
        for used in uses {
            let label = LimitLabel { pool: pool.to_owned(), limit: used.name };
            #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
            self.limits.get_or_create(&label).set(used.used as f64 / used.limit as f64);
        }
    }

    pub(crate) fn published(&self, pool: &str, outcome: &Outcome, took: Duration, lag: Option<Duration>) {
        let Outcome::Published { changes, delta_bytes, checkpoint_bytes, .. } = outcome else { return };
        let label = PoolLabel { pool: pool.to_owned() };
        self.publication.observe(took.as_secs_f64());
        if let Some(lag) = lag {
            self.lag.observe(lag.as_secs_f64());
        }
        self.publications.get_or_create(&label).inc();
        self.checkpoints.get_or_create(&label).inc_by(checkpoint_bytes.is_some().into());
        self.delta_bytes.get_or_create(&label).inc_by(*delta_bytes as u64);
        self.changes.get_or_create(&label).inc_by(changes.unwrap_or(0) as u64);
    }

    pub(crate) fn failed(&self, pool: &str, conflict: bool) {
        let counter = if conflict { &self.conflicts } else { &self.failures };
        counter.get_or_create(&PoolLabel { pool: pool.to_owned() }).inc();
    }

    pub(crate) fn deleted_chunks(&self, number: usize) {
        self.deleted_chunks.inc_by(number as u64);
    }

    /// Forgets a pool.
    pub(crate) fn forget(&self, pool: &str) {
        let label = PoolLabel { pool: pool.to_owned() };
        for gauge in [
            &self.refused,
            &self.revision,
            &self.pending,
            &self.problems,
            &self.services,
            &self.groups,
            &self.endpoints,
            &self.records,
            &self.sequence,
            &self.checkpoint_bytes,
        ] {
            gauge.remove(&label);
        }
        for reason in HOLDS {
            self.held.remove(&HoldLabel { pool: pool.to_owned(), reason });
        }
        self.limits.clear();
    }
}

fn set(gauge: &PoolGauge, pool: &str, value: u64) {
    gauge.get_or_create(&PoolLabel { pool: pool.to_owned() }).set(value.try_into().unwrap_or(i64::MAX));
}
