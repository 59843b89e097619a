//! Whichever shape is live, endpoints are today's.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use common::{compiler, ip, ready, service, slice, terminating};
use proptest::prelude::*;
use rulecast_bundle::{Bundle, Key, Mode, Shape, Value};
use rulecast_compiler::model::{Endpoint, Node, Service, Slice};
use rulecast_compiler::{Compiler, Live, PoolBundle};

/// One step of a history. Services, slices and nodes are named by numbers.
#[derive(Debug, Clone)]
enum Step {
    Service(u8, Option<(u8, bool, bool)>),
    Slice(u8, Option<(u8, Vec<(u8, u8)>)>),
    Node(u8, bool),
    Compile,
    Hold,
    /// To the shape so many compiles ago.
    Undo(usize),
    /// The same with the endpoints of that time.
    Exact(usize),
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let service = proptest::option::of((0u8..4, any::<bool>(), any::<bool>()));
    let endpoints = proptest::collection::vec((0u8..6, 0u8..4), 0..4);
    prop_oneof![
        3 => (0u8..4, service).prop_map(|(n, s)| Step::Service(n, s)),
        4 => (0u8..4, proptest::option::of((0u8..4, endpoints))).prop_map(|(n, s)| Step::Slice(n, s)),
        1 => (0u8..3, any::<bool>()).prop_map(|(n, there)| Step::Node(n, there)),
        5 => Just(Step::Compile),
        1 => Just(Step::Hold),
        1 => (0usize..5).prop_map(Step::Undo),
        1 => (0usize..5).prop_map(Step::Exact),
        1 => Just(Step::Resume),
    ]
}

fn endpoint((addr, state): (u8, u8)) -> Endpoint {
    let (addr, node) = (format!("10.1.0.{addr}"), format!("n{}", addr % 3));
    match state {
        0 | 1 => ready(&addr, &node),
        2 => terminating(&addr, &node),
        _ => Endpoint { ready: false, serving: false, ..ready(&addr, &node) },
    }
}

#[derive(Default)]
struct History {
    compiler: Compiler,
    slices: std::collections::BTreeMap<u8, Slice>,
    /// Shape and content after each compile.
    past: Vec<(Arc<Shape>, Arc<Bundle>)>,
    follower: Bundle,
}

impl History {
    fn pool(&mut self) -> &mut PoolBundle {
        self.compiler.pool_mut("default").unwrap()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Service(n, s) => {
                let service = s.map(|(vip, internal_local, external_local)| Service {
                    internal_local,
                    external_local,
                    external_ips: vec![ip("9.9.9.9")],
                    ..service(&format!("172.30.0.{vip}"))
                });
                self.compiler.set_service(&format!("ns/s{n}"), service);
            }
            Step::Slice(n, s) => {
                let made = s.map(|(owner, endpoints)| Slice {
                    service: format!("ns/s{owner}"),
                    ..slice(endpoints.into_iter().map(endpoint).collect())
                });
                self.compiler.set_slice(&format!("ns/slice{n}"), made.clone());
                match made {
                    Some(made) => drop(self.slices.insert(n, made)),
                    None => drop(self.slices.remove(&n)),
                }
            }
            Step::Node(n, there) => {
                self.compiler.set_node(&format!("n{n}"), there.then(Node::default));
            }
            Step::Compile => self.compile(),
            Step::Hold => self.fix(0),
            Step::Undo(back) => self.fix(back),
            Step::Exact(back) => {
                if let Some((_, bundle)) = self.past.iter().rev().nth(back).cloned() {
                    self.pool().set_live(Live::Exact(Mode::Nftables, bundle));
                }
            }
            Step::Resume => self.pool().set_live(Live::Wanted),
        }
    }

    fn fix(&mut self, back: usize) {
        if let Some((shape, _)) = self.past.iter().rev().nth(back).cloned() {
            self.pool().set_live(Live::Fixed(shape));
        }
    }

    fn compile(&mut self) {
        self.compiler.compile();
        let changes = self.pool().take_changes();
        let _final = self.follower.apply(&changes).unwrap();
        self.pool().confirm();
        assert_eq!(self.follower.root(), self.pool().bundle().root());
        self.check();
        let bundle = self.pool().bundle().clone();
        self.past.push((Arc::new(Shape::of(Mode::Nftables, &bundle)), Arc::new(bundle)));
    }

    /// The promise: no shape brings an endpoint that is not usable now.
    fn check(&self) {
        let (_, pool) = self.compiler.pools().next().unwrap();
        match pool.live() {
            Live::Exact(_, exact) => return assert_eq!(pool.bundle().root(), exact.root()),
            Live::Fixed(shape) => {
                assert_eq!(Shape::of(pool.mode(), pool.bundle()).digest(), shape.digest());
            }
            Live::Wanted => {}
        }
        for (key, _) in pool.bundle().iter() {
            let Key::Member { group, addr, .. } = key else { continue };
            let Some(Value::Group(target)) = pool.bundle().get(&Key::Group(group)) else {
                panic!("{addr} is a member of {group}, which is not there");
            };
            assert!(self.usable(&target.owner).contains(&addr), "{addr} is no endpoint of {}", target.owner);
        }
    }

    fn usable(&self, service: &str) -> BTreeSet<IpAddr> {
        let slices = self.slices.values().filter(|slice| slice.service == service);
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        endpoints.filter(|e| e.ready || e.serving && e.terminating).map(|e| e.addr).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn no_hold_and_no_rollback_installs_an_endpoint_that_is_not_usable_now(
        history in proptest::collection::vec(step(), 0..30)
    ) {
        let mut world = History { compiler: compiler(), ..History::default() };
        for step in history {
            world.take(step);
            if world.pool().is_stale() {
                world.compile();
            }
        }
        world.take(Step::Resume);
        world.compile();
        let shape = Shape::of(Mode::Nftables, world.pool().bundle()).digest();
        prop_assert_eq!(shape, world.pool().wanted().digest());
        let followed = world.pool().bundle().records();
        let stats = world.pool().stats();
        // The same as if nothing had ever been held.
        world.pool().set_live(Live::Fixed(Arc::new(Shape::new(Mode::Nftables))));
        world.compile();
        prop_assert_eq!(world.pool().stats().services, 0);
        world.take(Step::Resume);
        world.compile();
        prop_assert_eq!(world.pool().bundle().records(), followed);
        prop_assert_eq!(world.pool().stats(), stats);
    }
}
