use rulecast_bundle::{Bundle, Change, Empty, Group, Key, LaneKey, Member, Scope, Value};

use super::*;

const VIP: &str = "10.96.0.10";
const NODE: &str = "192.168.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn id(vip: &str) -> GroupId {
    GroupId { addr: ip(vip), port: 53, proto: Proto::Udp, kind: GroupKind::Cluster }
}

/// A conntrack table that remembers what was asked.
#[derive(Default)]
struct Fake {
    flows: Vec<Flow>,
    asked: Vec<Destinations>,
    incomplete: bool,
}

impl Fake {
    fn with(flows: &[(&str, &str)]) -> Self {
        let flow = |(n, (dest, endpoint)): (usize, &(&str, &str))| Flow {
            source: SocketAddr::new(ip("10.244.1.9"), u16::try_from(n).unwrap() + 1000),
            dest: at(dest),
            reply_source: at(endpoint),
            reply_dest: at("10.244.1.9:1000"),
            zone: None,
            id: None,
        };
        Self { flows: flows.iter().enumerate().map(flow).collect(), ..Self::default() }
    }

    fn left(&self) -> Vec<String> {
        self.flows.iter().map(|flow| format!("{} {}", flow.dest, flow.reply_source)).collect()
    }
}

impl FlowTable for Fake {
    fn flows(
        &mut self,
        _: Family,
        to: Destinations,
        each: &mut dyn FnMut(&Flow),
    ) -> Result<bool, rulecast_netlink::Error> {
        self.asked.push(to);
        self.flows.iter().filter(|flow| to.contain(flow.dest)).for_each(each);
        Ok(!self.incomplete)
    }

    fn forget(&mut self, flows: &[Flow]) -> Result<usize, rulecast_netlink::Error> {
        let before = self.flows.len();
        self.flows.retain(|flow| !flows.contains(flow));
        Ok(before - self.flows.len())
    }
}

/// A view that changes step by step, as an applier's does.
struct Node {
    bundle: Bundle,
    view: View,
    flows: Flows,
}

impl Node {
    fn new() -> Self {
        let bundle = Bundle::default();
        let view = View::new("n1", &bundle);
        Self { bundle, view, flows: Flows::default() }
    }

    fn change(&mut self, changes: Vec<(Key, Option<Value>)>) -> &mut Self {
        let changes: Vec<Change> = changes.into_iter().map(|(key, value)| Change { key, value }).collect();
        let _undo = self.bundle.apply(&changes).unwrap();
        let touched = self.view.apply(&changes);
        self.flows.note(&self.view, touched.targets);
        self
    }

    fn settle(&mut self, table: &mut Fake) -> Vec<String> {
        self.flows.settle(table, Family::V4, &[ip(NODE)]).unwrap();
        table.left()
    }
}

/// The Service at `vip` with a nodePort.
fn service(vip: &str) -> (Key, Option<Value>) {
    let keys = vec![
        LaneKey { lane: 0, addr: Some(ip(vip)), port: 53 },
        LaneKey { lane: 5, addr: None, port: 30053 },
    ];
    let (owner, port_name) = ("ns/dns".to_owned(), String::new());
    let group = Group { owner, port_name, empty: Empty::Reject, affinity: None, keys };
    (Key::Group(id(vip)), Some(Value::Group(group)))
}

fn endpoint(vip: &str, scope: Scope, addr: &str, there: bool) -> (Key, Option<Value>) {
    let key = Key::Member { group: id(vip), scope, port: 5353, addr: ip(addr) };
    (key, there.then(|| Value::Member(Member::default())))
}

