//! `kubectl rulecast verify`.

mod compare;
mod inputs;
mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kube::ResourceExt as _;
use rulecast_api::RulePool;
use rulecast_bundle::{Bundle, Key, Replica, Shape, Value};
use rulecast_compiler::Live;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::fleet::Hold;
use crate::output::{Cell, Format, OutputArgs, Page, Show, Table, Tone, now, plural, print};
use crate::published;

use compare::{Difference, compare};
use inputs::Inputs;

pub(crate) const HELP: &str = "\
Examples:
  kubectl rulecast verify
  kubectl rulecast verify default -o json
  kubectl rulecast verify --node worker-1

It reads all Services, EndpointSlices, Nodes, ServiceCIDRs and RulePools, compiles them here as the controller does, and compares
every record with the published bundle, whose digest is checked, too. What differs is looked at three times, more than a publish
interval apart: only what stays is reported. A shape that is held or waits for approval is no difference: then the shape
that is live is compared with its record, and its endpoints with those of now.

Exit codes: 0 the same, 1 different, 2 it could not be found out.";

/// What differs in this many looks in a row differs.
const LOOKS: usize = 3;
/// On top of the publish interval, for the controller's work and the way to here.
const SLACK: Duration = Duration::from_millis(700);

/// The options of `verify`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool; none: all of them.
    #[arg(value_name = "POOL")]
    pool: Option<String>,
    /// Compare the kernel of this node with what its applier wrote, instead. It is asked in its pod, by kubectl exec.
    #[arg(long, value_name = "NODE", conflicts_with = "pool")]
    node: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        if let Some(node) = &options.node {
            let json = options.output.output == Format::Json;
            return node::verify(&cluster, &options.cluster, node, json).await;
        }
        let names: Vec<String> = match &options.pool {
            Some(name) => vec![cluster.get::<RulePool>(name).await?.name_any()],
            None => cluster.list::<RulePool>().await?.iter().map(kube::ResourceExt::name_any).collect(),
        };
        if names.is_empty() {
            bail!("the cluster has no RulePool: kubectl apply -k manifests/samples makes one");
        }
        let mut inputs = Inputs::watch(&cluster, &names).await?;
        let mut verified = look(&cluster, &mut inputs, &names).await?;
        for _ in 1..LOOKS {
            if verified.is_same() {
                break;
            }
            inputs.wait(inputs.publish_interval() + SLACK).await;
            verified = verified.and_still(look(&cluster, &mut inputs, &names).await?);
        }
        let same = verified.is_same();
        print(&verified, options.output.output)?;
        Ok(if same { Outcome::Fine } else { Outcome::Different })
    })
}

/// What the command prints.
#[derive(Serialize)]
struct Verified {
    pools: Vec<PoolVerified>,
}

/// One pool.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolVerified {
    pool: String,
    sequence: u64,
    digest: String,
    records: usize,
    /// How often it was looked at.
    looks: usize,
    differences: Vec<Difference>,
    notes: Vec<String>,
}

impl Verified {
    fn is_same(&self) -> bool {
        self.pools.iter().all(|pool| pool.differences.is_empty())
    }

    /// What was different before, and is in a later look.
    fn and_still(self, later: Self) -> Self {
        let pools = later.pools.into_iter().map(|mut pool| {
            let before = self.pools.iter().find(|before| before.pool == pool.pool);
            pool.differences.retain(|d| before.is_some_and(|before| before.differences.contains(d)));
            pool.looks += before.map_or(0, |before| before.looks);
            pool
        });
        Self { pools: pools.collect() }
    }
}

async fn look(cluster: &Cluster, inputs: &mut Inputs, names: &[String]) -> anyhow::Result<Verified> {
    let mut pools = Vec::new();
    for name in names {
        // What is published first: the inputs are then at least as new as what it was made from.
        let replica = published::read(cluster, name).await?;
        let object: RulePool = cluster.get(name).await?;
        inputs.take_what_came();
        pools.push(one(cluster, inputs, &object, &replica).await?);
    }
    Ok(Verified { pools })
}

async fn one(
    cluster: &Cluster,
    inputs: &mut Inputs,
    object: &RulePool,
    replica: &Replica,
) -> anyhow::Result<PoolVerified> {
    let name = object.name_any();
    let head = replica.head().context("a copy has a head")?;
    let shape = Shape::of(head.mode, replica.bundle());
    let mut notes: Vec<String> = Hold::of(object, now()).iter().map(|hold| hold.sentence(now())).collect();
    let mut differences = Vec::new();
    let wanted = inputs.wanted(&name).with_context(|| format!("RulePool {name} cannot be compiled"))?;
    shapes(object, &shape, &wanted, &mut differences, &mut notes);
    let release = object.status.as_ref().and_then(|status| status.releases.first());
    if release.is_some_and(|release| release.reason == "ExactReplay") {
        notes.push("an exact replay: endpoints are those of an old bundle, and not compared".to_owned());
    } else {
        let expected = inputs.with_shape(&name, shape, wave(replica.bundle()));
        let bad = inputs.unusable(cluster).await;
        let all = compare(replica.bundle(), &expected, &name);
        let (excused, real): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| bad.contains(&d.object));
        if !excused.is_empty() {
            notes.push(format!(
                "{} of objects that cannot be used now, whose previous state stays in force",
                plural(excused.len(), "difference")
            ));
        }
        differences.extend(real);
    }
    Ok(PoolVerified {
        pool: name,
        sequence: head.sequence,
        digest: head.digest.clone(),
        records: replica.bundle().len(),
        looks: 1,
        differences,
        notes,
    })
}

