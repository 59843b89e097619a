//! Rules in the words of `nft list ruleset` (nft 1.0.6 and later).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{ChainKind, Data, Family, Field, Hook, HookPoint, Rule, SetDef, Statement};

/// What a rule takes from its chain, in words.
#[derive(Debug, Clone, Copy)]
pub struct RuleWords<'a> {
    /// The number of members that [`Field::RandomIndex`] chooses from.
    pub members: &'a str,
    /// How long [`Statement::Remember`] remembers, such as `3h`; see [`duration`].
    pub timeout: &'a str,
}

impl RuleWords<'static> {
    /// Those of a rule that stands for many chains.
    pub const ANY: Self = Self { members: "N", timeout: "TIMEOUT" };
}

/// One rule.
#[must_use]
pub fn rule(rule: &Rule, family: Family, words: RuleWords<'_>) -> String {
    let statements: Vec<String> = rule.iter().map(|s| statement(s, family, words)).collect();
    statements.join(" ")
}

fn statement(statement: &Statement, family: Family, words: RuleWords<'_>) -> String {
    let not = |negate: bool| if negate { "!= " } else { "" };
    let keys = |fields: &[Field]| concatenation(fields, |f| field(f, family, words.members));
    match statement {
        Statement::InPrefix { field: of, negate, addr, len } => {
            format!("{} {}{}", field(*of, family, ""), not(*negate), prefix(*addr, *len))
        }
        Statement::IsLocal { field, negate } => {
            let side = if *field == Field::SourceAddr { "saddr" } else { "daddr" };
            format!("fib {side} type {}local", not(*negate))
        }
        Statement::FromPods { negate } => format!("{} saddr {}$POD_CIDRS", word(family), not(*negate)),
        Statement::InputInterface { name, prefix, negate } => {
            format!("iifname {}\"{name}{}\"", not(*negate), if *prefix { "*" } else { "" })
        }
        Statement::StateNew => "ct state new".to_owned(),
        Statement::StatusDnat => "ct status dnat".to_owned(),
        Statement::InSet { key, set, negate } => format!("{} {}@{set}", keys(key), not(*negate)),
        Statement::VerdictMap { key, map } => format!("{} vmap @{map}", keys(key)),
        Statement::Dnat { key, map } => format!("dnat {} to {} map @{map}", word(family), keys(key)),
        Statement::Remember { key, data, map } => {
            format!("update @{map} {{ {} timeout {} : {} }}", keys(key), words.timeout, keys(data))
        }
        Statement::MarkIs { bits, set } => {
            format!("meta mark & {bits:#010x} {} 0x00000000", if *set { "!=" } else { "==" })
        }
        Statement::MarkOr(bits) => format!("meta mark set meta mark | {bits:#010x}"),
        Statement::MarkXor(bits) => format!("meta mark set meta mark ^ {bits:#010x}"),
        Statement::Masquerade => "masquerade fully-random".to_owned(),
        Statement::Reject => "reject".to_owned(),
        Statement::Drop => "drop".to_owned(),
        Statement::Accept => "accept".to_owned(),
        Statement::Return => "return".to_owned(),
        Statement::Jump(chain) => format!("jump {chain}"),
        Statement::Goto(chain) => format!("goto {chain}"),
    }
}

/// The family's word: `ip` or `ip6`.
#[must_use]
pub fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// A prefix; one that is a whole address is written as that.
#[must_use]
pub fn prefix(addr: IpAddr, len: u8) -> String {
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    if len == whole { addr.to_string() } else { format!("{addr}/{len}") }
}

