//! One history: trouble, then none, and then everything has to come right.

use std::sync::Arc;
use std::time::Duration;

use rulecast_bundle::Shape;
use rulecast_compiler::Live;
use rulecast_connect::between;
use rulecast_controller::world::World;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::api_server::ApiServer;
use crate::cluster::{self, Cluster, POOLS};
use crate::controllers::{self, Election};
use crate::faults::{self, Client, Faults, LONGEST_FLIGHT};
use crate::invariants::{Ledger, position};
use crate::machine::Machine;
use crate::trace::{Invariant, Trace, Violation};
use crate::{KEEP_CHUNKS, Universe, node};

/// How many controllers there are, and nodes.
const CONTROLLERS: usize = 2;
const NODES: usize = 3;

/// After the faults end, everything is in step within this time. The longest way there: a request in flight is given up
/// (15 s), its publication tried again (30 s) and paced (2 s); a node's watch comes back (30 s); what it was reading is given
/// up ([`crate::PATIENCE`], 8 s) and tried again (10 s), and so is a kernel's repair (10 s). That makes 105 s.
pub const CONVERGED_WITHIN: Duration = Duration::from_mins(2);
/// Then nothing happens for as long as it takes to see that unnamed chunks go.
const QUIET: Duration = Duration::from_secs(3 * KEEP_CHUNKS.as_secs());

/// What became of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Of everything that happened, with its time: two runs of one seed have the same.
    pub hash: u64,
    /// How many things happened.
    pub events: u64,
    /// One line each, if they were asked for.
    pub lines: Vec<String>,
    /// The first promise that was not kept.
    pub violation: Option<Violation>,
}

/// Runs the history of a seed on this thread.
#[must_use]
pub fn run(seed: u64, keep_lines: bool) -> Story {
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    let told = LocalSet::new().block_on(&runtime, async {
        let trace = Arc::new(Trace::new(keep_lines));
        tell(&trace).await;
        trace.told()
    });
    let crate::trace::Told { hash, events, lines, violation } = told;
    Story { hash, events, lines, violation }
}

async fn tell(trace: &Arc<Trace>) {
    let members = members();
    let of_pool = |pool: &str| {
        let nodes = members.iter().filter(|(_, p)| p == pool).map(|(node, _)| node.clone()).collect();
        (pool.to_owned(), nodes)
    };
    let ledger = Ledger::new(POOLS.map(of_pool));
    let api = ApiServer::new(ledger, Arc::clone(trace));
    let universe = Arc::new(Universe::new(Arc::clone(trace), api, Cluster::new(&members)));
    let machines: Vec<Machine> =
        members.iter().map(|(node, pool)| Machine::new(&universe, node, pool)).collect();
    let (election, leaderships) = Election::new(CONTROLLERS);
    for (number, leads) in leaderships.into_iter().enumerate() {
        spawn_local(controllers::run(Arc::clone(&universe), number, leads));
    }
    for (number, ((node, pool), machine)) in members.iter().zip(&machines).enumerate() {
        spawn_local(node::run(Arc::clone(&universe), number, node.clone(), pool.clone(), machine.clone()));
    }
    tokio::select! {
        biased;
        () = trace.violated() => {}
        () = async {
            trouble(&universe, &election).await;
            let compiled = universe.cluster().compiled();
            Check { universe: &universe, compiled, members: &members, machines: &machines }.converges().await;
        } => {}
    }
}

/// Node names, each with its pool.
fn members() -> Vec<(String, String)> {
    (0..NODES).map(|n| (format!("node-{n}"), POOLS[n.min(1)].to_owned())).collect()
}

async fn trouble(universe: &Universe, election: &Election) {
    let clients: Vec<Client> =
        (0..CONTROLLERS).map(Client::Controller).chain((0..NODES).map(Client::Node)).collect();
    tokio::select! {
        biased;
        () = sleep(between(Duration::from_secs(15), Duration::from_secs(45))) => {}
        () = faults::weather(universe, &clients) => {}
        () = cluster::change(universe) => {}
        () = election.run(universe) => {}
        () = faults::people(universe) => {}
    }
    Faults::end(&universe.faults);
    universe.trace.note(format_args!("the faults end"));
    let sound = |pool: &str| {
        let api = universe.api();
        api.is_sound(pool) && api.ledger.head(pool).is_some()
    };
    universe.cluster().settle(sound);
    universe.wake();
    election.end(universe);
}

