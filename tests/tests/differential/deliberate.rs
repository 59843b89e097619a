//! Where rulecast differs from kube-proxy on purpose.

use crate::outcome::Outcome;
use crate::probes::Probe;
use crate::worlds::Worlds;

/// A deliberate difference.
struct Deliberate {
    /// Why rulecast does it in another way.
    reason: &'static str,
    /// Whether this is it: the probe, kube-proxy's outcome, rulecast's.
    is: fn(&Worlds, &Probe, &Outcome, &Outcome) -> bool,
}

const ALL: &[Deliberate] = &[];

/// Why a difference is meant to be; nothing if it is not.
pub(crate) fn reason(worlds: &Worlds, probe: &Probe, peer: &Outcome, ours: &Outcome) -> Option<&'static str> {
    ALL.iter().find(|d| (d.is)(worlds, probe, peer, ours)).map(|d| d.reason)
}
