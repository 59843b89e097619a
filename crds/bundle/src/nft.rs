//! The fixed nftables rules of a pool, as data.
//!
//! A [`Ruleset`] holds one address family's chains, sets and maps, and says how a target with N members is turned
//! into chains and map elements ([`Lane`]). Nothing in it depends on how many Services there are: Services are elements. The node encodes it to netlink one to one; it never
//! interprets policy.
//!
//! The statements are the part of the nft language that the layout needs, no more, and each of them prints with
//! `nft list ruleset` of nft 1.0.6 and later.

use std::net::IpAddr;

use crate::Name;

pub mod text;

/// The address family of a table: `ip` or `ip6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, table `ip rulecast`.
    V4,
    /// IPv6, table `ip6 rulecast`.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One component of a concatenated key or of map data; also the type of that component in a set's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr` (or `ip6 saddr`): the packet's source address.
    SourceAddr,
    /// `ip daddr`: the packet's destination address now.
    DestAddr,
    /// `meta l4proto`.
    Proto,
    /// `th dport`: the packet's destination port now.
    DestPort,
    /// `ct original ip daddr`: the destination before DNAT.
    OriginalDestAddr,
    /// `ct original proto-dst`: the destination port before DNAT.
    OriginalDestPort,
    /// `numgen random mod N`, where N is the number of members of the chain being made ([`Lane`]). Typed as a
    /// mark in set definitions: 4 bytes, host order.
    RandomIndex,
}

/// What a set's elements lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A plain set.
    None,
    /// A verdict map.
    Verdict,
    /// A map to a concatenation, such as address . port.
    Fields(Vec<Field>),
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetDef {
    /// Its name.
    pub name: Name,
    /// The key's components, 1 to 5.
    pub key: Vec<Field>,
    /// What an element carries.
    pub data: Data,
    /// Elements are ranges (`flags interval`).
    pub interval: bool,
    /// Elements are added by packets and time out (`flags dynamic,timeout`). The node keeps the contents of such a
    /// map when it rebuilds everything else.
    pub dynamic: bool,
    /// The most elements it may hold; 0: no limit.
    pub size: u32,
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// The chain's type.
    pub kind: ChainKind,
    /// The hook point.
    pub point: HookPoint,
    /// The priority; lower runs earlier. Destination NAT is -100, source NAT 100, filter 0.
    pub priority: i32,
}

/// A base chain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// `type filter`.
    Filter,
    /// `type nat`.
    Nat,
}

/// A netfilter hook, numbered as the kernel numbers it (`linux/netfilter.h`, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting = 0,
    /// `NF_INET_LOCAL_IN`.
    Input = 1,
    /// `NF_INET_FORWARD`.
    Forward = 2,
    /// `NF_INET_LOCAL_OUT`.
    Output = 3,
    /// `NF_INET_POST_ROUTING`.
    Postrouting = 4,
}

/// A chain with its rules, in order. Base chains have policy accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainDef {
    /// Its name.
    pub name: Name,
    /// Its hook; none for a regular chain.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// One rule: statements evaluated left to right until one does not match.
pub type Rule = Vec<Statement>;

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `ip saddr [!=] PREFIX` or `ip daddr [!=] PREFIX`; `field` is [`Field::SourceAddr`] or [`Field::DestAddr`].
    InPrefix {
        /// Which address.
        field: Field,
        /// True for `!=`.
        negate: bool,
        /// The prefix's address, with the host bits zero.
        addr: IpAddr,
        /// The prefix's length: 0 to 32, or 0 to 128.
        len: u8,
    },
    /// `fib saddr type [!=] local` or `fib daddr type [!=] local`.
    IsLocal {
        /// Which address.
        field: Field,
        /// True for `!=`.
        negate: bool,
    },
    /// The source is, or is not, in one of the node's own pod CIDRs, which the node puts in their place: `!=` all of them
    /// in one rule, or a rule for each. A rule with this statement is left out where the node has no pod CIDR of the
    /// family, since nothing is known then.
    FromPods {
        /// True for `!=`.
        negate: bool,
    },
    /// `iifname [!=] "NAME"`, or `"NAME*"`. Locally made packets have no input interface.
    InputInterface {
        /// The interface's name, or how it begins: 1 to 15 bytes of printable ASCII but `"` and `*`.
        name: String,
        /// The name is only the beginning.
        prefix: bool,
        /// True for `!=`.
        negate: bool,
    },
    /// `ct state new`.
    StateNew,
    /// `ct status dnat`.
    StatusDnat,
    /// `KEY [!=] @SET`.
    InSet {
        /// The looked-up key.
        key: Vec<Field>,
        /// The set.
        set: Name,
        /// True for `!=`.
        negate: bool,
    },
    /// `KEY vmap @MAP`: goes on with the next rule when there is no such key.
    VerdictMap {
        /// The looked-up key.
        key: Vec<Field>,
        /// The verdict map.
        map: Name,
    },
    /// `dnat ip to KEY map @MAP`; the map's data is an address and a port. Goes on with the next rule when there is
    /// no such key.
    Dnat {
        /// The looked-up key.
        key: Vec<Field>,
        /// The map.
        map: Name,
    },
    /// `update @MAP { KEY timeout T : DATA }`, where T is the chain's number of seconds ([`Remember`]). Keeps the data
    /// of an element that is there and refreshes its timeout.
    Remember {
        /// The element's key.
        key: Vec<Field>,
        /// The element's data.
        data: Vec<Field>,
        /// The dynamic map.
        map: Name,
    },
    /// `meta mark & BITS == 0` (`set` false) or `!= 0` (`set` true).
    MarkIs {
        /// The bits.
        bits: u32,
        /// Whether one of them must be set.
        set: bool,
    },
    /// `meta mark set meta mark | BITS`.
    MarkOr(u32),
    /// `meta mark set meta mark ^ BITS`.
    MarkXor(u32),
    /// `masquerade fully-random`.
    Masquerade,
    /// `reject` with ICMP port unreachable.
    Reject,
    /// `drop`.
    Drop,
    /// `accept`.
    Accept,
    /// `return`.
    Return,
    /// `jump CHAIN`.
    Jump(Name),
    /// `goto CHAIN`.
    Goto(Name),
}

