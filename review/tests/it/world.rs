//! Small clusters to describe.

use std::net::IpAddr;

use rulecast_bundle::{Bundle, Mode, Proto, Shape};
use rulecast_compiler::Compiler;
use rulecast_compiler::model::{Endpoint, Options, Pool, Service, ServicePort, Slice, SlicePort};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn port(name: &str, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: name.to_owned(), proto: Proto::Tcp, port, node_port }
}

/// A Service with one port and one address, told apart by a number.
pub(crate) fn service(number: u16) -> Service {
    let [high, low] = number.to_be_bytes();
    Service {
        cluster_ips: vec![[10, 96, high, low].into()],
        ports: vec![port("http", 80, None)],
        ..Service::default()
    }
}

pub(crate) fn compile(options: &Options, services: &[(&str, Service)], slices: &[(&str, Slice)]) -> Bundle {
    let mut compiler = Compiler::default();
    compiler.set_pool("p", Some(Pool { options: options.clone(), ..Pool::default() }));
    for (name, service) in services {
        compiler.set_service(name, Some(service.clone()));
    }
    for (name, slice) in slices {
        compiler.set_slice(name, Some(slice.clone()));
    }
    compiler.compile();
    compiler.pool_mut("p").unwrap().bundle().clone()
}

pub(crate) fn shape(services: &[(&str, Service)]) -> Shape {
    Shape::of(Mode::Nftables, &compile(&Options::default(), services, &[]))
}

/// A slice of ready endpoints at port 8080 of `service`'s port http.
pub(crate) fn slice(service: &str, endpoints: &[&str]) -> Slice {
    Slice {
        service: service.to_owned(),
        ports: vec![SlicePort { name: "http".to_owned(), proto: Proto::Tcp, port: 8080 }],
        endpoints: endpoints.iter().map(|addr| Endpoint::ready(ip(addr))).collect(),
    }
}
