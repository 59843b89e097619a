//! Median, minimum, maximum and percentiles: machines are noisy, and a mean believes every hiccup.

/// What repeated measurements come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarizes; none when there is nothing to summarize.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max })
    }
}

/// The value that so many percent of the samples are not above. They must be sorted, and there must be one.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(samples: &[f64]) -> (f64, f64, f64) {
        let s = Summary::of(samples).unwrap();
        (s.median, s.min, s.max)
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(summary(&[5.0, 1.0, 3.0]), (3.0, 1.0, 5.0));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0));
        assert_eq!(summary(&[7.0]), (7.0, 7.0, 7.0));
    }

    #[test]
    fn one_hiccup_moves_the_maximum_only() {
        assert_eq!(summary(&[1.0, 1.0, 1.0, 1.0, 900.0]), (1.0, 1.0, 900.0));
    }

    #[test]
    fn percentiles_are_samples() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (100.0, 198.0));
        assert_eq!((percentile(&[7.0], 50), percentile(&[7.0], 99)), (7.0, 7.0));
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }
}
