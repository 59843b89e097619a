//! `kubectl rulecast status`.

use clap::Args;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterArgs, block_on};
use crate::exit::Outcome;
use crate::fleet::{self, Fleet, PoolState};
use crate::output::{Cell, OutputArgs, Page, Show, Table, Tone, age, print, since};
use crate::waiting::{WaitArgs, wait};

pub(crate) const HELP: &str = "\
Examples:
  # All pools in a table, with what holds them:
  kubectl rulecast status

  # One pool in full:
  kubectl rulecast status default

  # In a script: until the pool is served and every node runs what is published
  kubectl rulecast status default --wait --timeout 2m

Words in the column STATE: Live; Held, RolledBack, ExactReplay (by spec.hold, pinnedRevision, exactReplay); Pending... (a shape
waits, and for what); Unobserved (the controller has not seen the spec yet); otherwise the reason of the condition that fails.";

/// The options of `status`.
#[derive(Args)]
pub(crate) struct Options {
    /// The RulePool; none: all of them.
    #[arg(value_name = "POOL")]
    pool: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(async {
        let cluster = Cluster::connect(&options.cluster).await?;
        let look = async || {
            let status = read(&cluster, options.pool.as_deref()).await?;
            let settled = status.pools.iter().all(PoolState::is_settled);
            let progress = status.pools.iter().map(|p| format!("{}: {}", p.pool, p.nodes.text()));
            let progress = progress.collect::<Vec<_>>().join("; ");
            Ok((status, settled, progress))
        };
        let (status, outcome) = wait(&options.wait, look).await?;
        print(&status, options.output.output)?;
        Ok(outcome)
    })
}

/// What the command prints.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) pools: Vec<PoolState>,
    #[serde(skip)]
    one: bool,
    #[serde(skip)]
    fleet: Fleet,
}

/// Reads it, for one pool or for all.
pub(crate) async fn read(cluster: &Cluster, pool: Option<&str>) -> anyhow::Result<Status> {
    if let Some(name) = pool {
        // For its error, which names the pools that there are.
        let _pool: rulecast_api::RulePool = cluster.get(name).await?;
    }
    let fleet = fleet::read(cluster).await?;
    let wanted = fleet.pools.iter().filter(|(name, _)| pool.is_none_or(|pool| *name == pool));
    let pools = wanted.map(|(_, pool)| PoolState::of(&fleet, pool)).collect();
    Ok(Status { pools, one: pool.is_some(), fleet })
}

impl Show for Status {
    fn show(&self, page: &mut Page, wide: bool) {
        match self.pools.as_slice() {
            [] => page.line("There is no RulePool. Make one: kubectl apply -k manifests/samples"),
            [pool] if self.one => self.details(page, pool),
            pools => {
                self.overview(page, pools, wide);
                for pool in pools {
                    self.remarks(page, pool);
                }
            }
        }
    }
}

impl Status {
    fn overview(&self, page: &mut Page, pools: &[PoolState], wide: bool) {
        let mut headings = vec!["POOL", "MODE", "STATE", "REVISION", "SEQUENCE", "NODES", "SERVICES"];
        if wide {
            headings.extend(["PENDING", "APPROVAL", "ENDPOINTS", "QUARANTINED", "DIGEST", "SHAPE"]);
        }
        headings.push("AGE");
        let mut table = Table::new(&headings);
        for pool in pools {
            let (tone, word) = pool.word();
            let mut row: Vec<Cell> = vec![
                (&pool.pool).into(),
                (&pool.mode).into(),
                Cell::new(tone, word),
                number(pool.revision).into(),
                pool.sequence.to_string().into(),
                Cell::new(pool.nodes.tone(), format!("{}/{}", pool.nodes.current, pool.nodes.total)),
                pool.services.to_string().into(),
            ];
            if wide {
                row.extend([
                    pool.pending.as_ref().map(|p| number(p.revision)).unwrap_or_default().into(),
                    format!("{:?}", pool.approval).into(),
                    pool.endpoints.to_string().into(),
                    pool.quarantined_count.to_string().into(),
                    pool.digest.clone().unwrap_or_default().into(),
                    pool.shape.clone().unwrap_or_default().into(),
                ]);
            }
            row.push(since(pool.created, self.fleet.now).into());
            table.row(row);
        }
        page.table(&table);
    }

