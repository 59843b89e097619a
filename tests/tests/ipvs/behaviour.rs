//! Services inside the cluster.

use anyhow::{Context as _, ensure};
use rulecast_compiler::model::Service;
use rulecast_tests::probe::{self, Answer, Proto};

use crate::world::{VIP, VIP6, World, at, service, tcp};

pub(crate) fn cluster_ips_answer_over_tcp_and_udp(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1", "b1"])?;
    for vip in [VIP, VIP6] {
        for proto in [Proto::Tcp, Proto::Udp] {
            for from in [world.pod("a2"), world.node()] {
                let seen =
                    probe::pods(from, proto, at(vip, 80), 4).with_context(|| from.name().to_owned())?;
                ensure!(seen.len() == 2, "{vip} over {proto:?} from {}: {seen:?}", from.name());
            }
        }
    }
    let peer = tcp(world.pod("a2"), at(VIP, 80))?.peer()?;
    ensure!(peer == world.network.pod("a2").v4, "a pod's address is kept: {peer}");
    // From outside the cluster the answer has to come back through this node.
    let peer = tcp(world.client(), at(VIP, 80))?.peer()?;
    ensure!(peer != world.network.client.v4, "masqueraded: {peer}");
    Ok(())
}

pub(crate) fn a_pod_reaches_itself_through_its_service(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    for vip in [VIP, VIP6] {
        let answer = tcp(world.pod("a1"), at(vip, 80))?;
        ensure!(answer.pod()? == "a1", "{answer:?}");
        let pod = world.network.pod("a1");
        ensure!(![pod.v4, pod.v6].contains(&answer.peer()?), "masqueraded: {answer:?}");
    }
    Ok(())
}

pub(crate) fn without_endpoints_it_is_refused(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &[])?;
    for from in [world.pod("a1"), world.node(), world.client()] {
        // What a node sends itself over UDP is not even sent: an error of the call, for which nobody waits either.
        let own = std::ptr::eq(from, world.node());
        for proto in [Proto::Tcp, Proto::Udp].into_iter().filter(|p| !own || *p == Proto::Tcp) {
            let answer = probe::connect(from, proto, at(VIP, 80))?;
            ensure!(answer == Answer::Refused, "{proto:?} from {}: {answer:?}", from.name());
        }
    }
    // The first endpoint needs nothing but itself, in either family and at each frontend: the VIP and the node's addresses.
    let applied = world.serve(service(), &["b1"])?;
    ensure!(tcp(world.pod("a1"), at(VIP, 80))?.pod()? == "b1", "no answer");
    ensure!(applied.messages <= 2 * 2 * 4, "{applied:?}");
    Ok(())
}

pub(crate) fn policy_local_inside_drops_where_there_is_none(world: &mut World) -> anyhow::Result<()> {
    let local = Service { internal_local: true, ..service() };
    world.serve(local.clone(), &["a1", "b1"])?;
    let seen = probe::pods(world.pod("a2"), Proto::Tcp, at(VIP, 80), 4)?;
    ensure!(seen.iter().eq(["a1"]), "{seen:?}");
    world.serve(local, &["b1"])?;
    for from in [world.pod("a2"), world.node()] {
        let answer = tcp(from, at(VIP, 80))?;
        ensure!(answer == Answer::Silence, "from {}: {answer:?}", from.name());
    }
    Ok(())
}

pub(crate) fn clients_stick_to_their_endpoint(world: &mut World) -> anyhow::Result<()> {
    world.serve(Service { affinity: Some(600), ..service() }, &["a1", "b1", "b2"])?;
    for from in [world.pod("a2"), world.client()] {
        let seen = probe::pods(from, Proto::Tcp, at(VIP, 80), 6)?;
        ensure!(seen.len() == 1, "from {}: {seen:?}", from.name());
    }
    // The endpoint goes: the client gets another one, and stays there.
    let first = tcp(world.pod("a2"), at(VIP, 80))?.pod()?.to_owned();
    let others: Vec<&str> = ["a1", "b1", "b2"].into_iter().filter(|pod| *pod != first).collect();
    world.serve(Service { affinity: Some(600), ..service() }, &others)?;
    let seen = probe::pods(world.pod("a2"), Proto::Tcp, at(VIP, 80), 6)?;
    ensure!(seen.len() == 1 && !seen.contains(&first), "{first} left: {seen:?}");
    Ok(())
}

pub(crate) fn ports_that_are_not_served_are_refused(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    // Something of the node's own that listens on all addresses is not reached by a VIP.
    let _listener = world.node().run(|| std::net::TcpListener::bind("[::]:22"))??;
    let own = tcp(world.pod("a1"), std::net::SocketAddr::new(world.network.nodes[0].v4, 22));
    ensure!(!matches!(own, Ok(Answer::Refused)), "the node itself listens: {own:?}");
    for vip in [VIP, VIP6] {
        for from in [world.pod("a1"), world.node()] {
            let answer = tcp(from, at(vip, 22))?;
            ensure!(answer == Answer::Refused, "{vip} from {}: {answer:?}", from.name());
        }
    }
    Ok(())
}

pub(crate) fn timeouts_and_strict_arp_are_set(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1"])?;
    let sysctl = |world: &World, name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/all/{name}");
        world.node().run(|| std::fs::read_to_string(path))?.context("a sysctl")
    };
    let before = world.node().output("ipvsadm", &["-L", "--timeout"])?;
    ensure!(sysctl(world, "arp_ignore")?.trim() == "0", "nobody asked for it");
    let mut options = world.options.clone();
    (options.ipvs.tcp_timeout, options.ipvs.udp_timeout, options.ipvs.strict_arp) = (1234, 56, true);
    world.set_options(options)?;
    let after = world.node().output("ipvsadm", &["-L", "--timeout"])?;
    let words: Vec<&str> = before.split_whitespace().collect();
    // What is 0 stays as the kernel has it: "Timeout (tcp tcpfin udp): 900 120 300".
    let fin = words[words.len() - 2];
    ensure!(after.trim().ends_with(&format!(": 1234 {fin} 56")), "{before}, {after}");
    ensure!(sysctl(world, "arp_ignore")?.trim() == "1" && sysctl(world, "arp_announce")?.trim() == "2");
    Ok(())
}
