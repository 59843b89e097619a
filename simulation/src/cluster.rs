//! The cluster's objects, and how they change.

use std::collections::BTreeMap;
use std::time::Duration;

use rulecast_bundle::{Mode, Proto};
use rulecast_compiler::model::{Endpoint, Node, Options, Pool, Service, ServicePort, Slice, SlicePort};
use rulecast_connect::between;
use rulecast_controller::objects::{Content, Kind, Object, ObjectId, PoolConfig};
use rulecast_controller::release::Asked;
use rulecast_controller::source::Event;
use rulecast_controller::world::World;
use tokio::time::sleep;

use crate::Universe;

/// The kinds, each of which is watched by itself.
pub(crate) const KINDS: [Kind; 4] = [Kind::RulePool, Kind::Node, Kind::Service, Kind::EndpointSlice];
/// The pools, and a label that their nodes have.
pub(crate) const POOLS: [&str; 2] = ["blue", "green"];
const ZONES: [&str; 2] = ["east", "west"];
const MODES: [Mode; 3] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs];
/// At most; few enough that a controller never takes their going for an accident, and one of them stays.
const SERVICES: usize = 6;
/// Nodes without an applier, which have facts and endpoints all the same.
const OTHER_NODES: usize = 2;

/// The objects by name, and every change to them.
pub(crate) struct Cluster {
    objects: BTreeMap<ObjectId, Object>,
    /// By kind, in the order of [`KINDS`].
    log: [Vec<Event>; KINDS.len()],
    nodes: Vec<String>,
    /// Those that nobody can read now.
    bad: Vec<ObjectId>,
    /// Pools change their mode.
    modes: bool,
}

impl Cluster {
    /// A cluster with these nodes and the pool each belongs to.
    pub(crate) fn new(members: &[(String, String)]) -> Self {
        let mut nodes: Vec<String> = members.iter().map(|(node, _)| node.clone()).collect();
        nodes.extend((0..OTHER_NODES).map(|n| format!("other-{n}")));
        let mut this = Self {
            objects: BTreeMap::new(),
            log: Default::default(),
            nodes,
            bad: Vec::new(),
            modes: fastrand::u32(..4) == 0,
        };
        for pool in POOLS {
            this.set_pool(pool);
        }
        for node in this.nodes.clone() {
            this.set_node(&node);
        }
        for n in 0..SERVICES {
            if n == 0 || fastrand::bool() {
                this.set_service(n);
            }
            (0..2).for_each(|slice| this.set_slice(n, slice));
        }
        this
    }

    pub(crate) fn log(&self, kind: usize) -> &[Event] {
        &self.log[kind]
    }

    fn say(&mut self, event: Event) {
        let kind = match &event {
            Event::Set(object) => object.id.kind,
            Event::Gone(id) | Event::Bad(id, _) => id.kind,
            Event::Unusable(..) | Event::Together(_) | Event::Synced => return,
        };
        let at = KINDS.iter().position(|k| *k == kind).expect("a known kind");
        self.log[at].push(event);
    }

    fn set(&mut self, kind: Kind, name: impl Into<String>, content: Content) {
        let object = Object { id: ObjectId::new(kind, name), content, warnings: Vec::new() };
        let was_bad = self.bad.extract_if(.., |id| *id == object.id).count() > 0;
        if was_bad || self.objects.get(&object.id) != Some(&object) {
            self.objects.insert(object.id.clone(), object.clone());
            self.say(Event::Set(object));
        }
    }

    fn remove(&mut self, kind: Kind, name: impl Into<String>) {
        let id = ObjectId::new(kind, name);
        self.bad.retain(|bad| *bad != id);
        if self.objects.remove(&id).is_some() {
            self.say(Event::Gone(id));
        }
    }

