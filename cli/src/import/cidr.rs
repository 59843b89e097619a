//! Address prefixes as kube-proxy reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads a CIDR and prints it the one way that the API server's validation takes. kube-proxy (`ParseCIDRSloppy`) takes
/// leading zeros as decimal and clears host bits.
pub(super) fn canonical(text: &str) -> Option<String> {
    let (addr, len) = text.split_once('/')?;
    let len: u32 = Some(len).filter(|l| l.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let network = match address(addr)? {
        IpAddr::V4(addr) if len <= 32 => {
            IpAddr::from(Ipv4Addr::from_bits(addr.to_bits() & u32::MAX.checked_shl(32 - len).unwrap_or(0)))
        }
        IpAddr::V6(addr) if len <= 128 => {
            IpAddr::from(Ipv6Addr::from_bits(addr.to_bits() & u128::MAX.checked_shl(128 - len).unwrap_or(0)))
        }
        _ => return None,
    };
    Some(format!("{network}/{len}"))
}

/// Whether a canonical CIDR is of IPv6.
pub(super) fn is_v6(cidr: &str) -> bool {
    cidr.contains(':')
}

fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    }
    let octets: Vec<&str> = text
        .split('.')
        .map(|octet| {
            let digits = octet.trim_start_matches('0');
            if digits.is_empty() && !octet.is_empty() { "0" } else { digits }
        })
        .collect();
    octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_printed_one_way() {
        for (text, wanted) in [
            ("10.244.0.0/16", Some("10.244.0.0/16")),
            ("10.244.3.4/16", Some("10.244.0.0/16")),
            ("010.000.0.0/8", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("FD00:0::1/64", Some("fd00::/64")),
            ("::/0", Some("::/0")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.0/+8", None),
            (" 10.0.0.0/8", None),
            ("fd00::/129", None),
        ] {
            assert_eq!(canonical(text).as_deref(), wanted, "{text:?}");
        }
    }
}
