//! Random histories: Services that nobody would think of, and changes that nobody would make, compared after each round.
//!
//! The seed is printed; `RULECAST_SEED=N` begins with that history.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rulecast_tests::probe::Proto;

use crate::compare::compare;
use crate::generator::Model;
use crate::matrix::write;
use crate::probes::{Probe, Source};
use crate::random::Random;
use crate::targets;
use crate::worlds::Worlds;

/// No history is begun after this time.
const TIME: Duration = Duration::from_secs(50);
const SERVICES: u8 = 12;
const ROUNDS: usize = 4;
const SEED: &str = "RULECAST_SEED";

pub(crate) fn end_alike(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, TIME)
}

/// One history only.
pub(crate) fn one_ends_alike(worlds: &mut Worlds) -> anyhow::Result<()> {
    run(worlds, Duration::ZERO)
}

/// At least one, and more until that time has passed.
fn run(worlds: &mut Worlds, time: Duration) -> anyhow::Result<()> {
    worlds.clear()?;
    let given = std::env::var(SEED).ok().map(|text| text.parse::<u64>().context(SEED)).transpose()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut seed = given.unwrap_or(now % 1_000_000 * 1000);
    let end = Instant::now() + time;
    let mut histories = 0;
    while histories == 0 || (given.is_none() && Instant::now() < end) {
        history(worlds, seed).with_context(|| format!("with {SEED}={seed}"))?;
        histories += 1;
        seed += 1;
    }
    println!("  {histories} histories; the last one's seed is {}", seed - 1);
    Ok(())
}

fn history(worlds: &mut Worlds, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut models: Vec<Model> = (0..SERVICES).map(Model::new).collect();
    remove(worlds, &models)?;
    let mut probes: Vec<Probe> = Vec::new();
    for round in 0..ROUNDS {
        let before = models.clone();
        for model in &mut models {
            if !model.exists() || random.once_in(2) {
                model.change(&mut random);
            }
        }
        make(worlds, &before, &models)?;
        worlds.settle()?;
        for service in worlds.services()? {
            if models.iter().any(|model| service["metadata"]["name"] == model.name()) {
                add(&mut probes, targets::of_service(&worlds.peer, &service));
            }
        }
        let words = || models.iter().map(|model| format!("  {model}")).collect::<Vec<_>>().join("\n");
        compare(worlds, &probes)?
            .check(worlds)
            .with_context(|| format!("in round {round} of\n{}", words()))?;
    }
    // Their addresses may be those of other scenarios' Services.
    remove(worlds, &models)
}

fn remove(worlds: &mut Worlds, models: &[Model]) -> anyhow::Result<()> {
    let names: Vec<String> = models.iter().map(Model::name).collect();
    worlds.delete_all(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Makes the objects what the models say.
fn make(worlds: &mut Worlds, before: &[Model], now: &[Model]) -> anyhow::Result<()> {
    let mut fixtures = Vec::new();
    for (old, new) in before.iter().zip(now).filter(|(old, new)| old != new) {
        let network = &worlds.peer.network;
        let (old, new_fixture) = (old.fixture(network), new.fixture(network));
        if !new.exists() {
            worlds.delete(&new.name())?;
            continue;
        }
        let names = |slices: &[serde_json::Value]| {
            slices
                .iter()
                .filter_map(|s| s["metadata"]["name"].as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let kept = names(&new_fixture.slices);
        for name in names(&old.slices).iter().filter(|name| !kept.contains(name)) {
            worlds.delete_slice(name)?;
        }
        fixtures.push(new_fixture);
    }
    write(worlds, &fixtures)
}

fn add(probes: &mut Vec<Probe>, more: Vec<Probe>) {
    for probe in more {
        // A Service may have become sticky, or no more, since.
        probes.retain(|p| {
            p.source != probe.source || p.target.to != probe.target.to || p.target.proto != probe.target.proto
        });
        let quick = probe.target.proto == Proto::Udp || probe.source == Source::Client;
        if quick && probe.source != Source::Node(1) {
            probes.push(probe);
        }
    }
}
