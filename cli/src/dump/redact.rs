//! Replaces names and addresses by pseudonyms.
//!
//! A pseudonym is a keyed hash, so within a dump equal names stay equal, and nobody can find a name by hashing guesses.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Node,
    Namespace,
    Service,
    Pod,
}

impl Named {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Namespace => "ns",
            Self::Service => "svc",
            Self::Pod => "pod",
        }
    }
}

/// Names that every cluster has and that tell nothing of it.
const PUBLIC: [&str; 8] = [
    "default",
    "kubernetes",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "rulecast-system",
    "rulecast-controller",
    "rulecast-node",
];

/// Words before a name in messages, and what it is the name of.
const KINDS: [(&str, Named); 6] = [
    ("Service", Named::Service),
    ("EndpointSlice", Named::Service),
    ("Node", Named::Node),
    ("RuleNode", Named::Node),
    ("Pod", Named::Pod),
    ("Namespace", Named::Namespace),
];

/// A key that nobody knows afterwards.
pub(super) fn random_key() -> anyhow::Result<[u8; 32]> {
    let mut key = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key)).context("/dev/urandom")?;
    Ok(key)
}

/// Replaces names and addresses.
pub(super) struct Redactor {
    key: [u8; 32],
    names: HashMap<String, String>,
    addresses: BTreeSet<IpAddr>,
}

impl Redactor {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, names: HashMap::new(), addresses: BTreeSet::new() }
    }

    /// How many different ones there were.
    pub(super) fn replaced(&self) -> usize {
        self.names.len() + self.addresses.len()
    }

    fn pseudonym(&self, prefix: &str, name: &str) -> String {
        let inner =
            Sha256::new().chain_update(self.key).chain_update(prefix).chain_update([0]).chain_update(name);
        let outer = Sha256::new().chain_update(self.key).chain_update(inner.finalize()).finalize();
        let number = outer[..6].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{prefix}-{number:012x}")
    }

    /// Takes note of a name.
    pub(super) fn learn(&mut self, kind: Named, name: &str) {
        if !name.is_empty() && !PUBLIC.contains(&name) && !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), self.pseudonym(kind.prefix(), name));
        }
    }

    /// Takes note of the names that a text has in the form `Service prod/web`, of objects that may be gone by now.
    pub(super) fn learn_from(&mut self, text: &str) {
        let mut before = "";
        for word in text.split(|c: char| !is_name(c) && c != '/') {
            if let Some((_, kind)) = KINDS.iter().find(|(kind, _)| *kind == before) {
                match word.split_once('/') {
                    Some((namespace, name)) if is_label(namespace) => {
                        self.learn(Named::Namespace, namespace);
                        self.learn(*kind, name.split('/').next().unwrap_or_default());
                    }
                    None if matches!(kind, Named::Node | Named::Namespace) && is_object(word) => {
                        self.learn(*kind, word);
                    }
                    _ => {}
                }
            }
            if !word.is_empty() {
                before = word;
            }
        }
    }

    /// The text without them.
    pub(super) fn redact(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            out += &rest[..start];
            let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
            self.part(&rest[start..end], &mut out);
            rest = &rest[end..];
        }
        out + rest
    }

    /// A run of letters, digits, dots, dashes and colons.
    fn part(&mut self, part: &str, out: &mut String) {
        // A sentence may go on after it. Only an address ends with colons of its own.
        let address = [part, part.trim_end_matches(['.', '-']), part.strip_suffix(':').unwrap_or(part)]
            .into_iter()
            .find_map(|core| Some((core.len(), core.parse::<Ipv6Addr>().ok()?)));
        if let Some((length, addr)) = address {
            *out += &self.address(IpAddr::V6(addr));
            *out += &part[length..];
            return;
        }
        let core = part.trim_end_matches(['.', ':', '-']);
        for (i, piece) in core.split(':').enumerate() {
            if i > 0 {
                out.push(':');
            }
            self.piece(piece, out);
        }
        *out += &part[core.len()..];
    }

    /// A run without colons: a name, or something that has a name or an address in it.
    fn piece(&mut self, piece: &str, out: &mut String) {
        if let Some(pseudonym) = self.names.get(piece) {
            *out += pseudonym;
        } else if let Some((start, end, addr)) = find_v4(piece) {
            *out += &piece[..start];
            *out += &self.address(IpAddr::V4(addr));
            self.piece(&piece[end..], out);
        } else {
            // web.prod.svc
            for (i, label) in piece.split('.').enumerate() {
                if i > 0 {
                    out.push('.');
                }
                *out += self.names.get(label).map_or(label, String::as_str);
            }
        }
    }

    fn address(&mut self, addr: IpAddr) -> String {
        if addr.is_unspecified() || addr.is_loopback() {
            return addr.to_string();
        }
        self.addresses.insert(addr);
        self.pseudonym(if addr.is_ipv4() { "v4" } else { "v6" }, &addr.to_string())
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.')
}