    fn set_pool(&mut self, name: &str) {
        let options = Options {
            masquerade_all: fastrand::bool(),
            mode: if self.modes { *pick(&MODES) } else { Mode::Nftables },
            ..Options::default()
        };
        let node_selector = match name {
            "blue" => BTreeMap::new(),
            _ => BTreeMap::from([("pool".to_owned(), name.to_owned())]),
        };
        let publish_interval = Duration::from_millis(fastrand::u64(100..2000));
        let pool = Pool { node_selector, options };
        let config = PoolConfig { pool, publish_interval, asked: asked(), ..PoolConfig::default() };
        self.set(Kind::RulePool, name, Content::Pool(Box::new(config)));
    }

    fn set_node(&mut self, name: &str) {
        let labels =
            if fastrand::u32(..8) == 0 { None } else { Some(("pool".to_owned(), "green".to_owned())) };
        let n = self.nodes.iter().position(|node| node == name).expect("a node");
        let n = u8::try_from(n).expect("few nodes");
        let node = Node {
            labels: labels.into_iter().collect(),
            zone: fastrand::bool().then(|| (*pick(&ZONES)).to_owned()),
            addrs: vec![[192, 168, fastrand::u8(..2), n].into()],
            pod_cidrs: vec![([10, n, 0, 0].into(), 24)],
            draining: fastrand::bool(),
        };
        self.set(Kind::Node, name, Content::Node(node));
    }

    fn set_service(&mut self, n: usize) {
        let number = u8::try_from(n).expect("few Services");
        let port = |port, name: &str| ServicePort {
            name: name.to_owned(),
            proto: if fastrand::u32(..4) == 0 { Proto::Udp } else { Proto::Tcp },
            port,
            node_port: fastrand::bool().then(|| 30000 + u16::from(number) * 10 + port % 10),
        };
        let mut ports = vec![port(80, "http")];
        if fastrand::bool() {
            ports.push(port(443, "https"));
        }
        let some = |addr: [u8; 4]| if fastrand::u32(..3) == 0 { vec![addr.into()] } else { Vec::new() };
        let load_balancer_ips = some([203, 0, 113, number]);
        let service = Service {
            cluster_ips: vec![[10, 96, 0, number].into()],
            // Two Services may claim the same.
            external_ips: some([198, 51, 100, number / 2]),
            source_ranges: if fastrand::bool() { vec![([10, 0, 0, 0].into(), 8)] } else { Vec::new() },
            load_balancer_ips,
            ports,
            internal_local: fastrand::u32(..4) == 0,
            external_local: fastrand::u32(..4) == 0,
            affinity: (fastrand::u32(..4) == 0).then_some(60),
            health_check_node_port: None,
        };
        self.set(Kind::Service, service_name(n), Content::Service(service));
    }

    fn set_slice(&mut self, n: usize, slice: usize) {
        let port = |name: &str, port| SlicePort { name: name.to_owned(), proto: Proto::Tcp, port };
        let count = fastrand::usize(..6);
        let endpoints = (0..count).map(|_| self.endpoint(n)).collect();
        let slice_object = Slice {
            service: service_name(n),
            ports: vec![port("http", 8080), port("https", 8443)],
            endpoints,
        };
        self.set(Kind::EndpointSlice, format!("test/s{n}-{slice}"), Content::Slice(slice_object));
    }

    fn endpoint(&self, n: usize) -> Endpoint {
        let n = u8::try_from(n).expect("few Services");
        let mut endpoint = Endpoint::ready([11, 0, n, fastrand::u8(1..8)].into());
        endpoint.node = (fastrand::u32(..8) > 0).then(|| pick(&self.nodes).as_str().into());
        if fastrand::u32(..4) == 0 {
            endpoint.ready = false;
            endpoint.serving = fastrand::bool();
            endpoint.terminating = fastrand::bool();
        }
        if fastrand::u32(..3) == 0 {
            endpoint.zones.push((*pick(&ZONES)).into());
        }
        endpoint
    }

