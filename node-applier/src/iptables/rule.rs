//! One rule's text, spelled as `iptables-save` spells it, so that what is there can be compared with what should be.

use std::fmt::Write as _;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{FamilyOptions, Pods, Proto};

use super::chain::{Chain, PORTS, Prefix, Vip};
use crate::view::Endpoint;

/// A rule without the chain that it is in. Matches come in the order in which iptables-save prints them: addresses, interface,
/// protocol, then extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule(String);

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn add(mut self, words: std::fmt::Arguments<'_>) -> Self {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        let _infallible = self.0.write_fmt(words);
        self
    }

    /// What comes from a range. All addresses are no condition: iptables leaves it out, too.
    pub(super) fn from(self, (addr, len): Prefix) -> Self {
        if len == 0 { self } else { self.add(format_args!("-s {addr}/{len}")) }
    }

    pub(super) fn not_from(self, (addr, len): Prefix) -> Self {
        self.add(format_args!("! -s {addr}/{len}"))
    }

    pub(super) fn to(self, (addr, len): Prefix) -> Self {
        self.add(format_args!("-d {addr}/{len}"))
    }

    pub(super) fn not_to(self, (addr, len): Prefix) -> Self {
        self.add(format_args!("! -d {addr}/{len}"))
    }

    pub(super) fn input(self, name: &str, prefix: bool) -> Self {
        self.add(format_args!("-i {name}{}", if prefix { "+" } else { "" }))
    }

    /// What is sent to a VIP.
    pub(super) fn at_vip(self, vip: Vip) -> Self {
        self.to(host(vip.addr)).at_port(vip.proto, vip.port)
    }

    pub(super) fn at_port(self, proto: Proto, port: u16) -> Self {
        let proto = word(proto);
        self.add(format_args!("-p {proto} -m {proto} --dport {port}"))
    }

    /// The ports of a chain.
    pub(super) fn at_ports(self, proto: Proto, first: u16) -> Self {
        let (proto, last) = (word(proto), first + (PORTS - 1));
        self.add(format_args!("-p {proto} -m {proto} --dport {first}:{last}"))
    }

    pub(super) fn proto(self, proto: Proto) -> Self {
        self.add(format_args!("-p {}", word(proto)))
    }

    /// What is addressed to the node itself.
    pub(super) fn at_node(self) -> Self {
        self.add(format_args!("-m addrtype --dst-type LOCAL"))
    }

    /// What the node itself sends.
    pub(super) fn by_node(self) -> Self {
        self.add(format_args!("-m addrtype --src-type LOCAL"))
    }

    pub(super) fn state(self, states: &str) -> Self {
        self.add(format_args!("-m conntrack --ctstate {states}"))
    }

    pub(super) fn not_state(self, states: &str) -> Self {
        self.add(format_args!("-m conntrack ! --ctstate {states}"))
    }

    pub(super) fn marked(self, mark: u32) -> Self {
        self.add(format_args!("-m mark --mark {mark:#x}/{mark:#x}"))
    }

    /// One time in `n`.
    pub(super) fn one_in(self, n: usize) -> Self {
        // xtables keeps it as a number of 31 bits and prints that (`extensions/libxt_statistic.c`).
        const WHOLE: u64 = 1 << 31;
        let n = n as u64;
        let part = (WHOLE + n / 2) / n;
        let digits = (u128::from(part) * 100_000_000_000 + u128::from(WHOLE / 2)) / u128::from(WHOLE);
        let (whole, rest) = (digits / 100_000_000_000, digits % 100_000_000_000);
        self.add(format_args!("-m statistic --mode random --probability {whole}.{rest:011}"))
    }

    /// A client that is remembered in this set.
    pub(super) fn remembered(self, set: &str) -> Self {
        self.add(format_args!("-m set --match-set {set} src"))
    }

    /// Remembers the client in this set for so many seconds, from now.
    pub(super) fn remember(self, set: &str, seconds: u32) -> Self {
        self.add(format_args!("-j SET --add-set {set} src --exist --timeout {seconds}"))
    }

    pub(super) fn jump(self, chain: Chain) -> Self {
        self.add(format_args!("-j {}", chain.name()))
    }

    pub(super) fn translate(self, to: Endpoint) -> Self {
        self.add(format_args!("-j DNAT --to-destination {}", std::net::SocketAddr::new(to.addr, to.port)))
    }

    pub(super) fn mark(self, mark: u32) -> Self {
        self.add(format_args!("-j MARK --set-xmark {mark:#x}/{mark:#x}"))
    }

    pub(super) fn unmarked(self, mark: u32) -> Self {
        self.add(format_args!("-m mark ! --mark {mark:#x}/{mark:#x}"))
    }

    /// Removes a mark that is there.
    pub(super) fn unmark(self, mark: u32) -> Self {
        self.add(format_args!("-j MARK --set-xmark {mark:#x}/0x0"))
    }

    pub(super) fn masquerade(self) -> Self {
        self.add(format_args!("-j MASQUERADE --random-fully"))
    }

    pub(super) fn accept(self) -> Self {
        self.add(format_args!("-j ACCEPT"))
    }

    pub(crate) fn leave(self) -> Self {
        self.add(format_args!("-j RETURN"))
    }

    pub(super) fn drop(self) -> Self {
        self.add(format_args!("-j DROP"))
    }

    pub(super) fn reject(self, v4: bool) -> Self {
        let with = if v4 { "icmp-port-unreachable" } else { "icmp6-port-unreachable" };
        self.add(format_args!("-j REJECT --reject-with {with}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Alternatives by which traffic of a node's own pods is told; `pod_cidrs` are the node's.
pub(crate) fn of_pods(family: Family, options: &FamilyOptions, pod_cidrs: &[Prefix]) -> Vec<Rule> {
    let of_family = |prefixes: &[Prefix]| {
        let own = prefixes.iter().filter(|(addr, _)| Family::of(*addr) == family);
        own.map(|prefix| Rule::new().from(*prefix)).collect()
    };
    match &options.pods {
        Pods::Unknown => Vec::new(),
        Pods::Prefixes(prefixes) => of_family(prefixes),
        Pods::NodeCidr => of_family(pod_cidrs),
        Pods::Interface { name, prefix } => vec![Rule::new().input(name, *prefix)],
    }
}

/// As iptables calls it.
pub(super) fn word(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Sctp => "sctp",
    }
}

/// An address as a range of one.
pub(super) fn host(addr: IpAddr) -> Prefix {
    (addr, if addr.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_spelled_as_xtables_prints_them() {
        let share = |n| Rule::new().one_in(n).0.rsplit(' ').next().unwrap().to_owned();
        // From iptables-save, of rules with --probability 0.5, 0.33333333333, 0.14285714286 and 0.0001.
        assert_eq!(share(2), "0.50000000000");
        assert_eq!(share(3), "0.33333333349");
        assert_eq!(share(7), "0.14285714272");
        assert_eq!(share(1), "1.00000000000");
    }
}
