//! Netlink messages and attributes: writing them into one growing buffer, and reading them with every length checked.

use crate::uapi::{NFGENMSG_LEN, NLA_F_NESTED, NLA_TYPE_MASK, NLMSG_HDRLEN};

/// `struct nlattr`: length and type, two bytes each.
const NLA_HDRLEN: usize = 4;

/// A length rounded up to netlink's alignment (`NLMSG_ALIGN`, `NLA_ALIGN`).
const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Messages being written. Lengths are patched in when a message or a nest is closed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// An attribute was longer than its 16-bit length can say; what was written must not be sent.
    overflow: bool,
}

impl Buffer {
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn overflow(&self) -> bool {
        self.overflow
    }

    /// Begins a message: `struct nlmsghdr`, then `struct nfgenmsg`. Returns its position, for [`Self::close_message`].
    pub(crate) fn open_message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        family: u8,
        resource: u16,
    ) -> usize {
        let [high, low] = resource.to_be_bytes();
        self.open_header(kind, flags, seq, &[family, 0, high, low])
    }

    /// The same for a subsystem with a header of its own behind `struct nlmsghdr`.
    pub(crate) fn open_header(&mut self, kind: u16, flags: u16, seq: u32, own: &[u8]) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]); // the length, patched by close_message
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // the port id; the kernel knows the sender
        self.bytes.extend_from_slice(own);
        start
    }

    pub(crate) fn close_message(&mut self, start: usize) {
        match u32::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    /// An attribute of raw bytes.
    pub(crate) fn raw(&mut self, kind: u16, data: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(data);
        self.close(start);
    }

    /// A number in network order, as nf_tables wants all its numbers.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// A string with its NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.open_nest(kind);
        write(self);
        self.close(start);
    }

    /// The two halves of [`Self::nest`], for a nest that stays open between calls.
    pub(crate) fn open_nest(&mut self, kind: u16) -> usize {
        self.open(kind | NLA_F_NESTED)
    }

    /// Patches the length of the attribute at `start` and pads behind it.
    pub(crate) fn close(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        match u16::try_from(len) {
            Ok(len) => self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
        self.bytes.resize(start + align(len), 0);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }
}

/// The message at the front of `bytes`, and how many bytes it takes. None at the end, and when what is left is not a
/// message.
pub(crate) fn message(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let len = usize::try_from(host_u32(bytes, 0)?).ok()?;
    let body = bytes.get(NLMSG_HDRLEN..len)?;
    let message = Message {
        kind: host_u16(bytes, 4)?,
        flags: host_u16(bytes, 6)?,
        seq: host_u32(bytes, 8)?,
        port: host_u32(bytes, 12)?,
        body,
    };
    Some((message, align(len).min(bytes.len())))
}

/// All messages of a datagram or a batch, with their positions.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = (usize, Message<'_>)> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let (message, len) = message(&bytes[position..])?;
        position += len;
        Some((position - len, message))
    })
}

/// One netlink message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// The port id of the socket that caused it (in a notification) or that it is for (in a reply).
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `nfgen_family`.
    pub(crate) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// `res_id`: in what nf_tables sends, the low half of the ruleset's generation at that moment.
    pub(crate) fn resource(&self) -> Option<u16> {
        self.body.get(2..4)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The attributes after `struct nfgenmsg`, or after `struct genlmsghdr`, which is as long.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        self.attributes_after(NFGENMSG_LEN)
    }

    /// The attributes after a header of this length.
    pub(crate) fn attributes_after(&self, header: usize) -> Attributes<'a> {
        Attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// A run of attributes, of which those count that stand before the first one that does not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Types and payloads.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let len = usize::from(host_u16(rest, 0)?);
            let kind = host_u16(rest, 2)? & NLA_TYPE_MASK;
            let payload = rest.get(NLA_HDRLEN..len)?;
            rest = rest.get(align(len)..).unwrap_or_default();
            Some((kind, payload))
        })
    }

    /// The payload of the first attribute of this type.
    pub(crate) fn raw(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, payload)| payload)
    }

    /// The attributes inside the first attribute of this type; none when it is not there.
    pub(crate) fn nest(self, kind: u16) -> Attributes<'a> {
        Attributes(self.raw(kind).unwrap_or_default())
    }

    /// A number in network order.
    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        self.raw(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number of 32 bits in the machine's order.
    pub(crate) fn host(self, kind: u16) -> Option<u32> {
        host_u32(self.raw(kind)?, 0)
    }

    /// A string, with or without its NUL.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let raw = self.raw(kind)?;
        std::str::from_utf8(raw.strip_suffix(&[0]).unwrap_or(raw)).ok()
    }
}

/// A number in host order, as netlink's own headers have them.
pub(crate) fn host_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn host_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Buffer {
        let mut b = Buffer::default();
        let start = b.open_message(0x0a06, 0x401, 7, 2, 10);
        b.text(1, "rulecast");
        b.nest(4, |b| {
            b.number(1, 0x0102_0304);
            b.raw(2, &[9]);
        });
        b.close_message(start);
        b
    }

    #[test]
    fn what_is_written_can_be_read() {
        let buffer = sample();
        let (position, message) = messages(buffer.bytes()).next().unwrap();
        assert_eq!((position, message.kind, message.flags, message.seq), (0, 0x0a06, 0x401, 7));
        assert_eq!(message.family(), 2);
        let attributes = message.attributes();
        assert_eq!(attributes.text(1), Some("rulecast"));
        assert_eq!(attributes.nest(4).number(1), Some(0x0102_0304));
        assert_eq!(attributes.nest(4).raw(2), Some(&[9][..]));
        assert_eq!(attributes.raw(5), None);
        assert_eq!(messages(buffer.bytes()).count(), 1);
    }

    #[test]
    fn lengths_leave_padding_out_and_positions_count_it() {
        let mut b = Buffer::default();
        b.raw(1, &[1, 2, 3, 4, 5]);
        assert_eq!(b.bytes(), [9, 0, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
        b.text(2, "ab");
        assert_eq!(b.bytes()[12..], [7, 0, 2, 0, b'a', b'b', 0, 0]);
    }

    #[test]
    fn an_attribute_that_is_too_long_is_noticed() {
        let mut b = Buffer::default();
        b.raw(1, &vec![0; usize::from(u16::MAX) - NLA_HDRLEN]);
        assert!(!b.overflow());
        b.raw(1, &vec![0; usize::from(u16::MAX)]);
        assert!(b.overflow());
    }

    /// Every truncation and every corrupted byte of a message is read without a panic, and so is noise.
    #[test]
    fn reading_never_panics() {
        fn walk(bytes: &[u8]) {
            for (_, message) in messages(bytes) {
                for (_, payload) in message.attributes().iter() {
                    Attributes(payload).iter().for_each(drop);
                    let _ = (message.family(), message.attributes().text(1), message.attributes().number(4));
                }
            }
        }
        let good = sample();
        for len in 0..good.len() {
            walk(&good.bytes()[..len]);
            for value in [0, 1, 3, 4, 5, 127, 128, 254, 255] {
                let mut bad = good.bytes().to_vec();
                bad[len] = value;
                walk(&bad);
            }
        }
        let mut noise = 1_u32;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0] & 0x3f
            })
            .take(64)
            .collect();
            walk(&bytes);
        }
    }
}