    /// Changes one object. Returns what, in words.
    fn change(&mut self) -> String {
        let n = fastrand::usize(..SERVICES);
        match fastrand::u32(..40) {
            0 => {
                let pool = *pick(&POOLS);
                self.set_pool(pool);
                format!("RulePool {pool}")
            }
            1 => {
                let pool = *pick(&POOLS);
                self.remove(Kind::RulePool, pool);
                format!("RulePool {pool} goes")
            }
            2..=4 => {
                let node = pick(&self.nodes).clone();
                self.set_node(&node);
                format!("Node {node}")
            }
            5 => {
                let node = pick(&self.nodes).clone();
                self.remove(Kind::Node, &node);
                format!("Node {node} goes")
            }
            6..=10 => {
                self.set_service(n);
                format!("Service {n}")
            }
            11 | 12 if n > 0 => {
                self.remove(Kind::Service, service_name(n));
                format!("Service {n} goes")
            }
            13 if n > 0 && self.objects.contains_key(&service_id(n)) => {
                let id = service_id(n);
                self.bad.push(id.clone());
                self.say(Event::Bad(id, "a simulated problem".to_owned()));
                format!("Service {n} cannot be read")
            }
            14..=19 => self.flap(n),
            _ => {
                let slice = fastrand::usize(..2);
                self.set_slice(n, slice);
                format!("EndpointSlice {n}-{slice}")
            }
        }
    }

    /// Changes a slice and changes it back: contents come again that were published before.
    fn flap(&mut self, n: usize) -> String {
        let id = ObjectId::new(Kind::EndpointSlice, format!("test/s{n}-0"));
        let before = self.objects.get(&id).cloned();
        self.set_slice(n, 0);
        if let Some(Object { content, .. }) = before
            && fastrand::bool()
        {
            self.set(Kind::EndpointSlice, id.name, content);
        } else if fastrand::bool() {
            self.set(
                Kind::EndpointSlice,
                id.name,
                Content::Slice(Slice { service: service_name(n), ..Slice::default() }),
            );
        }
        format!("EndpointSlice {n}-0 comes and goes")
    }

    /// Leaves nothing behind that controllers could not see to: what cannot be read, and pools that are gone while what was published for them is not sound, or may not be.
    pub(crate) fn settle(&mut self, is_sound: impl Fn(&str) -> bool) {
        for id in std::mem::take(&mut self.bad) {
            let object = self.objects[&id].clone();
            self.say(Event::Set(object));
        }
        for pool in POOLS {
            let id = ObjectId::new(Kind::RulePool, pool);
            if !is_sound(pool) {
                self.set_pool(pool);
            }
            let Some(mut object) = self.objects.get(&id).cloned() else { continue };
            if let Content::Pool(config) = &mut object.content {
                // Of what nobody can read nothing can be held.
                if !is_sound(pool) {
                    config.asked = Asked::default();
                }
            }
            self.set(Kind::RulePool, pool, object.content);
        }
    }

    /// What a controller makes of the objects that never saw any others.
    pub(crate) fn compiled(&self) -> World {
        let mut world = World::default();
        self.objects.values().for_each(|object| world.apply(Event::Set(object.clone())));
        world.apply(Event::Synced);
        world.compile();
        world
    }
}

/// Now and then somebody holds shapes back, or goes back to an older one.
fn asked() -> Asked {
    Asked {
        hold: fastrand::u32(..5) == 0,
        pinned: (fastrand::u32(..5) == 0).then(|| fastrand::u64(1..8)),
        manual: fastrand::u32(..8) == 0,
        history: fastrand::usize(1..5),
        ..Asked::default()
    }
}

/// Changes objects, sometimes many at once, until it is dropped.
pub(crate) async fn change(universe: &Universe) {
    let longest = between(Duration::from_millis(500), Duration::from_secs(6));
    loop {
        sleep(between(Duration::from_millis(1), longest)).await;
        let burst = if fastrand::u32(..6) == 0 { fastrand::u32(2..12) } else { 1 };
        for _ in 0..burst {
            let what = universe.cluster().change();
            universe.trace.note(format_args!("cluster: {what}"));
        }
        universe.wake();
    }
}

fn service_id(n: usize) -> ObjectId {
    ObjectId::new(Kind::Service, service_name(n))
}

fn service_name(n: usize) -> String {
    format!("test/s{n}")
}

fn pick<T>(from: &[T]) -> &T {
    &from[fastrand::usize(..from.len())]
}
