//! The guard against a shape that seems to have lost the cluster's Services.

use rulecast_bundle::Digest;

/// Below this many Services any number may go.
const FEW: usize = 10;
/// The share of the Services that may go at once, in percent.
const PERCENT: usize = 20;

/// A shape that would lose too many Services. It does not go live until it is approved or they are back; endpoints follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "pool {pool}: {after} Services would be left of {}; if that is right, approve this shape: kubectl patch rulepool {pool} \
     --type merge -p '{{\"spec\":{{\"approved\":{{\"revision\":null,\"digest\":\"{digest}\"}}}}}}', or run the controller with \
     --allow-shrink",
    before.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string())
)]
pub struct Shrink {
    /// The pool.
    pub pool: String,
    /// How many Services are published; unknown when that cannot be read.
    pub before: Option<usize>,
    /// How many would be left.
    pub after: usize,
    /// The digest of that shape.
    pub digest: Digest,
}

impl Shrink {
    pub(super) fn check(pool: &str, before: Option<usize>, after: usize, digest: Digest) -> Result<(), Self> {
        let refused = match before {
            None => after == 0,
            Some(before) => {
                before > 0 && after == 0 || before > FEW && after * 100 < before * (100 - PERCENT)
            }
        };
        if refused { Err(Self { pool: pool.to_owned(), before, after, digest }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_the_empty_and_the_sharply_smaller() {
        for (before, after, refused) in [
            (Some(0), 0, false),
            (Some(1), 0, true),
            (Some(10), 1, false),
            (Some(11), 8, true),
            (Some(11), 9, false),
            (Some(100), 80, false),
            (Some(100), 79, true),
            (Some(100), 200, false),
            (None, 0, true),
            (None, 1, false),
        ] {
            let result = Shrink::check("p", before, after, Digest::default());
            assert_eq!(result.is_err(), refused, "{before:?} -> {after}");
        }
        let text = Shrink::check("p", Some(20), 1, Digest::default()).unwrap_err().to_string();
        assert!(
            text.contains(
                r#"{"spec":{"approved":{"revision":null,"digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAA"}}}"#
            ),
            "{text}"
        );
    }
}