fn is_part(c: char) -> bool {
    is_name(c) || c == ':'
}

fn is_label(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(good)
}

/// An object's name: labels with dots between them. A word of a sentence is hardly one, unless it has a digit or a dash.
fn is_object(text: &str) -> bool {
    text.split('.').all(is_label) && text.bytes().any(|b| b.is_ascii_digit() || b == b'-')
}

/// The first IPv4 address in a run: where it begins and ends.
fn find_v4(text: &str) -> Option<(usize, usize, Ipv4Addr)> {
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    let mut from = 0;
    while let Some(start) = text[from..].find(|c: char| c.is_ascii_digit()).map(|i| from + i) {
        let end = text[start..].find(|c| !digit(c)).map_or(text.len(), |i| start + i);
        let run = text[start..end].trim_end_matches('.');
        if let Ok(addr) = run.parse() {
            return Some((start, start + run.len(), addr));
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        let mut redactor = Redactor::new([7; 32]);
        redactor.learn(Named::Service, "web");
        redactor.learn(Named::Namespace, "prod");
        redactor.learn(Named::Namespace, "kube-system");
        redactor.learn(Named::Node, "ip-10-0-0-1.ec2.internal");
        redactor
    }

    /// The text with every pseudonym cut to its prefix.
    fn brief(text: &str) -> String {
        let mut out = redactor().redact(text);
        for prefix in ["svc", "ns", "node", "v4", "v6", "pod"] {
            while let Some(at) = out.find(&format!("{prefix}-")) {
                let end = at + prefix.len() + 13;
                out.replace_range(at..end, &prefix.to_uppercase());
            }
        }
        out
    }

    #[test]
    fn names_and_addresses_wherever_they_stand() {
        for (text, wanted) in [
            ("Service prod/web: 10.96.0.3:80/TCP", "Service NS/SVC: V4:80/TCP"),
            ("node ip-10-0-0-1.ec2.internal.", "node NODE."),
            ("web.prod.svc.cluster.local", "SVC.NS.svc.cluster.local"),
            ("affinity-tcp-10.96.0.7-443", "affinity-tcp-V4-443"),
            ("[fd00:244::1]:8080 fd00:244::/56", "[V6]:8080 V6/56"),
            ("\"10.0.0.0/8,10.1.2.3\"", "\"V4/8,V4\""),
            ("listening on 0.0.0.0:10266 and ::1", "listening on 0.0.0.0:10266 and ::1"),
            ("2026-01-01T00:00:00.000Z webhook v1.36.3", "2026-01-01T00:00:00.000Z webhook v1.36.3"),
            ("in kube-system: web", "in kube-system: SVC"),
            ("digest: shape-3-shape-3-sha", "digest: shape-3-shape-3-sha"),
        ] {
            assert_eq!(brief(text), wanted);
        }
    }

    #[test]
    fn names_of_what_is_gone_are_learnt_from_words() {
        let mut redactor = Redactor::new([7; 32]);
        redactor.learn_from("the Service \"shop/cart\" is invalid; Node worker-1 left; Service is down");
        let text = redactor.redact("cart of shop on worker-1 is down");
        assert!(!text.contains("cart") && !text.contains("shop") && !text.contains("worker-1"), "{text}");
        assert!(text.contains("svc-") && text.contains("ns-") && text.ends_with("is down"), "{text}");
    }

    #[test]
    fn equal_names_stay_equal_and_keys_differ() {
        let (mut a, mut b) = (Redactor::new([1; 32]), Redactor::new([2; 32]));
        assert_eq!(a.redact("10.0.0.1"), a.redact("10.0.0.1"));
        assert_ne!(a.redact("10.0.0.1"), a.redact("10.0.0.2"));
        assert_ne!(a.redact("10.0.0.1"), b.redact("10.0.0.1"));
        assert_eq!(a.replaced(), 2);
    }
}
