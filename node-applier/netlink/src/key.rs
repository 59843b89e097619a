//! Keys and values of set elements, as the kernel's registers hold them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// The most bytes a key or a value may have: `NFT_DATA_VALUE_MAXLEN`, all sixteen registers.
const MAX: usize = 64;

/// The key of a set element, or the data of a map element: components one after the other, each padded to 4-byte
/// registers. Lives on the stack.
///
/// ```
/// # use rulecast_netlink::Key;
/// let key = Key::new().addr("10.96.0.1".parse().unwrap()).proto(6).port(80);
/// assert_eq!(key.as_bytes(), [10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Zero behind `len`, so that the derived comparisons are right.
    bytes: [u8; MAX],
    len: u8,
    components: u8,
}

impl Key {
    /// An empty key.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; MAX], len: 0, components: 0 }
    }

    /// Appends an address: 4 bytes or 16.
    ///
    /// # Panics
    /// Like all the appending methods, when the key exceeds 64 bytes, which is more than five components of any kind
    /// in use take (three IPv6 addresses, a protocol and a port: 56).
    #[must_use]
    pub fn addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.component(&addr.octets()),
            IpAddr::V6(addr) => self.component(&addr.octets()),
        }
    }

    /// Appends a protocol number: a byte and padding.
    #[must_use]
    pub fn proto(self, proto: u8) -> Self {
        self.component(&[proto])
    }

    /// Appends a port: two bytes in network order and padding.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.component(&port.to_be_bytes())
    }

    /// Appends an index as `numgen` makes it: four bytes in host order, typed as a mark.
    #[must_use]
    pub fn index(self, index: u32) -> Self {
        self.component(&index.to_ne_bytes())
    }

    /// A key as a dump tells it ([`Element::key`](crate::Element::key)); none when it is longer than any key can be. Not for
    /// ranges: where its components end is not known.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX).then(|| Self::new().component(bytes))
    }

    /// The padded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// How many components it has.
    pub(crate) fn components(&self) -> u8 {
        self.components
    }

    /// The number one above this one, of a key with one component; none above the largest.
    pub(crate) fn successor(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.len)].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(self);
            }
        }
        None
    }

    fn component(mut self, data: &[u8]) -> Self {
        let start = usize::from(self.len);
        self.bytes[start..start + data.len()].copy_from_slice(data);
        let padded = data.len().next_multiple_of(4);
        // At most 16: an address.
        self.len += u8::try_from(padded).unwrap_or(u8::MAX);
        self.components += 1;
        self
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

/// Over the bytes in use only: most keys are a quarter of the buffer.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.as_bytes()))
    }
}

/// Register bytes in groups of four: `0a600001 06000000 00500000`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 9 / 4);
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn components_are_padded_to_registers() {
        let key = Key::new().addr(ip("10.96.0.1")).proto(17).port(0x1234).index(1);
        assert_eq!(format!("{key:?}"), format!("0a600001 11000000 12340000 {}", hex(&1_u32.to_ne_bytes())));
        assert_eq!(key.components(), 4);
        let key = Key::new().addr(ip("fd00::1")).proto(6);
        assert_eq!(format!("{key:?}"), "fd000000 00000000 00000000 00000001 06000000");
        assert_eq!(Key::new().as_bytes(), []);
    }

    #[test]
    fn the_largest_key_in_use_fits() {
        let six = ip("2001:db8::1");
        let key = Key::new().addr(six).addr(six).proto(6).port(1).addr(six);
        assert_eq!(key.as_bytes().len(), 56);
        assert_eq!(size_of::<Key>(), 66);
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        let (a, b) = (Key::new().addr(ip("10.0.0.1")).port(80), Key::new().addr(ip("10.0.0.2")));
        assert!(a < b);
        assert_ne!(a, Key::new().addr(ip("10.0.0.1")).port(81));
    }

    #[test]
    fn successors_carry_and_end() {
        assert_eq!(Key::new().addr(ip("10.0.0.255")).successor(), Some(Key::new().addr(ip("10.0.1.0"))));
        assert_eq!(Key::new().addr(ip("255.255.255.255")).successor(), None);
    }
}