#[test]
fn flows_stay_while_their_endpoint_serves_and_go_with_it() {
    let mut node = Node::new();
    let (all, serving) = (Scope::All, Scope::Serving);
    node.change(vec![
        service(VIP),
        endpoint(VIP, all, "10.1.0.1", true),
        endpoint(VIP, all, "10.1.0.2", true),
    ]);
    let vip = "10.96.0.10:53";
    let mut table = Fake::with(&[
        (vip, "10.1.0.1:5353"),
        (vip, "10.1.0.2:5353"),
        (vip, vip),
        ("192.168.0.1:30053", "10.1.0.1:5353"),
        ("192.168.0.1:30053", "10.9.9.9:5353"),
        ("192.168.0.77:30053", "10.9.9.9:5353"),
        ("10.96.0.99:53", "10.9.9.9:5353"),
    ]);
    let left = node.settle(&mut table);
    assert_eq!(
        left.len(),
        5,
        "the flow from before the Service and the one to a dead pod are gone: {left:?}"
    );
    assert!(!node.flows.is_due());

    // Terminating, but serving.
    node.change(vec![endpoint(VIP, all, "10.1.0.1", false), endpoint(VIP, serving, "10.1.0.1", true)]);
    assert!(!node.flows.is_due());
    node.change(vec![endpoint(VIP, serving, "10.1.0.1", false)]);
    let left = node.settle(&mut table);
    assert_eq!(
        left,
        [
            format!("{vip} 10.1.0.2:5353"),
            "192.168.0.77:30053 10.9.9.9:5353".to_owned(),
            "10.96.0.99:53 10.9.9.9:5353".to_owned()
        ]
    );
}

#[test]
fn flows_of_a_service_without_endpoints_or_without_itself_go() {
    let vip = "10.96.0.10:53";
    for gone in [false, true] {
        let mut node = Node::new();
        node.change(vec![service(VIP), endpoint(VIP, Scope::All, "10.1.0.1", true)]);
        let mut table = Fake::with(&[
            (vip, "10.1.0.1:5353"),
            ("192.168.0.1:30053", "10.1.0.1:5353"),
            ("192.168.0.1:30053", "192.168.0.1:30053"),
        ]);
        assert_eq!(node.settle(&mut table).len(), 2, "the untranslated one is not the Service's");
        let mut changes = vec![endpoint(VIP, Scope::All, "10.1.0.1", false)];
        changes.extend(gone.then(|| (Key::Group(id(VIP)), None)));
        assert!(node.change(changes).settle(&mut table).is_empty(), "gone: {gone}");
    }
}

#[test]
fn an_address_that_went_to_another_service_counts_for_the_other() {
    let mut node = Node::new();
    node.change(vec![service(VIP), endpoint(VIP, Scope::All, "10.1.0.1", true)]);
    node.settle(&mut Fake::default());
    let other = "10.96.0.11";
    node.change(vec![
        (Key::Group(id(VIP)), None),
        endpoint(VIP, Scope::All, "10.1.0.1", false),
        service(other),
        endpoint(other, Scope::All, "10.1.0.2", true),
    ]);
    let node_port = "192.168.0.1:30053";
    let mut table = Fake::with(&[(node_port, "10.1.0.1:5353"), (node_port, "10.1.0.2:5353")]);
    assert_eq!(node.settle(&mut table), [format!("{node_port} 10.1.0.2:5353")]);
}

#[test]
fn few_destinations_are_asked_for_one_by_one_and_what_is_missing_again() {
    let mut node = Node::new();
    node.change(vec![service(VIP), endpoint(VIP, Scope::All, "10.1.0.1", true)]);
    let mut table = Fake { incomplete: true, ..Fake::default() };
    node.settle(&mut table);
    assert_eq!(table.asked, [Destinations::Port(30053), Destinations::Addr(at("10.96.0.10:53"))]);
    assert!(node.flows.is_due(), "an incomplete dump is no answer");
    table.incomplete = false;
    node.settle(&mut table);
    assert!(!node.flows.is_due());

    for n in 20..30 {
        let vip = format!("10.96.0.{n}");
        node.change(vec![service(&vip), endpoint(&vip, Scope::All, "10.1.0.1", true)]);
    }
    table.asked.clear();
    node.settle(&mut table);
    assert_eq!(table.asked, [Destinations::All]);
    node.flows.note_all(&node.view);
    assert!(node.flows.is_due(), "after rules of others, everything is looked at");
}
