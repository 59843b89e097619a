//! Builders for compiler inputs.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::IpAddr;

use rulecast_bundle::{GroupId, GroupKind, Key, Proto, Scope, Tag, Value};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{
    DetectLocal, Endpoint, Options, Pool, Service, ServicePort, Slice, SlicePort,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn tcp(name: &str, port: u16) -> ServicePort {
    ServicePort { name: name.into(), proto: Proto::Tcp, port, node_port: None }
}

/// A ClusterIP Service with one unnamed TCP port 80.
pub(crate) fn service(cluster_ip: &str) -> Service {
    Service { cluster_ips: vec![ip(cluster_ip)], ports: vec![tcp("", 80)], ..Service::default() }
}

/// A slice of `ns/web` with the unnamed TCP port 8080.
pub(crate) fn slice(endpoints: Vec<Endpoint>) -> Slice {
    let ports = vec![SlicePort { name: String::new(), proto: Proto::Tcp, port: 8080 }];
    Slice { service: "ns/web".into(), ports, endpoints }
}

pub(crate) fn ready(addr: &str, node: &str) -> Endpoint {
    Endpoint { node: Some(node.into()), ..Endpoint::ready(ip(addr)) }
}

pub(crate) fn terminating(addr: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..ready(addr, node) }
}

pub(crate) fn hinted(addr: &str, node: &str, zones: &[&str], nodes: &[&str]) -> Endpoint {
    let list = |names: &[&str]| names.iter().map(|n| (*n).into()).collect();
    Endpoint { zones: list(zones), nodes: list(nodes), ..ready(addr, node) }
}

pub(crate) fn options() -> Options {
    let pods = vec![(ip("10.0.0.0"), 8), (ip("fd00:10::"), 32)];
    Options { detect_local: DetectLocal::ClusterCidr(pods), ..Options::default() }
}

pub(crate) fn compiler() -> Compiler {
    let mut compiler = Compiler::default();
    compiler.set_pool("default", Some(Pool { options: options(), ..Pool::default() }));
    compiler
}

/// Compiles `ns/web` alone.
pub(crate) fn compile(service: Service, slices: Vec<Slice>) -> Compiler {
    let mut compiler = compiler();
    compiler.set_service("ns/web", Some(service));
    for (n, slice) in slices.into_iter().enumerate() {
        compiler.set_slice(&format!("ns/web-{n}"), Some(slice));
    }
    compiler.compile();
    compiler
}

pub(crate) fn records(compiler: &Compiler) -> Vec<(Key, Value)> {
    compiler.pools().next().unwrap().1.bundle().records()
}

pub(crate) fn group(cluster_ip: &str, kind: GroupKind) -> GroupId {
    GroupId { addr: ip(cluster_ip), port: 80, proto: Proto::Tcp, kind }
}

/// The member addresses of a group that a node in a zone uses: the most specific scope that has any.
pub(crate) fn members(compiler: &Compiler, id: GroupId, node: &str, zone: &str) -> Vec<String> {
    let records = records(compiler);
    let of = |wanted: Scope| -> Vec<String> {
        let list = records.iter().filter_map(|(key, _)| match key {
            Key::Member { group, scope, addr, port } if *group == id && *scope == wanted => {
                Some(format!("{addr}:{port}"))
            }
            _ => None,
        });
        list.collect()
    };
    let scopes = [Scope::Node(Tag::of(node)), Scope::Zone(Tag::of(zone)), Scope::All];
    scopes.into_iter().map(of).find(|list| !list.is_empty()).unwrap_or_default()
}
