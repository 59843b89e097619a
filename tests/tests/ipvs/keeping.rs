//! What must not be lost while rules change.

use std::fs::File;
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use rulecast_node::ipvs::Ipvs;
use rulecast_tests::probe::{self, Proto};
use rulecast_tests::serve;

use crate::schedulers::Kept;
use crate::world::{VIP, World, at, service, tcp};

/// A Service whose connections stay open.
fn serve_kept(world: &mut World, pods: &[&str]) -> anyhow::Result<()> {
    world.set_service("ns/web", Some(service()));
    world.set_endpoints("ns/web", pods, serve::KEEP);
    world.apply()?;
    Ok(())
}

fn destinations(world: &World) -> anyhow::Result<Vec<String>> {
    let listed = world.node().output("ipvsadm", &["-Sn"])?;
    let begin = format!("-a -t {VIP}:80 -r ");
    Ok(listed.lines().filter_map(|line| line.strip_prefix(&begin)).map(str::to_owned).collect())
}

pub(crate) fn a_connection_outlives_its_endpoints_removal(world: &mut World) -> anyhow::Result<()> {
    serve_kept(world, &["b1"])?;
    let mut kept = Kept::open(world.pod("a2"), at(VIP, 80))?;
    serve_kept(world, &["b2"])?;
    ensure!(kept.ask()? == "b1", "the connection moved");
    ensure!(Kept::open(world.pod("a2"), at(VIP, 80))?.pod == "b2", "a new one goes to the new endpoint");
    let b1 = world.network.pod("b1").v4;
    let quiet = format!("{b1}:{} -m -w 0", serve::KEEP);
    ensure!(destinations(world)?.contains(&quiet), "{:?}", destinations(world)?);
    // It is looked at after a second, and stays.
    std::thread::sleep(Duration::from_millis(1200));
    ensure!(world.tick()?.is_none(), "nobody else was here");
    ensure!(destinations(world)?.contains(&quiet) && kept.ask()? == "b1", "{:?}", destinations(world)?);
    // The Service itself goes; the connection does not.
    world.set_service("ns/web", None);
    world.apply()?;
    std::thread::sleep(Duration::from_millis(1200));
    world.tick()?;
    ensure!(kept.ask()? == "b1", "the connection ended with its Service");
    let refused = tcp(world.pod("a2"), at(VIP, 80))?;
    ensure!(refused.pod().is_err(), "{refused:?}");
    Ok(())
}

pub(crate) fn udp_flows_move_at_once(world: &mut World) -> anyhow::Result<()> {
    world.serve(service(), &["b1"])?;
    let socket = world.pod("a2").run(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.connect(at(VIP, 80))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let ask = || -> anyhow::Result<String> {
        let mut answer = [0; 64];
        for _ in 0..4 {
            socket.send(b"who?")?;
            if let Ok(length) = socket.recv(&mut answer) {
                return Ok(String::from_utf8_lossy(&answer[..2.min(length)]).into_owned());
            }
        }
        Err(anyhow!("no answer"))
    };
    ensure!(ask()? == "b1", "the only one");
    world.serve(service(), &["b2"])?;
    ensure!(ask().context("after the endpoint was replaced")? == "b2", "the flow stayed");
    Ok(())
}

/// Longer than this nobody may be without an answer. A busy machine takes some of it.
const GAP: Duration = Duration::from_secs(5);

/// Connects again and again; returns how many took so long that a packet must have been sent twice. In a busy machine some do,
/// and a first packet that is repeated just when its endpoint leaves goes to another one.
fn connect_until(end: &AtomicBool, made: &AtomicUsize) -> anyhow::Result<usize> {
    let mut slow = 0;
    while !end.load(Ordering::Relaxed) {
        let start = Instant::now();
        let stream = TcpStream::connect_timeout(&at(VIP, 80), GAP);
        stream.with_context(|| format!("connection {}", made.load(Ordering::Relaxed)))?;
        slow += usize::from(start.elapsed() > Duration::from_millis(900));
        made.fetch_add(1, Ordering::Relaxed);
    }
    Ok(slow)
}

/// Connects from a pod without end while something is done, which is told how many connections were made so far. Returns how many
/// there were in all, and how many of them were slow.
pub(crate) fn connecting_during(
    world: &mut World,
    work: impl FnOnce(&mut World, &AtomicUsize) -> anyhow::Result<()>,
) -> anyhow::Result<(usize, usize)> {
    let (end, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = PathBuf::from("/run/netns").join(world.pod("a2").name());
    let slow = std::thread::scope(|scope| -> anyhow::Result<usize> {
        let connecting = scope.spawn(|| {
            setns(File::open(client)?, CloneFlags::CLONE_NEWNET)?;
            connect_until(&end, &made)
        });
        let result = work(world, &made);
        end.store(true, Ordering::Relaxed);
        let slow = connecting.join().map_err(|_| anyhow!("the client panicked"))??;
        result.map(|()| slow)
    })?;
    Ok((made.into_inner(), slow))
}

pub(crate) fn fifty_updates_refuse_nobody(world: &mut World) -> anyhow::Result<()> {
    const SETS: [&[&str]; 4] = [&["a1"], &["b1", "b2"], &["b2"], &["a1", "b1"]];
    world.serve(service(), SETS[0])?;
    let (made, slow) = connecting_during(world, |world, made| {
        for round in 1..=50 {
            let before = made.load(Ordering::Relaxed);
            world.serve(service(), SETS[round % SETS.len()])?;
            let patience = Instant::now() + Duration::from_secs(5);
            while made.load(Ordering::Relaxed) < before + 4 && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(1));
            }
            ensure!(made.load(Ordering::Relaxed) > before, "no connection for 5 s after update {round}");
        }
        Ok(())
    })?;
    println!("{made} connections during 50 updates; {slow} took more than 900 ms");
    ensure!(made >= 150 && slow <= made / 50, "{made} connections during 50 updates, {slow} of them slow");
    Ok(())
}

pub(crate) fn a_restart_breaks_no_connection(world: &mut World) -> anyhow::Result<()> {
    serve_kept(world, &["a1", "b1"])?;
    let mut kept = Kept::open(world.pod("a2"), at(VIP, 80))?;
    let pod = kept.pod.clone();
    let before = world.node().output("ipvsadm", &["-Sn"])?;
    world.backend = world.node().run(Ipvs::open)??;
    let applied = world.rebuild()??;
    ensure!(applied.messages == 0, "all was there already: {applied:?}");
    ensure!(kept.ask()? == pod, "the connection moved");
    ensure!(world.node().output("ipvsadm", &["-Sn"])? == before, "something changed");
    let seen = probe::pods(world.pod("a2"), Proto::Udp, at(VIP, 80), 1);
    ensure!(seen.is_err(), "this port keeps TCP connections only");
    Ok(())
}
