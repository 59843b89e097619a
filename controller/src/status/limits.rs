//! How near a bundle is to what the format holds.

use std::fmt;

use rulecast_bundle::MAX_CHECKPOINT;
use rulecast_bundle::frame::MAX_RECORDS;
use rulecast_compiler::PoolBundle;

use crate::publisher::Published;

/// From this share of a limit on, in percent, it is time to say so: there is room to act.
const NEAR: usize = 80;

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    /// A word for metrics.
    pub(crate) name: &'static str,
    what: &'static str,
    pub(crate) used: usize,
    pub(crate) limit: usize,
}

impl Use {
    pub(crate) fn is_near(&self) -> bool {
        self.used >= self.limit / 100 * NEAR
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, used, limit, .. } = self;
        let percent = used.saturating_mul(100) / limit;
        write!(
            f,
            "{used} {what} of at most {limit} ({percent} %): divide the cluster, or its Services by pool"
        )
    }
}

/// What is used by a pool.
pub(crate) fn uses(bundle: &PoolBundle, published: Option<&Published>) -> Vec<Use> {
    let records = Use { name: "records", what: "records", used: bundle.bundle().len(), limit: MAX_RECORDS };
    let checkpoint = published.map(|published| Use {
        name: "checkpoint",
        what: "bytes of a checkpoint before compression",
        used: published.checkpoint_raw_bytes(),
        limit: MAX_CHECKPOINT,
    });
    std::iter::once(records).chain(checkpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_are_near() {
        let of = |used| Use { name: "", what: "apples", used, limit: 1000 };
        assert!(!of(799).is_near() && of(800).is_near() && of(2000).is_near());
        assert!(of(800).to_string().starts_with("800 apples of at most 1000 (80 %)"));
    }
}
