//! What travels: the bytes of a checkpoint and of one change.

use std::time::Instant;

use anyhow::Result;
use rulecast_bundle::Mode;

use crate::cluster::{Cluster, Size};
use crate::control::{Control, Kind, Version};
use crate::report::Row;

/// Changes that are published, of each kind.
const CHANGES: u32 = 50;
/// Changes in a coalesced delta: those of a second at the rate that the targets are for.
const COALESCED: u32 = 20;

/// Measures. The bytes are the same every time; the time that a checkpoint takes is not.
pub fn run(size: Size, mode: Mode, repeat: u32) -> Result<Row> {
    let mut control = Control::new(Cluster::new(size)?.with_mode(mode));
    let (mut bytes, mut raw, mut ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeat {
        let start = Instant::now();
        let checkpoint = control.checkpoint();
        ms.push(start.elapsed().as_secs_f64() * 1e3);
        bytes.push(float(checkpoint.size()));
        raw.push(float(checkpoint.index.raw_size));
    }
    // Right after a checkpoint a delta does not name the one before: it would be 20 bytes shorter than usual.
    let _unusual = control.publish(Kind::Replace, 1);
    let versions = |control: &mut Control, kind, n| -> Vec<Version> {
        (0..CHANGES).map(|_| control.publish(kind, n)).collect()
    };
    let replaced = versions(&mut control, Kind::Replace, 1);
    let counted = versions(&mut control, Kind::Count, 1);
    let coalesced = versions(&mut control, Kind::Replace, COALESCED);
    let delta = |versions: &[Version]| versions.iter().map(|v| float(v.delta.len())).collect::<Vec<_>>();
    let event = |versions: &[Version]| -> Result<Vec<f64>> {
        versions.iter().map(|v| Ok(float(serde_json::to_vec(&v.head)?.len()))).collect()
    };
    let each: Vec<_> = delta(&coalesced).iter().map(|bytes| bytes / f64::from(COALESCED)).collect();

    let mut row = Row::new("wire", mode, size);
    row.full("checkpoint_bytes", "checkpoint", &bytes);
    row.full("checkpoint_raw_bytes", "checkpoint before compression", &raw);
    row.full("checkpoint_ms", "encoding a checkpoint", &ms);
    row.change("change_bytes", "delta, one endpoint replaced", &delta(&replaced));
    row.change("count_change_bytes", "delta, one endpoint removed or added", &delta(&counted));
    row.change("event_bytes", "head with the delta inline, one replaced", &event(&replaced)?);
    row.change("coalesced_change_bytes", "delta of 20 replaced, each", &each);
    row.change("coalesced_event_bytes", "head with the delta inline, 20 replaced", &event(&coalesced)?);
    Ok(row)
}

fn float(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).expect("a checkpoint is bounded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_is_measured() {
        let row = run(Size { services: 100, endpoints: 3 }, Mode::Nftables, 3).unwrap();
        let median = |key| row.metrics.iter().find(|m| m.key == key).unwrap().summary.median;
        assert!(median("checkpoint_bytes") < median("checkpoint_raw_bytes"));
        assert!(median("coalesced_change_bytes") < median("change_bytes"));
        assert!(median("change_bytes") < median("event_bytes"));
    }
}
