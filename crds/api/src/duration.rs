//! Durations as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in Go's notation, such as `100ms`, `1.5s` or `24h0m0s`; never negative.
///
/// `kube::core::Duration` reads the same notation, but panics on numbers that overflow, and what is read here may come
/// from a directory of manifests that no API server has validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(StdDuration);

/// A text that is not a [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDuration(String);

impl Duration {
    const MAX_TEXT: usize = 32;
    const PATTERN: &str = r"^(0|([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|ms|s|m|h))+)$";

    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(StdDuration::from_millis(millis))
    }

    /// The value, for computing with it.
    #[must_use]
    pub const fn get(self) -> StdDuration {
        self.0
    }
}

impl From<StdDuration> for Duration {
    fn from(value: StdDuration) -> Self {
        Self(value)
    }
}

/// Splits `text` after its leading decimal digits.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// Reads one `NUMBER UNIT` off the front of `text`: its nanoseconds, and what follows.
fn component(text: &str) -> Option<(u128, &str)> {
    const UNITS: [(&str, u128); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("0", rest),
    };
    if !(1..=9).contains(&whole.len()) || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    // "ms" stands before "m" and "s" in the table, so the first match is the longest.
    let (rest, unit) = UNITS.iter().find_map(|(name, unit)| Some((rest.strip_prefix(name)?, *unit)))?;
    let whole: u128 = whole.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = fraction.parse().ok()?;
    Some((whole * unit + fraction * unit / scale, rest))
}

impl FromStr for Duration {
    type Err = BadDuration;

    fn from_str(text: &str) -> Result<Self, BadDuration> {
        let bad = || BadDuration(text.chars().take(40).collect());
        if text == "0" {
            return Ok(Self::default());
        }
        if text.is_empty() || text.len() > Self::MAX_TEXT {
            return Err(bad());
        }
        let (mut total, mut rest) = (0_u128, text);
        while !rest.is_empty() {
            let (nanos, after) = component(rest).ok_or_else(bad)?;
            total += nanos;
            rest = after;
        }
        let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| bad())?;
        let nanos = u32::try_from(total % 1_000_000_000).map_err(|_| bad())?;
        Ok(Self(StdDuration::new(seconds, nanos)))
    }
}

impl fmt::Display for Duration {
    /// The shortest exact form: `24h`, `1m30s`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        // Hours are written in parts that fit the pattern; nothing real needs the second one.
        let mut hours = seconds / 3600;
        while hours > 0 {
            let part = hours.min(999_999_999);
            write!(f, "{part}h")?;
            hours -= part;
        }
        for (value, unit) in [(seconds / 60 % 60, "m"), (seconds % 60, "s")] {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        match nanos {
            0 => Ok(()),
            n if n % 1_000_000 == 0 => write!(f, "{}ms", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{}us", n / 1_000),
            n => write!(f, "{n}ns"),
        }
    }
}

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration such as \"100ms\", \"1.5s\" or \"24h0m0s\"", self.0)
    }
}

impl std::error::Error for BadDuration {}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "maxLength": Self::MAX_TEXT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes_and_prints_it_short() {
        for (text, millis, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("100ms", 100, "100ms"),
            ("1.5s", 1_500, "1s500ms"),
            ("24h0m0s", 86_400_000, "24h"),
            ("1h1m1s", 3_661_000, "1h1m1s"),
            ("90s", 90_000, "1m30s"),
            ("0.5h", 1_800_000, "30m"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), printed);
            assert_eq!(printed.parse::<Duration>().unwrap(), duration);
        }
        assert_eq!("1500us7ns".parse::<Duration>().unwrap().to_string(), "1500007ns");
    }

    #[test]
    fn refuses_what_it_cannot_hold_without_a_panic() {
        let long = "1h".repeat(17);
        for bad in [
            "",
            "1",
            "s",
            "-1s",
            "+1s",
            "1 s",
            "1s ",
            "1d",
            ".5s",
            "1.s",
            "1e3s",
            "1µs",
            "9999999999h",
            &long,
        ] {
            assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
        }
        // The largest text that is allowed.
        let longest = "999999999.9h".repeat(2) + "9999h";
        assert_eq!(longest.parse::<Duration>().unwrap().get().as_secs() / 3600, 1_999_999_999 + 9_999);
    }
}
