//! Comparing the worlds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rulecast_tests::uml;

use crate::deliberate;
use crate::outcome::Outcome;
use crate::probes::{Probe, run_both};
use crate::worlds::Worlds;

/// How long the worlds may take to agree.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often a probe is repeated at least: a pod may be missed by chance once, but not again and again.
const ROUNDS: u32 = 4;
const LEAST: usize = 4;
/// The same in user-mode Linux, where a connection takes some milliseconds.
const LEAST_INSIDE: usize = 2;
/// The same when a probe is repeated.
const LEAST_AGAIN: usize = 16;
/// Of each Service.
const SHOWN: usize = 6;

/// A difference that remained.
pub(crate) struct Difference {
    /// The probe.
    pub(crate) probe: Probe,
    /// What kube-proxy did.
    pub(crate) peer: Outcome,
    /// What rulecast did.
    pub(crate) ours: Outcome,
}

/// What became of all probes.
pub(crate) struct Comparison {
    /// kube-proxy's outcomes, in the order of the probes.
    pub(crate) peer: Vec<Outcome>,
    /// Where rulecast does something else, and should not.
    pub(crate) differences: Vec<Difference>,
    /// How many differences are meant to be.
    pub(crate) deliberate: usize,
}

/// Makes the probes in both worlds; those that differ are repeated until they agree or have had their time.
pub(crate) fn compare(worlds: &Worlds, probes: &[Probe]) -> anyhow::Result<Comparison> {
    compare_for(worlds, probes, PATIENCE)
}

/// The same with this much time.
pub(crate) fn compare_for(
    worlds: &Worlds,
    probes: &[Probe],
    patience: Duration,
) -> anyhow::Result<Comparison> {
    let least = if uml::is_inside() { LEAST_INSIDE } else { LEAST };
    let [mut peer, mut ours] = run_both(worlds.both(), probes, least)?;
    let end = Instant::now() + patience;
    let (mut rounds, mut deliberate) = (0, 0);
    loop {
        let mut differing: Vec<usize> = (0..probes.len()).filter(|i| !peer[*i].agrees(&ours[*i])).collect();
        let is_last = Instant::now() >= end && rounds >= ROUNDS;
        // In user-mode Linux what was seen twice is enough.
        if is_last || (uml::is_inside() && rounds > 0) {
            let all = differing.len();
            differing.retain(|i| deliberate::reason(worlds, &probes[*i], &peer[*i], &ours[*i]).is_none());
            deliberate = all - differing.len();
        }
        if differing.is_empty() || is_last {
            let difference = |i: usize| {
                let (probe, peer, ours) = (probes[i].clone(), peer[i].clone(), ours[i].clone());
                Difference { probe, peer, ours }
            };
            let differences = differing.into_iter().map(difference).collect();
            return Ok(Comparison { peer, differences, deliberate });
        }
        rounds += 1;
        sleep(Duration::from_millis(300));
        let again: Vec<Probe> = differing.iter().map(|i| probes[*i].clone()).collect();
        let [peer_again, ours_again] = run_both(worlds.both(), &again, LEAST_AGAIN)?;
        for ((i, p), o) in differing.into_iter().zip(peer_again).zip(ours_again) {
            (peer[i], ours[i]) = (p, o);
        }
    }
}

impl Comparison {
    /// Fails with everything that differs.
    pub(crate) fn check(&self, worlds: &Worlds) -> anyhow::Result<()> {
        if self.differences.is_empty() {
            return Ok(());
        }
        let mut text = format!(
            "{} of {} probes differ with the configuration {:?}:\n",
            self.differences.len(),
            self.peer.len(),
            worlds.config.name,
        );
        let mut shown = BTreeMap::<&str, usize>::new();
        for Difference { probe, peer, ours } in &self.differences {
            let count = shown.entry(&probe.target.fixture).or_default();
            *count += 1;
            if *count <= SHOWN {
                let [of_peer, of_ours] = worlds.both().map(|world| world.proxy);
                writeln!(text, "  {probe}\n    {of_peer}: {peer}\n    {of_ours}: {ours}")?;
            }
        }
        for (fixture, count) in shown {
            writeln!(text, "  {count} in all of {fixture}")?;
        }
        anyhow::bail!(text)
    }
}
