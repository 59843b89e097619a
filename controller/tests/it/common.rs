//! What the tests share: objects in short form, and a follower as nodes are.

use rulecast_bundle::{CatchUp, ChunkId, Digest, Head, Replica};
use rulecast_compiler::model::{Endpoint, Service, ServicePort, Slice, SlicePort};
use rulecast_controller::objects::{Content, Kind, Object, ObjectId, PoolConfig};
use rulecast_controller::release::NodeReport;
use rulecast_controller::sink::{Sink, SinkError};
use rulecast_controller::source::Event;
use rulecast_controller::world::World;

pub(crate) const POOL: &str = "default";

fn object(kind: Kind, name: String, content: Content) -> Event {
    Event::Set(Object { id: ObjectId::new(kind, name), content, warnings: Vec::new() })
}

/// Service number `n`, with one port.
pub(crate) fn service(n: u16) -> Event {
    service_at(n, 80)
}

/// The same at another port.
pub(crate) fn service_at(n: u16, port: u16) -> Event {
    let [hi, lo] = n.to_be_bytes();
    let port = ServicePort { name: String::new(), proto: rulecast_bundle::Proto::Tcp, port, node_port: None };
    let service =
        Service { cluster_ips: vec![[10, 96, hi, lo].into()], ports: vec![port], ..Service::default() };
    object(Kind::Service, format!("test/s{n}"), Content::Service(service))
}

pub(crate) fn no_service(n: u16) -> Event {
    Event::Gone(ObjectId::new(Kind::Service, format!("test/s{n}")))
}

/// The endpoints of service number `n`.
pub(crate) fn endpoints(n: u16, hosts: impl IntoIterator<Item = u8>) -> Event {
    let [hi, lo] = n.to_be_bytes();
    let port = SlicePort { name: String::new(), proto: rulecast_bundle::Proto::Tcp, port: 8080 };
    let endpoints = hosts.into_iter().map(|host| Endpoint::ready([11, hi, lo, host].into())).collect();
    let slice = Slice { service: format!("test/s{n}"), ports: vec![port], endpoints };
    object(Kind::EndpointSlice, format!("test/s{n}-1"), Content::Slice(slice))
}

pub(crate) fn pool(config: PoolConfig) -> Event {
    pool_named(POOL, config)
}

pub(crate) fn pool_named(name: &str, config: PoolConfig) -> Event {
    object(Kind::RulePool, name.to_owned(), Content::Pool(Box::new(config)))
}

/// A node says what it runs.
pub(crate) fn report(node: &str, pool: &str, sequence: u64, error: Option<&str>) -> Event {
    let report = NodeReport {
        pool: pool.to_owned(),
        position: (0, sequence),
        error: error.map(ToOwned::to_owned),
        ..NodeReport::default()
    };
    object(Kind::RuleNode, node.to_owned(), Content::Report(report))
}

/// A compiled world with that many Services of two endpoints each.
pub(crate) fn world(services: u16) -> World {
    let mut world = World::default().with_default_pool();
    for n in 0..services {
        world.apply(service(n));
        world.apply(endpoints(n, [1, 2]));
    }
    world.apply(Event::Synced);
    world.compile();
    world
}

pub(crate) fn apply(world: &mut World, events: impl IntoIterator<Item = Event>) {
    events.into_iter().for_each(|event| world.apply(event));
    world.compile();
}

/// The digest of what is compiled.
pub(crate) fn compiled(world: &World) -> Digest {
    world.compiler().pools().find(|(name, _)| *name == POOL).expect("the pool is there").1.bundle().root()
}

/// A node's copy.
pub(crate) struct Follower(Replica, String);

impl Follower {
    pub(crate) fn new() -> Self {
        Self::of(POOL)
    }

    /// Of the bundle with this name.
    pub(crate) fn of(pool: &str) -> Self {
        Self(Replica::new(pool), pool.to_owned())
    }

    /// The chunks that a new node reads.
    pub(crate) async fn reads<S: Sink>(sink: &S) -> Vec<ChunkId> {
        let (head, _) = sink.read_head(POOL).await.unwrap().expect("a head");
        let mut catch_up = CatchUp::new(&head, None).unwrap();
        let mut reads = Vec::new();
        while let Some(id) = catch_up.need() {
            catch_up.supply(sink.read_chunk(POOL, id).await.unwrap()).unwrap();
            reads.push(id);
        }
        reads
    }

    /// Takes what is published. Counts the chunks it had to read.
    pub(crate) async fn follow<S: Sink>(&mut self, sink: &S) -> usize {
        let (head, _) = sink.read_head(&self.1).await.unwrap().expect("a head");
        self.take(sink, head).await.unwrap()
    }

    pub(crate) async fn take<S: Sink>(&mut self, sink: &S, head: Head) -> Result<usize, SinkError> {
        let Some(have) = self.0.admit(&head).unwrap() else { return Ok(0) };
        let mut catch_up = CatchUp::new(&head, have).unwrap();
        let mut read = 0;
        while let Some(id) = catch_up.need() {
            catch_up.supply(sink.read_chunk(&self.1, id).await?).unwrap();
            read += 1;
        }
        self.0.advance(head, catch_up.finish().unwrap()).unwrap();
        Ok(read)
    }

    pub(crate) fn refuses(&self, head: &Head) -> bool {
        self.0.admit(head).is_err()
    }

    pub(crate) fn bundle(&self) -> &rulecast_bundle::Bundle {
        self.0.bundle()
    }

    pub(crate) fn root(&self) -> Digest {
        self.0.bundle().root()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.0.head().map_or(0, |head| head.sequence)
    }
}
