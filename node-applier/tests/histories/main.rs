//! Random histories of a cluster, through the compiler and a node's view, without a kernel.
//!
//! After every step the bundle must be what a compile from nothing gives, the changes must lead from one published
//! bundle to the next, a node that follows them must see what one that begins anew sees, and what the rules do with
//! packets, run through a small interpreter of their statements, must be what kube-proxy does ([`model`]).
//!
//! A failure names its seed: `RULECAST_SEED=N cargo test -p rulecast-node --test histories` repeats that history alone.
//! `RULECAST_HISTORIES=N` sets how many there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Bundle, Mode};
use rulecast_compiler::Compiler;
use rulecast_node::view::View;

mod follower;
mod generate;
mod kernel;
mod model;
mod netfilter;
mod packet;
mod probe;
mod rng;
mod rule;
mod sets;
mod values;
mod world;
mod xtables;

use follower::Follower;
use kernel::Kernel;
use model::Model;
use netfilter::Netfilter;
use packet::{Outcome, Packet, Verdict};
use rng::Rng;
use world::{Event, POOL, World};

const HISTORIES: u64 = 1_000;
const STEPS: usize = 8;
/// Packets at each node and step.
const PACKETS: usize = 20;

/// One cluster's time.
struct History {
    mode: Mode,
    seed: u64,
    rng: Rng,
    world: World,
    compiler: Compiler,
    /// What was published.
    published: Bundle,
    /// Nodes that follow what is published.
    followers: Vec<Follower>,
    events: usize,
    seen: Seen,
}

/// How often each kind of verdict was seen: packets that all miss would prove nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    translated: u64,
    masqueraded: u64,
    balanced: u64,
    rejected: u64,
    dropped: u64,
    untouched: u64,
}

impl Seen {
    fn count(&mut self, verdict: &Verdict) {
        self.balanced += u64::from(verdict.len() > 1);
        for outcome in verdict {
            *match outcome {
                Outcome::To { masqueraded: false, .. } => &mut self.translated,
                Outcome::To { masqueraded: true, .. } => &mut self.masqueraded,
                Outcome::Rejected => &mut self.rejected,
                Outcome::Dropped => &mut self.dropped,
                Outcome::Untouched { .. } => &mut self.untouched,
            } += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.translated += other.translated;
        self.masqueraded += other.masqueraded;
        self.balanced += other.balanced;
        self.rejected += other.rejected;
        self.dropped += other.dropped;
        self.untouched += other.untouched;
    }

    fn least(&self) -> u64 {
        let kinds =
            [self.translated, self.masqueraded, self.balanced, self.rejected, self.dropped, self.untouched];
        kinds.into_iter().min().unwrap_or_default()
    }
}

impl History {
    fn new(mode: Mode, seed: u64) -> Self {
        let published = Bundle::default();
        let followers = probe::machines().into_iter().map(|machine| Follower::new(machine, &published));
        let followers = followers.collect();
        let rng = Rng::new(seed);
        let (world, compiler) = (World::default(), Compiler::default());
        Self { mode, seed, rng, world, compiler, published, followers, events: 0, seen: Seen::default() }
    }

    fn run(mut self) -> Seen {
        let events = generate::begin(self.mode, &mut self.rng);
        self.step(events);
        for _ in 0..STEPS {
            let mut events = Vec::new();
            for _ in 0..=self.rng.below(3) {
                events.push(generate::change(&self.world, &mut self.rng));
            }
            self.step(events);
        }
        self.seen
    }

    fn step(&mut self, events: Vec<Event>) {
        for event in events {
            self.world.apply(&event);
            self.events += 1;
            event.send(&mut self.compiler);
            // Some things happen within one compile, some are compiled one by one.
            if self.rng.one_in(3) {
                self.compiler.compile();
            }
        }
        self.compiler.compile();
        self.compare_with_a_compile_from_nothing();
        if self.rng.one_in(4) {
            self.fail_to_publish();
            return;
        }
        self.publish();
        self.send_packets();
    }

    fn compare_with_a_compile_from_nothing(&mut self) {
        let mut fresh = self.world.compile(&mut self.rng);
        let fresh = fresh.pool_mut(POOL).expect("the pool");
        let kept = self.compiler.pool_mut(POOL).expect("the pool");
        if kept.bundle().root() != fresh.bundle().root() {
            let diff = kept.bundle().diff(fresh.bundle());
            self.fail(&format!(
                "a compile from nothing gives something else; it lacks or has more: {diff:#?}"
            ));
        }
        let same = (kept.stats(), kept.problems()) == (fresh.stats(), fresh.problems());
        if !same {
            let said = format!(
                "{:?} {:#?}\nbut from nothing: {:?} {:#?}",
                kept.stats(),
                kept.problems(),
                fresh.stats(),
                fresh.problems()
            );
            self.fail(&format!("the same bundle is reported differently: {said}"));
        }
    }

    /// The changes come again with the next ones.
    fn fail_to_publish(&mut self) {
        let pool = self.compiler.pool_mut(POOL).expect("the pool");
        let _lost = pool.take_changes();
        pool.put_back();
    }

