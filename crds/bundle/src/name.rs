//! The fixed words that name tables, chains, sets and maps in the kernel.

use std::fmt;
use std::net::IpAddr;

use crate::Proto;

/// A kernel object's name: 1 to 31 characters of `a-z`, `0-9` and `-`, beginning with a letter.
///
/// The type is the proof that no user-given string reaches the kernel: there is no way to build one from a
/// Service's name, label or annotation that does not pass this check, and the compiler only ever uses its own
/// words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// A string that is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kernel name: 1 to 31 characters of a-z, 0-9 and '-', beginning with a letter")]
pub struct BadName(pub String);

impl Name {
    /// The longest name, in bytes; chains made from a prefix and a number stay below it (see [`Name::numbered`]).
    pub const MAX: usize = 31;

    /// Checks `text` and keeps it.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let letter_first = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        let charset = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if letter_first && charset && text.len() <= Self::MAX {
            Ok(Self(text.into()))
        } else {
            Err(BadName(text.chars().take(40).collect()))
        }
    }

    /// The chain `PREFIX-NUMBER`, such as `lb-3`. May be up to 11 characters longer than [`Name::MAX`].
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        Self(format!("{}-{number}", self.0).into())
    }

    /// The name of a Service port's own object: `sticky` makes `sticky-tcp-10.96.0.1-80`. nft has no `:` in names, so it is
    /// a `.` in IPv6 addresses.
    #[must_use]
    pub fn of_port(&self, proto: Proto, addr: IpAddr, port: u16) -> Self {
        let proto = match proto {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        };
        Self(format!("{}-{proto}-{}-{port}", self.0, addr.to_string().replace(':', ".")).into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name that is written in this repository and therefore known to be good.
///
/// # Panics
/// When it is not: a mistake in the source, found by the first test that touches it.
#[must_use]
pub fn name(word: &'static str) -> Name {
    Name::new(word).expect("a name in the source is a valid kernel name")
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_fixed_words_only() {
        for good in ["lb", "service-ips", "a", "x9"] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "9a", "Lb", "a b", "a;drop", "a\n", "-a", "ä", &"a".repeat(32)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name("lb").numbered(12).as_str(), "lb-12");
        let port = |addr: &str| name("sticky").of_port(Proto::Tcp, addr.parse().unwrap(), 80).to_string();
        assert_eq!(port("10.96.0.1"), "sticky-tcp-10.96.0.1-80");
        assert_eq!(port("fd00::1"), "sticky-tcp-fd00..1-80");
    }
}
