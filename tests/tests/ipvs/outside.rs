//! Services as the world outside sees them.

use std::net::SocketAddr;

use anyhow::ensure;
use rulecast_compiler::model::Service;
use rulecast_tests::probe::{self, Answer, Proto};

use crate::world::{EXTERNAL, NODE_PORT, World, at, ip, service, tcp};

pub(crate) fn external_addresses_and_node_ports_answer(world: &mut World) -> anyhow::Result<()> {
    world.serve(Service { external_ips: vec![ip(EXTERNAL)], ..service() }, &["a1", "b1"])?;
    let node = &world.network.nodes[0];
    for to in [at(EXTERNAL, 80), SocketAddr::new(node.v4, NODE_PORT), SocketAddr::new(node.v6, NODE_PORT)] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let seen = probe::pods(world.client(), proto, to, 4)?;
            ensure!(seen.len() == 2, "{to} over {proto:?}: {seen:?}");
        }
        let peer = tcp(world.client(), to)?.peer()?;
        ensure!(
            ![world.network.client.v4, world.network.client.v6].contains(&peer),
            "{to}, masqueraded: {peer}"
        );
        let inside = tcp(world.pod("a2"), to)?;
        ensure!(inside.pod().is_ok(), "{to} from a pod: {inside:?}");
    }
    Ok(())
}

pub(crate) fn policy_local_keeps_the_client_address(world: &mut World) -> anyhow::Result<()> {
    let local = Service { external_ips: vec![ip(EXTERNAL)], external_local: true, ..service() };
    world.serve(local.clone(), &["a1", "b1"])?;
    let frontends = [at(EXTERNAL, 80), SocketAddr::new(world.network.nodes[0].v4, NODE_PORT)];
    for to in frontends {
        let seen = probe::pods(world.client(), Proto::Tcp, to, 4)?;
        ensure!(seen.iter().eq(["a1"]), "{to}: {seen:?}");
        let peer = tcp(world.client(), to)?.peer()?;
        ensure!(peer == world.network.client.v4, "{to}, kept: {peer}");
    }
    world.serve(local, &["b1"])?;
    for to in frontends {
        let answer = tcp(world.client(), to)?;
        ensure!(answer == Answer::Silence, "{to} from outside: {answer:?}");
        for from in [world.pod("a2"), world.node()] {
            let answer = tcp(from, to)?;
            ensure!(answer.pod().is_ok(), "{to} from {}: {answer:?}", from.name());
        }
    }
    Ok(())
}

pub(crate) fn source_ranges_let_only_some_in(world: &mut World) -> anyhow::Result<()> {
    let client = world.network.client.v4;
    let ranges = |ranges: Vec<(std::net::IpAddr, u8)>| Service {
        load_balancer_ips: vec![ip(EXTERNAL)],
        source_ranges: ranges,
        ..service()
    };
    world.serve(ranges(vec![(client, 32)]), &["a1"])?;
    let from = |world: &World, name: &str| tcp(world.pod(name), at(EXTERNAL, 80));
    ensure!(tcp(world.client(), at(EXTERNAL, 80))?.pod()? == "a1", "the client may");
    ensure!(from(world, "a2")? == Answer::Silence, "a pod may not");
    ensure!(tcp(world.node(), at(EXTERNAL, 80))? == Answer::Silence, "the node may not");
    // Other frontends are open to all.
    ensure!(tcp(world.pod("a2"), at(crate::world::VIP, 80))?.pod().is_ok(), "the cluster IP");
    world.serve(ranges(vec![(ip("0.0.0.0"), 0)]), &["a1"])?;
    ensure!(from(world, "a2")?.pod().is_ok(), "everybody may");
    world.serve(ranges(vec![(ip("192.168.50.0"), 24)]), &["a1"])?;
    ensure!(tcp(world.node(), at(EXTERNAL, 80))?.pod().is_ok(), "the node may");
    ensure!(from(world, "a2")? == Answer::Silence, "a pod may not");
    Ok(())
}