/// Seconds as nft writes them: `1d2h3m4s`, without what is 0.
#[must_use]
pub fn duration(seconds: u32) -> String {
    let mut text = String::new();
    let mut rest = seconds;
    for (unit, letter) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        if rest >= unit {
            let _ = write!(text, "{}{letter}", rest / unit);
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What a set or map holds: the line that begins with `type`, or with `typeof` where nft has no word for the type.
#[must_use]
pub fn set_type(set: &SetDef, family: Family) -> String {
    let typeof_ = set.key.contains(&Field::RandomIndex);
    let fields = |fields: &[Field]| {
        let one = |f| if typeof_ { field(f, family, "65536") } else { field_type(f, family).to_owned() };
        concatenation(fields, one)
    };
    let data = match &set.data {
        Data::None => String::new(),
        Data::Verdict => " : verdict".to_owned(),
        Data::Fields(data) => format!(" : {}", fields(data)),
    };
    format!("{} {}{data}", if typeof_ { "typeof" } else { "type" }, fields(&set.key))
}

/// A set's flags, without the word before them; none: it has none.
#[must_use]
pub fn set_flags(set: &SetDef) -> Option<&'static str> {
    match (set.interval, set.dynamic) {
        (false, false) => None,
        (true, false) => Some("interval"),
        (false, true) => Some("dynamic,timeout"),
        (true, true) => Some("interval,dynamic,timeout"),
    }
}

/// The line of a base chain that says what it is.
#[must_use]
pub fn hook(hook: Hook) -> String {
    let kind = match hook.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let point = match hook.point {
        HookPoint::Prerouting => "prerouting",
        HookPoint::Input => "input",
        HookPoint::Forward => "forward",
        HookPoint::Output => "output",
        HookPoint::Postrouting => "postrouting",
    };
    format!("type {kind} hook {point} priority {}; policy accept;", priority(hook))
}

/// nft has names for some priorities, and writes what is less than 10 away as a sum. Those of address translation are
/// names where it happens only.
fn priority(hook: Hook) -> String {
    let names = [
        (-300, "raw", None),
        (-150, "mangle", None),
        (-100, "dstnat", Some(HookPoint::Prerouting)),
        (0, "filter", None),
        (50, "security", None),
        (100, "srcnat", Some(HookPoint::Postrouting)),
    ];
    for (value, name, only) in names {
        let away = hook.priority.saturating_sub(value);
        if away.abs() >= 10 || only.is_some_and(|point| point != hook.point) {
            continue;
        }
        return match away {
            0 => name.to_owned(),
            more if more > 0 => format!("{name} + {more}"),
            less => format!("{name} - {}", less.abs()),
        };
    }
    hook.priority.to_string()
}

fn concatenation(fields: &[Field], text: impl Fn(Field) -> String) -> String {
    fields.iter().map(|f| text(*f)).collect::<Vec<_>>().join(" . ")
}

fn field(field: Field, family: Family, members: &str) -> String {
    let ip = word(family);
    match field {
        Field::SourceAddr => format!("{ip} saddr"),
        Field::DestAddr => format!("{ip} daddr"),
        Field::Proto => "meta l4proto".to_owned(),
        Field::DestPort => "th dport".to_owned(),
        Field::OriginalDestAddr => format!("ct original {ip} daddr"),
        Field::OriginalDestPort => "ct original proto-dst".to_owned(),
        Field::RandomIndex => format!("numgen random mod {members}"),
    }
}

fn field_type(field: Field, family: Family) -> &'static str {
    match (field, family) {
        (Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr, Family::V4) => "ipv4_addr",
        (Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr, Family::V6) => "ipv6_addr",
        (Field::Proto, _) => "inet_proto",
        (Field::DestPort | Field::OriginalDestPort, _) => "inet_service",
        (Field::RandomIndex, _) => "mark",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn durations_are_nfts() {
        for (seconds, text) in [
            (0, "0s"),
            (1, "1s"),
            (60, "1m"),
            (90, "1m30s"),
            (10_800, "3h"),
            (86_400, "1d"),
            (90_061, "1d1h1m1s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn priorities_have_names_where_nft_has_them() {
        let text = |kind, point, priority| hook(Hook { kind, point, priority });
        let (nat, filter) = (ChainKind::Nat, ChainKind::Filter);
        for (line, wanted) in [
            (text(nat, HookPoint::Prerouting, -100), "type nat hook prerouting priority dstnat;"),
            (text(nat, HookPoint::Output, -100), "type nat hook output priority -100;"),
            (text(filter, HookPoint::Prerouting, -99), "type filter hook prerouting priority dstnat + 1;"),
            (text(filter, HookPoint::Input, -5), "type filter hook input priority filter - 5;"),
            (text(nat, HookPoint::Postrouting, 100), "type nat hook postrouting priority srcnat;"),
        ] {
            assert_eq!(line, format!("{wanted} policy accept;"));
        }
    }

    #[test]
    fn rules_read_as_nft_writes_them() {
        let key = vec![Field::DestAddr, Field::Proto, Field::DestPort, Field::RandomIndex];
        let pick = vec![Statement::MarkOr(1 << 14), Statement::Dnat { key, map: name("endpoints") }];
        let words = RuleWords { members: "3", timeout: "" };
        assert_eq!(
            rule(&pick, Family::V6, words),
            "meta mark set meta mark | 0x00004000 \
             dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints"
        );
        let outside = vec![
            Statement::InPrefix {
                field: Field::SourceAddr,
                negate: true,
                addr: [10, 0, 0, 0].into(),
                len: 8,
            },
            Statement::FromPods { negate: false },
            Statement::Return,
        ];
        assert_eq!(
            rule(&outside, Family::V4, RuleWords::ANY),
            "ip saddr != 10.0.0.0/8 ip saddr $POD_CIDRS return"
        );
    }
}
