//! Reading and writing bytes, with every length checked before it is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why bytes are not what they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends in the middle of something.
    #[error("the data is truncated")]
    Truncated,
    /// Bytes follow the end.
    #[error("{0} bytes follow the end of the data")]
    Trailing(usize),
    /// A length or count is above its limit.
    #[error("{what} is {value}, above the limit of {limit}")]
    TooLarge {
        /// What it counts.
        what: &'static str,
        /// The value read.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A tag or field has a value that this version does not know.
    #[error("unknown or invalid {what}: {value}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// What was read.
        value: u64,
    },
    /// The same content has another, shorter or ordered, encoding; only that one is accepted.
    #[error("{0} is not in canonical form")]
    NotCanonical(&'static str),
    /// Compressed data that cannot be decompressed within its limits.
    #[error("the compressed data is damaged: {0}")]
    Compression(String),
    /// A hash does not fit the bytes it stands for.
    #[error("{0} is missing or was altered: its hash differs")]
    Damaged(&'static str),
    /// Text that is not text.
    #[error("{0} is not valid text")]
    Text(&'static str),
}

/// The largest text, in bytes: a namespace, a slash and a name have at most 317.
pub(crate) const MAX_TEXT: usize = 512;

/// Appends encoded values.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub(crate) fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    pub(crate) fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    pub(crate) fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// LEB128: seven bits a byte, the lowest first.
    pub(crate) fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v.to_le_bytes()[0] | 0x80);
            v >>= 7;
        }
        self.0.push(v.to_le_bytes()[0]);
    }
    pub(crate) fn len(&mut self, v: usize) {
        self.varint(v as u64);
    }
    pub(crate) fn text(&mut self, v: &str) {
        self.len(v.len());
        self.0.extend_from_slice(v.as_bytes());
    }
    /// The address's bytes alone; its family is known from elsewhere.
    pub(crate) fn addr(&mut self, v: IpAddr) {
        match v {
            IpAddr::V4(a) => self.0.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => self.0.extend_from_slice(&a.octets()),
        }
    }
    pub(crate) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.len(items.len());
        for item in items {
            each(self, item);
        }
    }
}

/// Reads encoded values from a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.array()
    }
    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            v => Err(DecodeError::Invalid { what, value: v.into() }),
        }
    }
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(DecodeError::NotCanonical("a number"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::Invalid { what: "number", value })
    }
    /// A count or length that must not exceed `limit`.
    pub(crate) fn len(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(n) if n <= limit => Ok(n),
            _ => Err(DecodeError::TooLarge { what, value, limit: limit as u64 }),
        }
    }
    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let n = self.len(what, MAX_TEXT)?;
        std::str::from_utf8(self.take(n)?).map_err(|_| DecodeError::Text(what))
    }
    pub(crate) fn addr(&mut self, v4: bool) -> Result<IpAddr, DecodeError> {
        Ok(if v4 {
            Ipv4Addr::from(self.array::<4>()?).into()
        } else {
            Ipv6Addr::from(self.array::<16>()?).into()
        })
    }
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let n = self.len(what, limit)?;
        // Every item takes a byte or more, so a lying count cannot reserve more than the input's own size.
        let mut items = Vec::with_capacity(n.min(self.0.len()));
        for _ in 0..n {
            items.push(each(self)?);
        }
        Ok(items)
    }
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}