    /// What the table has no room for, if there is something.
    fn remarks(&self, page: &mut Page, pool: &PoolState) {
        let mut remarks: Vec<(Tone, String)> =
            pool.holds.iter().map(|hold| (Tone::Attention, hold.sentence(self.fleet.now))).collect();
        remarks.extend(pool.pending.as_ref().map(|_| (Tone::Attention, self.pending(pool))));
        if pool.nodes.tone() != Tone::Good {
            remarks.push((pool.nodes.tone(), format!("nodes: {}", pool.nodes.text())));
        }
        if pool.quarantined_count > 0 {
            let text = format!("{} quarantined Services keep their previous rules", pool.quarantined_count);
            remarks.push((Tone::Bad, text));
        }
        let bad = pool.conditions.iter().filter(|c| c.good == Some(false) && !is_hold(&c.kind));
        remarks.extend(bad.map(|c| (Tone::Bad, format!("{}: {} ({})", c.kind, c.message, c.reason))));
        if !remarks.is_empty() {
            page.gap();
            page.toned(Tone::Strong, &pool.pool);
        }
        for (tone, text) in remarks {
            page.toned(tone, &format!("  {text}"));
        }
    }

    fn pending(&self, pool: &PoolState) -> String {
        let Some(pending) = &pool.pending else { return String::new() };
        let which = pending.revision.map_or_else(|| pending.digest.clone(), |r| format!("revision {r}"));
        let mut text = format!("{which} waits: {}", pending.reason);
        if !pending.message.is_empty() {
            text = format!("{text} ({})", pending.message);
        }
        text + &format!(", since {}", age(pending.since.0, self.fleet.now))
    }

    fn details(&self, page: &mut Page, pool: &PoolState) {
        let now = self.fleet.now;
        let (tone, word) = pool.word();
        page.field("Pool", &format!("{} ({}, approval {:?})", pool.pool, pool.mode, pool.approval));
        page.toned_field("State", tone, &word);
        let live = match (pool.revision, pool.live_since) {
            (Some(revision), Some(at)) => {
                format!(
                    "{revision}, live since {} ({})",
                    age(at, now),
                    pool.live_by.clone().unwrap_or_default()
                )
            }
            (Some(revision), None) => revision.to_string(),
            (None, _) => "none yet".to_owned(),
        };
        page.field("Revision", &live);
        if let Some(shape) = &pool.shape {
            page.field("Shape", shape);
        }
        page.field("Sequence", &format!("{} (epoch {})", pool.sequence, pool.epoch));
        page.field("Digest", pool.digest.as_deref().unwrap_or("nothing is published"));
        for hold in &pool.holds {
            page.toned_field("Hold", Tone::Attention, &hold.sentence(now));
        }
        if pool.pending.is_some() {
            page.toned_field("Pending", Tone::Attention, &self.pending(pool));
        }
        page.toned_field("Nodes", pool.nodes.tone(), &pool.nodes.text());
        page.field("Content", &format!("{} Services, {} endpoints", pool.services, pool.endpoints));
        conditions(page, pool, now);
        if pool.quarantined_count > 0 {
            page.gap();
            let text =
                format!("{} quarantined Services, which keep their previous rules:", pool.quarantined_count);
            page.toned(Tone::Bad, &text);
            for service in &pool.quarantined {
                page.line(&format!("  {}: {} ({})", service.service, service.message, service.reason));
            }
        }
    }
}

fn conditions(page: &mut Page, pool: &PoolState, now: k8s_openapi::jiff::Timestamp) {
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in &pool.conditions {
        let tone = match condition.good {
            Some(true) => Tone::Good,
            Some(false) if is_hold(&condition.kind) => Tone::Attention,
            Some(false) => Tone::Bad,
            None => Tone::Plain,
        };
        table.row(vec![
            (&condition.kind).into(),
            Cell::new(tone, &condition.status),
            (&condition.reason).into(),
            age(condition.since, now).into(),
            (&condition.message).into(),
        ]);
    }
    if table.is_empty() {
        page.toned(Tone::Bad, "No conditions: has the controller seen this pool? kubectl rulecast check");
    } else {
        page.gap();
        page.table(&table);
    }
}

/// Whether somebody wanted it so.
fn is_hold(condition: &str) -> bool {
    matches!(condition, "Held" | "HeldByRollback" | "PendingApproval")
}

fn number(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
