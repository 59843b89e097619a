//! A controller's side and a node's, in a network namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::sched::CloneFlags;
use rulecast_bundle::nft::Family;
use rulecast_bundle::{Change, Delta, Digest, FORMAT, Head, Mode, Proto, Way};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Node, Options, Pool, Service, ServicePort, Slice, SlicePort,
};
use rulecast_netlink::Connection;
use rulecast_node::applier::{Applier, Report};
use rulecast_node::backend::Backend;
use rulecast_node::nftables::Nftables;
use rulecast_node::store::Store;

pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root, for network namespaces");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A controller's side: compiles and makes heads and deltas.
pub(crate) struct Controller {
    pub(crate) compiler: Compiler,
    sequence: u64,
}

impl Controller {
    pub(crate) fn new() -> Self {
        Self::of(Mode::Nftables)
    }

    pub(crate) fn of(mode: Mode) -> Self {
        let mut compiler = Compiler::default();
        compiler.set_pool("default", Some(pool(mode)));
        compiler.set_node(
            "n1",
            Some(Node { addrs: vec![ip("192.168.0.1"), ip("fd00:1::1")], ..Node::default() }),
        );
        Self { compiler, sequence: 0 }
    }

    pub(crate) fn publish(&mut self) -> (Head, Vec<Change>) {
        self.compiler.compile();
        let changes = self.compiler.pool_mut("default").unwrap().take_changes();
        self.sequence += 1;
        let mut head = Head {
            format: FORMAT,
            min_applier: 1,
            mode: self.compiler.pools().next().unwrap().1.mode(),
            epoch: 0,
            sequence: self.sequence,
            digest: String::new(),
            checkpoint: String::new(),
            delta: String::new(),
        };
        head.digest = head.expected_digest("default", self.root()).to_string();
        (head, changes)
    }

    fn root(&self) -> Digest {
        self.compiler.pools().next().unwrap().1.bundle().root()
    }
}

pub(crate) fn pool(mode: Mode) -> Pool {
    let pods = vec![(ip("10.0.0.0"), 8), (ip("fd00:10::"), 32)];
    let options = Options { mode, detect_local: DetectLocal::ClusterCidr(pods), ..Options::default() };
    Pool { options, ..Pool::default() }
}

pub(crate) fn deliver<B: Backend>(controller: &mut Controller, applier: &mut Applier<B>) -> Report {
    let (head, changes) = controller.publish();
    let delta = Delta { from: head.sequence - 1, to: head.sequence, previous: None, changes };
    applier.offer(head, Way::Deltas(vec![delta])).unwrap()
}

pub(crate) fn applier(store: Option<Store>) -> Applier<Nftables> {
    Applier::new("n1", "default", Nftables::open().unwrap(), store)
}

pub(crate) fn service(vip: &str, keys: u8) -> Service {
    let flag = |bit: u8| keys & bit != 0;
    let node_port = flag(1).then(|| 30000 + u16::from(vip.as_bytes()[vip.len() - 1]));
    Service {
        cluster_ips: vec![ip(vip)],
        ports: vec![ServicePort { name: String::new(), proto: Proto::Tcp, port: 80, node_port }],
        load_balancer_ips: if flag(2) { vec![ip(&vip.replace("172.30", "5.5"))] } else { vec![] },
        external_local: flag(4),
        internal_local: flag(8),
        affinity: flag(16).then_some(600),
        source_ranges: if flag(32) { vec![(ip("203.0.113.0"), 24)] } else { vec![] },
        ..Service::default()
    }
}

pub(crate) fn slice(owner: &str, endpoints: &[(u8, bool)]) -> Slice {
    let endpoints = endpoints.iter().map(|(n, own)| Endpoint {
        node: Some(if *own { "n1".into() } else { "n2".into() }),
        ..Endpoint::ready(ip(&format!("10.1.0.{n}")))
    });
    let ports = vec![SlicePort { name: String::new(), proto: Proto::Tcp, port: 8080 }];
    Slice { service: owner.into(), ports, endpoints: endpoints.collect() }
}

pub(crate) fn keys_of(set: &str) -> BTreeSet<Vec<u8>> {
    let mut connection = Connection::open().unwrap();
    connection
        .elements(Family::V4, set, BTreeSet::new, |all, e| {
            all.insert([e.key, e.key_end].concat());
        })
        .unwrap()
}

pub(crate) const SETS: [&str; 11] = [
    "cluster-ips",
    "external-ips",
    "nodeports",
    "firewall-ips",
    "firewall-ranges",
    "hairpin-connections",
    "nodeport-ips",
    "members",
    "outside-members",
    "nodeport-members",
    "outside-nodeport-members",
];
