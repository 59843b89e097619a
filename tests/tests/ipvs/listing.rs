//! What is in the kernel, by its own account.

use anyhow::ensure;
use rulecast_bundle::Proto;
use rulecast_compiler::model::{Service, ServicePort};
use rulecast_node::backend::Backend as _;
use rulecast_node::{addresses, ipvs};
use rulecast_tests::serve;

use crate::world::{EXTERNAL, World, ip, service};

/// A Service of its own cluster IP, over TCP.
fn numbered(n: u16) -> Service {
    let [high, low] = n.to_be_bytes();
    let port = ServicePort { name: "tcp".to_owned(), proto: Proto::Tcp, port: 80, node_port: None };
    Service { cluster_ips: vec![[10, 96, 100 + high, low].into()], ports: vec![port], ..Service::default() }
}

pub(crate) fn a_change_costs_the_same_with_many_services(world: &mut World) -> anyhow::Result<()> {
    let mut costs = Vec::new();
    let mut there = 0;
    for count in [10, 1000] {
        for n in there..count {
            let name = format!("ns/s{n}");
            world.set_service(&name, Some(numbered(n)));
            world.set_endpoints(&name, &["a1", "b1"], serve::PORTS[0]);
        }
        there = count;
        world.apply()?;
        let mut change = |pods: &[&str]| -> anyhow::Result<(usize, usize)> {
            world.set_endpoints("ns/s5", pods, serve::PORTS[0]);
            let applied = world.apply()?;
            Ok((applied.messages, applied.bytes))
        };
        costs.push([change(&["a1", "b1", "b2"])?, change(&["a1", "b2"])?, change(&["a1", "b1"])?]);
    }
    println!("messages and bytes of an added, a removed and a replaced endpoint: {:?}", costs[0]);
    ensure!(costs[0] == costs[1], "{costs:?}");
    let messages = costs[0].map(|(messages, _)| messages);
    ensure!(messages == [1, 1, 2], "{messages:?}");
    Ok(())
}

pub(crate) fn what_is_written_is_what_is_there(world: &mut World) -> anyhow::Result<()> {
    let all = Service {
        load_balancer_ips: vec![ip(EXTERNAL)],
        source_ranges: vec![(ip("203.0.113.0"), 24), (ip("0.0.0.0"), 0)],
        affinity: Some(600),
        ..service()
    };
    world.serve(all, &["a1", "b1"])?;
    // A fresh kernel, so that nothing waits for connections of before.
    let (node, view, backend) = (&world.network.nodes[0].namespace, &world.view, &mut world.backend);
    node.run(|| backend.clean_up())??;
    let (rendered, verified) = node.run(|| {
        let addrs = addresses::of_this_node().unwrap_or_default();
        backend.rebuild(view, &addrs)?;
        Ok::<_, rulecast_node::backend::BackendError>((
            ipvs::text::render(view, &addrs),
            backend.verify(view)?,
        ))
    })??;
    ensure!(verified.is_same(), "{:#?}", verified.differences);
    ensure!(verified.elements > 50 && verified.chains == 18 && verified.sets > 5, "{verified:?}");
    let mut listed = world.node().output("ipvsadm", &["-Sn"])?;
    // In IPv6 the tool does not tell timeouts of 600 from others, nor in which order it lists.
    listed += &world.node().output("ipset", &["save"])?;
    listed += &world.node().output("iptables-legacy-save", &[])?;
    listed += &world.node().output("ip6tables-legacy-save", &[])?;
    let listed: Vec<&str> = listed.lines().map(str::trim_end).collect();
    for line in rendered.lines() {
        let told =
            |line: &&str| line.starts_with("-A ") || line.starts_with("-a ") || line.starts_with("add ");
        if told(&line) {
            ensure!(listed.contains(&line), "{line:?} is not in\n{}", listed.join("\n"));
        }
    }
    for line in listed.iter().filter(|line| line.starts_with("-a ") || line.starts_with("add ")) {
        ensure!(rendered.lines().any(|other| other == *line), "{line:?} is not in\n{rendered}");
    }
    // Somebody else's doing is told.
    world.node().output("ipset", &["add", "RC-DROPPED", "10.96.0.10,tcp:80"])?;
    world.node().output("iptables-legacy", &["-t", "nat", "-F", "RCV-MARK"])?;
    let (node, view, backend) = (&world.network.nodes[0].namespace, &world.view, &mut world.backend);
    let verified = node.run(|| backend.verify(view))??;
    let text = verified.differences.join("\n");
    ensure!(text.contains("RC-DROPPED") && text.contains("RCV-MARK"), "{text}");
    world.rebuild()??;
    Ok(())
}

pub(crate) fn nothing_is_left(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["a1", "b1"])?;
    world.node().output("ipvsadm", &["-A", "-t", "192.0.2.1:80", "-s", "rr"])?;
    // Also by one who has just begun and knows of nothing.
    for fresh in [false, true] {
        if fresh {
            world.rebuild()??;
            world.node().output("ipvsadm", &["-A", "-t", "192.0.2.1:80", "-s", "rr"])?;
            world.backend = world.node().run(ipvs::Ipvs::open)??;
        }
        let (node, backend) = (&world.network.nodes[0].namespace, &mut world.backend);
        node.run(|| backend.clean_up())??;
        let listed = world.node().output("ipvsadm", &["-Sn"])?;
        ensure!(listed.trim_end() == "-A -t 192.0.2.1:80 -s rr", "{listed}");
        for (tool, args) in [
            ("ipset", &["save"][..]),
            ("iptables-legacy-save", &[]),
            ("ip6tables-legacy-save", &[]),
            ("ip", &["link"]),
        ] {
            let listed = world.node().output(tool, args)?;
            ensure!(!listed.contains("RC-") && !listed.contains("rulecast0"), "{tool}: {listed}");
        }
    }
    world.node().output("ipvsadm", &["-C"])?;
    world.rebuild()??;
    Ok(())
}
