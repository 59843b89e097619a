//! What the compiler needs for a whole cluster and for one change.

use std::time::Instant;

use anyhow::Result;
use rulecast_bundle::Mode;
use rulecast_compiler::Compiler;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, POOL, Size};
use crate::control::{Changes, Kind};
use crate::memory;
use crate::report::Row;

/// Changes that are timed, of each kind.
const CHANGES: u32 = 25;

/// What one process measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sample {
    full_ms: f64,
    peak_mb: f64,
    change_us: Vec<f64>,
}

/// Measures in this process, which should have done nothing else.
pub fn measure(size: Size, mode: Mode) -> Result<Sample> {
    let cluster = Cluster::new(size)?.with_mode(mode);
    let mut compiler = Compiler::default();
    let fed = cluster.feed(&mut compiler);
    let start = Instant::now();
    compiler.compile();
    let first = compiler.pool_mut(POOL).expect("the cluster's pool").take_changes();
    let full_ms = (fed + start.elapsed()).as_secs_f64() * 1e3;
    let peak_mb = memory::of("self")?.peak;
    drop(first);
    let (mut changes, mut change_us) = (Changes::default(), Vec::new());
    for kind in [Kind::Replace, Kind::Count].repeat(CHANGES as usize) {
        let (name, slice) = changes.next(&cluster, kind);
        let start = Instant::now();
        compiler.set_slice(&name, Some(slice));
        compiler.compile();
        let taken = compiler.pool_mut(POOL).expect("the cluster's pool").take_changes();
        change_us.push(start.elapsed().as_secs_f64() * 1e6);
        anyhow::ensure!((1..=2).contains(&taken.len()), "one change came to {} records", taken.len());
    }
    Ok(Sample { full_ms, peak_mb, change_us })
}

/// Puts the samples of several processes together.
#[must_use]
pub fn summarize(size: Size, mode: Mode, samples: &[Sample]) -> Row {
    let mut row = Row::new("compile", mode, size);
    let all = |f: fn(&Sample) -> f64| samples.iter().map(f).collect::<Vec<_>>();
    row.full("full_ms", "everything, from inputs to records", &all(|s| s.full_ms));
    row.full("peak_mb", "peak resident memory after it", &all(|s| s.peak_mb));
    let changes: Vec<_> = samples.iter().flat_map(|s| s.change_us.clone()).collect();
    row.change("change_us", "one endpoint replaced, removed or added", &changes);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_is_measured() {
        let size = Size { services: 20, endpoints: 3 };
        let sample = measure(size, Mode::Nftables).unwrap();
        assert_eq!(sample.change_us.len(), 50);
        let row = summarize(size, Mode::Nftables, &[sample]);
        assert_eq!(
            row.metrics.iter().map(|m| m.key).collect::<Vec<_>>(),
            ["full_ms", "peak_mb", "change_us"]
        );
        assert!(row.metrics.iter().all(|m| m.summary.median > 0.0));
    }
}