    fn publish(&mut self) {
        let pool = self.compiler.pool_mut(POOL).expect("the pool");
        let changes = pool.take_changes();
        let target = pool.bundle().root();
        pool.confirm();
        let applied = self.published.apply(&changes).map(drop);
        if applied.is_err() || self.published.root() != target {
            self.fail(&format!("the changes do not lead there ({applied:?}): {changes:#?}"));
        }
        for at in 0..self.followers.len() {
            if self.rng.one_in(6) {
                self.followers[at].move_about();
            }
            let followed = self.followers[at].follow(&changes, &self.published, &mut self.rng);
            if let Err(why) = followed {
                self.fail(&why);
            }
        }
    }

    fn send_packets(&mut self) {
        for at in 0..self.followers.len() {
            let name = self.followers[at].machine.name.clone();
            let new = View::new(&name, &self.published);
            let of_kernel = |follower: &mut Follower| match self.mode {
                Mode::Iptables => follower.difference(&new),
                _ => None,
            };
            let difference = difference(&self.followers[at].view, &new);
            if let Some(difference) = difference.or_else(|| of_kernel(&mut self.followers[at])) {
                self.fail(&format!(
                    "{name} follows to something else than what it would begin with: {difference}"
                ));
            }
            // Other nodes run another pool's bundle.
            if !self.world.selects(&name) {
                continue;
            }
            if let Some(wrong) = self.send_packets_at(at, &new) {
                self.fail(&format!("at {name}: {wrong}"));
            }
        }
    }

    /// Sends packets to one node; tells what was wrong.
    fn send_packets_at(&mut self, at: usize, new: &View) -> Option<String> {
        let Self { mode, followers, world, rng, seen, .. } = self;
        let follower = &followers[at];
        let machine = &follower.machine;
        let model = Model::new(world, machine);
        let families = [Family::V4, Family::V6];
        let tables = families.map(|family| follower.tables(family));
        let verdict: Box<dyn Fn(&Packet) -> Verdict> = if *mode == Mode::Iptables {
            let kernels = tables.each_ref().map(|tables| Netfilter::new(tables, machine));
            let kernels = kernels.map(|kernel| kernel.expect("rules of both families"));
            Box::new(move |packet| kernels[usize::from(packet.dst.is_ipv6())].verdict(packet))
        } else {
            let kernels = families.map(|family| Kernel::new(new, family, machine));
            let kernels = kernels.map(|kernel| kernel.expect("rules of both families"));
            Box::new(move |packet| kernels[usize::from(packet.dst.is_ipv6())].verdict(packet))
        };
        for _ in 0..PACKETS {
            let packet = probe::packet(world, machine, rng);
            let (is, should) = (verdict(&packet), model.verdict(&packet));
            seen.count(&should);
            if is != should {
                return Some(format!("{packet}\n  rulecast: {is:?}\n  model:    {should:?}"));
            }
            if let Some(wrong) = follower.in_between(&packet) {
                return Some(format!("while it was written: {wrong}"));
            }
        }
        None
    }

    fn fail(&self, what: &str) -> ! {
        let World { pool, services, slices, nodes } = &self.world;
        let mut objects = vec![format!("{pool:?}")];
        objects.extend(services.iter().map(|(name, object)| format!("{name}: {object:?}")));
        objects.extend(slices.iter().map(|(name, object)| format!("{name}: {object:?}")));
        objects.extend(nodes.iter().map(|(name, object)| format!("{name}: {object:?}")));
        let (mode, seed, events, objects) = (self.mode, self.seed, self.events, objects.join("\n"));
        panic!(
            "{what}\n\nmode {mode}, after {events} events:\n{objects}\n\nrepeat it with RULECAST_SEED={seed}"
        );
    }
}

/// Where two views of one bundle differ.
fn difference(one: &View, other: &View) -> Option<String> {
    if one.fact() != other.fact() {
        return Some(format!("the fact is {:?}, not {:?}", one.fact(), other.fact()));
    }
    if one.elements() != other.elements() {
        return Some("other elements".to_owned());
    }
    for family in [Family::V4, Family::V6] {
        if (one.rules(family), one.options(family)) != (other.rules(family), other.options(family)) {
            return Some(format!("other rules of {family:?}"));
        }
    }
    let targets = |view: &View| view.targets().count();
    if targets(one) != targets(other) {
        return Some(format!("{} targets, not {}", targets(one), targets(other)));
    }
    other.targets().find_map(|(id, wanted)| {
        let is = one.target(id)?;
        let same = is.shape() == wanted.shape() && is.members() == wanted.members();
        (!same).then(|| format!("{id}: {is:?}, not {wanted:?}"))
    })
}

/// When dropped by a panic, no other history begins.
struct StopAll<'a>(&'a AtomicU64, u64);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted")))
}

#[test]
fn random_histories_end_where_kube_proxy_would() {
    histories(Mode::Nftables);
}

#[test]
fn random_histories_with_iptables_end_where_kube_proxy_would() {
    histories(Mode::Iptables);
}

fn histories(mode: Mode) {
    if let Some(seed) = variable("RULECAST_SEED") {
        History::new(mode, seed).run();
        return;
    }
    let count = variable("RULECAST_HISTORIES").unwrap_or(HISTORIES);
    let (next, total) = (AtomicU64::new(0), Mutex::new(Seen::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    let stop = StopAll(&next, count);
                    let seen = History::new(mode, seed).run();
                    std::mem::forget(stop);
                    total.lock().expect("no thread panics with it").add(seen);
                }
            });
        }
    });
    let total = total.into_inner().expect("no thread panicked");
    println!("{count} histories in mode {mode}: {total:?}");
    assert!(total.least() >= count, "too few verdicts of one kind to prove anything: {total:?}");
}
