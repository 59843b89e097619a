//! How connections are shared out among endpoints.

use anyhow::ensure;
use rulecast_tests::probe::Proto;
use serde_json::json;

use crate::fixture::{Fixture, vips};
use crate::probes::{Probe, Source, run_both};
use crate::targets;
use crate::worlds::Worlds;

const NAME: &str = "shared-out";
const CONNECTIONS: usize = 240;
/// Of 240 connections to four endpoints each gets 60, give or take 7: fewer than 25 happen once in a million tests.
const LEAST: u32 = 25;

pub(crate) fn are_even(worlds: &mut Worlds) -> anyhow::Result<()> {
    worlds.clear()?;
    let fixture = Fixture::new(NAME, "LoadBalancer", 30_012, &json!({})).at(&vips(113));
    worlds.set(&fixture.slices(&worlds.peer.network, &["a1", "a2", "b1", "b2"]))?;
    worlds.settle()?;
    let mut probes: Vec<Probe> = Vec::new();
    for service in worlds.services()?.iter().filter(|s| s["metadata"]["name"] == NAME) {
        probes.extend(targets::of_service(&worlds.peer, service));
    }
    probes.retain(|p| {
        let at_primary = !p.target.what.contains("second") && !p.target.what.contains("loopback");
        at_primary && p.target.proto == Proto::Udp && [Source::Client, Source::Pod("a3")].contains(&p.source)
    });
    let outcomes = run_both(worlds.both(), &probes, CONNECTIONS)?;
    for (world, outcomes) in worlds.both().into_iter().zip(&outcomes) {
        for (probe, outcome) in probes.iter().zip(outcomes) {
            let counts = outcome.counts();
            let even = counts.len() == 4 && counts.values().all(|count| *count >= LEAST);
            ensure!(even, "{}: {probe}: {outcome}", world.proxy);
        }
    }
    worlds.delete(NAME)
}