/// Compares the shape that is live with what it is said to be.
fn shapes(
    object: &RulePool,
    live: &Shape,
    wanted: &Shape,
    differences: &mut Vec<Difference>,
    notes: &mut Vec<String>,
) {
    let status = object.status.clone().unwrap_or_default();
    let pool = format!("RulePool {}", object.name_any());
    let digest = live.digest().to_string();
    if let Some(recorded) = status.shape.filter(|recorded| *recorded != digest) {
        let what = format!("status.shape is {recorded}, and the shape of what is published is {digest}");
        differences.push(Difference::of(&pool, "the live shape", what));
    }
    if let Some(pending) = &status.pending {
        let revision = pending.revision.map_or_else(|| pending.digest.clone(), |r| format!("revision {r}"));
        notes.push(format!(
            "{revision} waits ({}), so what is live is not what the objects ask for",
            pending.reason
        ));
    }
    // With something that waits or is held, the live shape is an older one by intention.
    let free = status.pending.is_none() && Hold::of(object, now()).is_empty();
    if free && wanted.digest() != live.digest() {
        for line in rulecast_review::diff(live, wanted).summary() {
            differences.push(Difference::of(&pool, "the shape that the objects ask for", line));
        }
    }
}

/// The nodes that are told to follow the next shape.
fn wave(bundle: &Bundle) -> BTreeSet<String> {
    let facts = bundle.iter().filter_map(|(key, value)| match (key, value) {
        (Key::Node(_), Value::Node(fact)) if fact.next => Some(fact.name),
        _ => None,
    });
    facts.collect()
}

/// A shape to be given today's members.
fn fixed(shape: Shape) -> Live {
    Live::Fixed(Arc::new(shape))
}

impl Show for Verified {
    fn show(&self, page: &mut Page, _wide: bool) {
        for pool in &self.pools {
            let PoolVerified { pool: name, sequence, records, looks, .. } = pool;
            if pool.differences.is_empty() {
                let text = format!(
                    "{name}: sequence {sequence}, all {records} records are what the objects compile to"
                );
                page.toned(Tone::Good, &text);
            } else {
                let count = plural(pool.differences.len(), "difference");
                page.toned(
                    Tone::Bad,
                    &format!("{name}: sequence {sequence}, {count} in each of {looks} looks"),
                );
                let mut table = Table::new(&["OBJECT", "RECORD", "DIFFERENCE"]);
                for difference in &pool.differences {
                    table.row(vec![
                        (&difference.object).into(),
                        (&difference.record).into(),
                        Cell::from(&difference.what),
                    ]);
                }
                page.table(&table);
            }
            for note in &pool.notes {
                page.line(&format!("  - {note}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rulecast_bundle::Mode;

    use super::*;
    use crate::fleet::samples;

    fn verified(differences: &[&str]) -> Verified {
        let differences = differences.iter().map(|what| Difference::of("a", "b", *what)).collect();
        let pool = PoolVerified {
            pool: "default".into(),
            sequence: 1,
            digest: String::new(),
            records: 1,
            looks: 1,
            differences,
            notes: Vec::new(),
        };
        Verified { pools: vec![pool] }
    }

    #[test]
    fn only_what_stays_is_a_difference() {
        let left = verified(&["x", "y"]).and_still(verified(&["y", "z"]));
        assert_eq!(left.pools[0].differences, [Difference::of("a", "b", "y")]);
        assert_eq!(left.pools[0].looks, 2);
        assert!(left.and_still(verified(&["z"])).is_same());
    }

    #[test]
    fn a_shape_that_waits_is_no_difference() {
        let (live, wanted) = (Shape::new(Mode::Nftables), Shape::new(Mode::Ipvs));
        let judged = |change: &dyn Fn(&mut RulePool)| {
            let mut pool = samples::fleet().pools["default"].clone();
            pool.status.as_mut().unwrap().shape = Some(live.digest().to_string());
            change(&mut pool);
            let (mut differences, mut notes) = (Vec::new(), Vec::new());
            shapes(&pool, &live, &wanted, &mut differences, &mut notes);
            differences.len()
        };
        assert!(judged(&|_| ()) > 0);
        assert_eq!(judged(&|pool| pool.spec.hold = true), 0);
        assert_eq!(judged(&|pool| pool.status.as_mut().unwrap().shape = Some("other".into())).min(1), 1);
    }
}