/// A class of kernel keys, such as "nodePorts with externalTrafficPolicy Cluster", and how a target with N members
/// answers them: per key one element in `verdicts` leading to the chain `chain-N`, and N elements in `endpoints`, keyed by
/// the key and an index below N. A group's keys name their lane by its position in [`Ruleset::lanes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Verdict map from a kernel key to a chain.
    pub verdicts: Name,
    /// Map from a kernel key and an index to an endpoint.
    pub endpoints: Name,
    /// Prefix of the chains: `lb` makes `lb-1`, `lb-2`, … Lanes with one prefix share the chains, which are those of the
    /// first of them.
    pub chain: Name,
    /// The rules of chain `chain-N`.
    pub pick: Vec<Rule>,
    /// Session affinity, where the layout has it.
    pub affinity: Option<Affinity>,
    /// Sets that hold each key of this lane for as long as its group exists, with or without members.
    pub sets: Vec<Name>,
    /// A fixed chain that each key leads to as long as its group has members.
    pub detour: Option<Detour>,
}

/// An element with a fixed verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detour {
    /// The verdict map that the key stands in.
    pub map: Name,
    /// The chain that it leads to.
    pub chain: Name,
}

/// How a lane serves targets with session affinity. Every Service port has chains of its own, since clients are remembered
/// for a Service port, whichever of its addresses they use; they are named by the port's cluster IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Prefix of the chains that [`Lane::verdicts`] leads to instead: `sticky` makes `sticky-tcp-10.96.0.1-80`.
    pub chain: Name,
    /// Their rules: look the client up, else pick. The name [`Lane::chain`] stands for `chain-N` in a goto.
    pub look: Vec<Rule>,
    /// Set of key . endpoint of the members, by which a translated connection is known to be one of this target.
    pub members: Name,
    /// How clients are remembered; none where another lane with the same keys does it.
    pub remember: Option<Remember>,
}

/// How the endpoint that was picked for a client is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remember {
    /// Verdict map from a kernel key, as it was before DNAT, to the chain that remembers.
    pub verdicts: Name,
    /// Prefix of those chains, one per Service port and timeout: `remember` makes `remember-10800-tcp-10.96.0.1-80`. Lanes
    /// with one prefix share the chains, which are those of the first of them.
    pub chain: Name,
    /// Their rules.
    pub rules: Vec<Rule>,
}

/// One family's rules in a pool of mode nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps.
    pub sets: Vec<SetDef>,
    /// Maps of which every Service port with session affinity has one of its own: `affinity` makes
    /// `affinity-tcp-10.96.0.1-80`. In the rules of [`Affinity`] their names stand for the one of the port in question.
    pub port_maps: Vec<SetDef>,
    /// Fixed chains.
    pub chains: Vec<ChainDef>,
    /// At most 255.
    pub lanes: Vec<Lane>,
    /// Set of endpoints on this node, as source . destination . protocol . port, whose connections to themselves
    /// must be masqueraded.
    pub hairpin: Option<Name>,
    /// Set of this node's own addresses that answer nodePorts, where not all do.
    pub node_addresses: Option<NodeAddresses>,
    /// Set of VIP . protocol . port . sources that may use a VIP. Where one of a VIP's ranges holds this node's primary
    /// address, the node lets the VIP itself in as well: when the VIP is one of its own addresses, that is what its
    /// connections come from.
    pub sources: Option<Name>,
}

/// Which of the node's own addresses answer nodePorts. The node fills the set, since only it knows its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The set to fill.
    pub set: Name,
    /// The node's primary address of this family belongs to it; every address if the node has no primary one.
    pub primary: bool,
    /// Every address of the node inside one of these prefixes belongs to it.
    pub prefixes: Vec<(IpAddr, u8)>,
}

impl Ruleset {
    /// The definition of a set or map.
    #[must_use]
    pub fn set(&self, name: &Name) -> Option<&SetDef> {
        self.sets.iter().find(|s| s.name == *name)
    }
}