/// What is looked at when there are no faults.
struct Check<'a> {
    universe: &'a Universe,
    /// From the objects as they are now.
    compiled: World,
    members: &'a [(String, String)],
    machines: &'a [Machine],
}

impl Check<'_> {
    async fn converges(mut self) {
        let deadline = Instant::now() + CONVERGED_WITHIN;
        // What was sent before may still arrive.
        sleep(LONGEST_FLIGHT).await;
        while let Err(problem) = self.in_step() {
            if Instant::now() >= deadline {
                return self.universe.trace.violate(Invariant::Converges, problem);
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.universe.trace.note(format_args!("everything is in step"));
        let before = self.published_and_written();
        sleep_until(Instant::now() + QUIET).await;
        if let Err(problem) = self.in_step() {
            self.universe.trace.violate(Invariant::Converges, format!("it did not stay so: {problem}"));
        }
        let after = self.published_and_written();
        if before != after {
            let problem = format!("something went on: {before:?} became {after:?}");
            self.universe.trace.violate(Invariant::Converges, problem);
        }
        // A request without an answer may have kept the leader from looking until now.
        let deadline = Instant::now() + QUIET;
        let lost = self.universe.api().lost_by_revisions();
        if let Some(id) = lost.first() {
            self.universe
                .trace
                .violate(Invariant::Collected, format!("chunk {id} of a revision is not there"));
        }
        let unnamed = loop {
            let unnamed = self.universe.api().unnamed();
            if unnamed.is_empty() || Instant::now() >= deadline {
                break unnamed;
            }
            sleep(Duration::from_secs(1)).await;
        };
        if let Some(id) = unnamed.first() {
            let problem = format!("chunk {id} and {} more are still there", unnamed.len() - 1);
            self.universe.trace.violate(Invariant::Collected, problem);
        }
    }

    /// What would change if anything did: each pool's head, each node's transactions.
    fn published_and_written(&self) -> (Vec<Option<u64>>, Vec<u64>) {
        let api = self.universe.api();
        let heads = POOLS.iter().map(|pool| api.head(pool).map(|(_, version)| version));
        (heads.collect(), self.machines.iter().map(Machine::commits).collect())
    }

    /// Whether heads are what a fresh compile gives, and nodes run them.
    fn in_step(&mut self) -> Result<(), String> {
        let api = self.universe.api();
        let names: Vec<String> = self.compiled.pools().keys().cloned().collect();
        for name in &names {
            let (head, published) =
                api.ledger.head(name).ok_or_else(|| format!("{name} was never published"))?;
            if !api.is_sound(name) {
                return Err(format!("what somebody did to {name} is not repaired"));
            }
            let asked = &self.compiled.pools()[name].asked;
            let (pinned, free) = (asked.pinned, !asked.hold && !asked.manual && asked.pinned.is_none());
            let bundle = self.compiled.compiler_mut().pool_mut(name).expect("it was compiled");
            // Whichever shape is live, its endpoints are today's.
            let shape = Arc::new(Shape::of(head.mode, published));
            let on_record = api.digests_of(name);
            let pinned = pinned.and_then(|number| on_record.get(&number));
            if pinned.is_some_and(|digest| *digest != shape.digest().to_string()) {
                return Err(format!("the revision that {name} is pinned to is not live"));
            }
            let newest = [on_record.values().next_back().cloned(), Some(shape.digest().to_string())];
            if !free && !newest.contains(&Some(bundle.wanted().digest().to_string())) {
                return Err(format!("the shape that waits in {name} is not on record"));
            }
            bundle.set_live(if free { Live::Wanted } else { Live::Fixed(shape) });
            self.compiled.compile();
            let bundle = self.compiled.compiler_mut().pool_mut(name).expect("it was compiled");
            if published.root() != bundle.bundle().root() || head.mode != bundle.mode() {
                let (position, first) = (position(head), published.diff(bundle.bundle()).into_iter().next());
                return Err(format!("head {position:?} of {name} is not what the objects say: {first:?}"));
            }
        }
        drop(api);
        for ((node, pool), machine) in self.members.iter().zip(self.machines) {
            machine.look();
            let api = self.universe.api();
            let Some((head, _)) = api.ledger.head(pool) else { continue };
            let position = position(head);
            let (told, in_step) = machine.told();
            let rules = api.ledger.rules(pool, node, position);
            if told != Some(position) || !in_step || rules != Some(machine.rules()) {
                return Err(format!("{node} runs {told:?} (in step: {in_step}), published is {position:?}"));
            }
        }
        Ok(())
    }
}
