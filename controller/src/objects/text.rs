//! Addresses and protocols as Kubernetes objects write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rulecast_bundle::Proto;
use rulecast_compiler::model::Prefix;

/// Reads an address. Blanks around it and leading zeros, which old API servers let pass, are read as decimal, as
/// kube-proxy reads them; an IPv4 address in IPv6 clothes is an IPv4 address.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|a| IpAddr::V6(a).to_canonical());
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// Reads a prefix, as leniently as [`address`], and clears its host bits.
pub(crate) fn prefix(text: &str) -> Option<Prefix> {
    let (addr, len) = text.trim().split_once('/')?;
    let (addr, len) = (address(addr)?, decimal(len)?);
    // An IPv4 prefix in IPv6 clothes counts the 96 bits of the clothes.
    let len = if addr.is_ipv4() && text.contains(':') { len.checked_sub(96)? } else { len };
    match addr {
        IpAddr::V4(a) if len <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Some((Ipv4Addr::from_bits(a.to_bits() & mask).into(), len))
        }
        IpAddr::V6(a) if len <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Some((Ipv6Addr::from_bits(a.to_bits() & mask).into(), len))
        }
        _ => None,
    }
}

/// `str::parse` would take a sign.
fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Reads a protocol; none means TCP.
pub(crate) fn protocol(text: Option<&str>) -> Option<Proto> {
    match text {
        None | Some("" | "TCP") => Some(Proto::Tcp),
        Some("UDP") => Some(Proto::Udp),
        Some("SCTP") => Some(Proto::Sctp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_leniently_as_decimal() {
        for (text, wanted) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("172.30.0.041", Some("172.30.0.41")),
            (" 010.000.00.8 ", Some("10.0.0.8")),
            ("fd00::1", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.256", None),
            ("10.0.0.+1", None),
            ("10.0.0.0x1", None),
            ("", None),
            ("None", None),
            ("fd00::1%eth0", None),
        ] {
            assert_eq!(address(text), wanted.map(|w| w.parse().unwrap()), "{text:?}");
        }
    }

    #[test]
    fn prefixes_lose_their_host_bits() {
        for (text, wanted) in [
            ("10.1.2.3/8", Some(("10.0.0.0", 8))),
            (" 203.0.113.000/025", Some(("203.0.113.0", 25))),
            ("0.0.0.0/0", Some(("0.0.0.0", 0))),
            ("10.0.0.1/32", Some(("10.0.0.1", 32))),
            ("fd00::1/64", Some(("fd00::", 64))),
            ("::/0", Some(("::", 0))),
            ("::ffff:10.0.0.0/104", Some(("10.0.0.0", 8))),
            ("::ffff:10.0.0.0/64", None),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/-1", None),
        ] {
            assert_eq!(prefix(text), wanted.map(|(a, l)| (a.parse().unwrap(), l)), "{text:?}");
        }
    }
}
