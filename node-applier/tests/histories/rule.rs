//! A rule of iptables, read from its text.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use rulecast_bundle::Proto;
use rulecast_compiler::model::Prefix;

/// A rule without its chain.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    text: Rc<str>,
    pub(crate) matches: Vec<Match>,
    pub(crate) target: Target,
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Match {
    /// It has to be false.
    pub(crate) not: bool,
    pub(crate) what: What,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    From(Prefix),
    To(Prefix),
    /// The interface, or the beginning of its name.
    Input {
        name: String,
        prefix: bool,
    },
    Proto(Proto),
    /// Destination ports, ends included.
    Ports(u16, u16),
    FromLocal,
    ToLocal,
    /// States of conntrack, separated by commas.
    States(String),
    Mark {
        value: u32,
        mask: u32,
    },
    /// With this probability.
    Chance(f64),
    /// The client is in a set.
    Remembered,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    Jump(Rc<str>),
    Dnat(SocketAddr),
    Mark {
        value: u32,
        mask: u32,
    },
    Masquerade,
    /// The client is in a set from now on; the packet goes on.
    Remember,
    Accept,
    Return,
    Drop,
    Reject,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Rule {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Reads it; what iptables would not understand is an error.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let (mut matches, mut target, mut not) = (Vec::new(), None, false);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} without a value"));
            let what = match word {
                "!" => {
                    not = true;
                    continue;
                }
                // The names of extensions; what they are asked follows.
                "-m" => {
                    value()?;
                    continue;
                }
                "--mode" if value()? == "random" => continue,
                "-s" => What::From(prefix(value()?)?),
                "-d" => What::To(prefix(value()?)?),
                "-i" => {
                    let name = value()?;
                    let prefix = name.ends_with('+');
                    What::Input { name: name.trim_end_matches('+').to_owned(), prefix }
                }
                "-p" => What::Proto(proto(value()?)?),
                "--dport" => {
                    let ports = value()?;
                    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
                    What::Ports(number(first)?, number(last)?)
                }
                "--dst-type" if value()? == "LOCAL" => What::ToLocal,
                "--src-type" if value()? == "LOCAL" => What::FromLocal,
                "--ctstate" => What::States(value()?.to_owned()),
                "--mark" => {
                    let (value, mask) = mark(value()?)?;
                    What::Mark { value, mask }
                }
                "--probability" => What::Chance(number(value()?)?),
                "--match-set" => {
                    value()?;
                    if value()? != "src" {
                        return Err("a set of something else than clients".to_owned());
                    }
                    What::Remembered
                }
                "-j" => {
                    target = Some(read_target(value()?, &mut words)?);
                    continue;
                }
                other => return Err(format!("what is {other}?")),
            };
            matches.push(Match { not: std::mem::take(&mut not), what });
        }
        Ok(Self { text: text.into(), matches, target: target.ok_or("no target")? })
    }
}

fn read_target<'t>(name: &str, words: &mut impl Iterator<Item = &'t str>) -> Result<Target, String> {
    let rest: Vec<&str> = words.collect();
    Ok(match (name, &rest[..]) {
        ("DNAT", ["--to-destination", to]) => Target::Dnat(number(to)?),
        ("MARK", ["--set-xmark", to]) => {
            let (value, mask) = mark(to)?;
            Target::Mark { value, mask }
        }
        ("SET", ["--add-set", _, "src", "--exist", "--timeout", _]) => Target::Remember,
        ("MASQUERADE", ["--random-fully"]) => Target::Masquerade,
        ("REJECT", ["--reject-with", "icmp-port-unreachable" | "icmp6-port-unreachable"]) => Target::Reject,
        ("ACCEPT", []) => Target::Accept,
        ("RETURN", []) => Target::Return,
        ("DROP", []) => Target::Drop,
        (chain, []) => Target::Jump(chain.into()),
        other => return Err(format!("what is {other:?}?")),
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("what is {text}?"))
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let (addr, len) = text.split_once('/').ok_or("no prefix")?;
    Ok((number::<IpAddr>(addr)?, number(len)?))
}

fn proto(text: &str) -> Result<Proto, String> {
    match text {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        "sctp" => Ok(Proto::Sctp),
        other => Err(format!("no protocol {other}")),
    }
}

fn mark(text: &str) -> Result<(u32, u32), String> {
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").ok_or("no hexadecimal number")?;
        u32::from_str_radix(digits, 16).map_err(|e| e.to_string())
    };
    let (value, mask) = text.split_once('/').ok_or("no mask")?;
    Ok((hex(value)?, hex(mask)?))
}
